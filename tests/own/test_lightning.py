"""A LightningModule is trained as Lightning's own Trainer trains it, or refused by name."""

import textwrap
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from scaling.optimizers.build import build_optimizer, set_lr
from scaling.spec.checks.study import check_study
from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import Lightning
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from scaling.training import supervision as supervision_module
from scaling.training.data_order import DataOrder
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, recipe
from tests.together import on_workers
from tests.training.test_checkpoint import paused_often, run, without_time

pl = pytest.importorskip("lightning.pytorch")  # of the extra lightning
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and logging

BASE = """
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

def rows(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [(x, int(x.argmax())) for x in torch.randn(count, 4, generator=generator)]

class Net(LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 4))

    def step(self, batch):
        x, y = batch
        logits = self.layers(x)
        return functional.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        loss, _ = self.step(batch)
        self.log("train/loss", loss)
        return {"loss": loss}

    def validation_step(self, batch):
        loss, right = self.step(batch)
        self.log("val/loss", loss)
        self.log_dict({"val/accuracy": right})

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.0)

    def train_dataloader(self):
        return DataLoader(rows(40, 0), batch_size=7, shuffle=True)

    def val_dataloader(self):
        return DataLoader(rows(25, 1), batch_size=10)
"""


ALONE_HERE = Workers()


def section(folder: Path, source: str = "", **fields: Any) -> Lightning:
    (folder / "my_net.py").write_text(BASE + textwrap.dedent(source), encoding="utf-8")
    given = {"task": "lightning", "module": "my_net:Net", "folder": str(folder), **fields}
    return Lightning.model_validate(given)


def prepared(workload: Lightning) -> Any:
    task = prepare_task(workload, EVALUATION)
    assert isinstance(task, ModuleTask)
    require_trainable(task, 0)
    return task


def refused(workload: Lightning, match: str, path: str = "workload.module") -> None:
    with pytest.raises(DataError, match=match) as raised:
        prepared(workload)
    assert raised.value.path == path
    assert len(str(raised.value).splitlines()) == 1


def ours(task: Any, how: Any, workers: Workers = ALONE_HERE) -> list[float]:
    """The loss of every step."""
    found: list[float] = []

    def report(measurement: Any, *, at_rung: bool) -> Any:
        if measurement.step_loss is not None:
            found.append(measurement.step_loss)
        return "continue"

    train(task, how, Evaluation(every_steps=1, num_examples=5), workers, report)
    return found


def theirs(module: Any, task: ModuleTask, how: Any) -> list[float]:
    """The same by Lightning's Trainer, on the same examples in the same order."""
    hparams, found = how.hyperparameters, []
    count = hparams.num_steps * hparams.global_batch_size
    order = DataOrder(how.seed, task.num_train).indices(0, count)
    examples = [task.own.train[int(number)] for number in order]

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
            found.append(float(outputs["loss"]))

    trainer = pl.Trainer(
        max_steps=hparams.num_steps, accelerator="cpu", logger=False, callbacks=[Losses()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        gradient_clip_val=hparams.clip_norm, limit_val_batches=0,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(
        cast("Any", examples), batch_size=hparams.global_batch_size
    )
    trainer.fit(module, loader)
    return found


@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_the_trainer_has_the_same_losses(tmp_path: Path, micro_batch_size: int) -> None:
    task = prepared(section(tmp_path))
    how = recipe(
        8, 0.01, 12, micro_batch_size=micro_batch_size, weight_decay=0.0, clip_norm=0.5,
        beta2=0.999, eps=1e-8,
    )  # fmt: skip
    module: Any = task.new_model(how.seed)
    expected = theirs(module.module, task, how)
    assert len(expected) == 12
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(ours(task, how), expected, atol=1e-5, rtol=0)


def test_what_validation_step_logs_are_the_metrics(tmp_path: Path) -> None:
    directions = {"val_accuracy": "maximize"}
    task = prepared(section(tmp_path, directions=directions))
    known = task.described_metrics
    assert {name: metric.direction for name, metric in known.items()} == {
        "val_accuracy": "maximize", "val_loss": None,
    }  # fmt: skip
    model: Any = task.new_model(3).eval()
    with torch.inference_mode():
        found = task.score(model, torch.device("cpu"))
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    [expected] = trainer.validate(model.module, verbose=False)
    assert found["val_accuracy"] == pytest.approx(expected["val/accuracy"], abs=1e-6)
    assert found["val_loss"] == pytest.approx(expected["val/loss"], abs=1e-6)
    with torch.no_grad():
        losses = task.example_losses(model, "validation", slice(0, 25), torch.device("cpu"))
    assert losses.loss == pytest.approx(found["val_loss"], abs=1e-6)
    assert losses.loss_sums.std() > 0.01  # each example has its own


def test_modules_that_nobody_here_wrote(tmp_path: Path) -> None:
    boring = "lightning.pytorch.demos.boring_classes:BoringModel"
    transformer = "lightning.pytorch.demos:LightningTransformer"
    for given in (
        {"module": boring},
        {
            "module": transformer, "module_options": {"vocab_size": 20},
            "datamodule": "tests.own.lightning_tokens:RandomTokens",
            "datamodule_options": {"num_train": 40},
        },
    ):  # fmt: skip
        workload = Lightning.model_validate({"task": "lightning", **given, "folder": str(tmp_path)})
        losses = ours(prepared(workload), recipe(8, 3e-3, 8, micro_batch_size=4))
        assert losses[-1] < 0.8 * losses[0] or given["module"] == boring
        assert np.isfinite(losses).all()


def test_with_a_datamodule_the_modules_own_data_are_never_asked_for(tmp_path: Path) -> None:
    source = """
    class Alone(Net):
        def prepare_data(self): raise SystemExit
        def train_dataloader(self): raise SystemExit
        def val_dataloader(self): raise SystemExit
    class Data(LightningDataModule):
        def __init__(self, count):
            super().__init__()
            self.count = count
        def setup(self, stage):
            self.rows = rows(self.count, 5)
        def train_dataloader(self): return DataLoader(self.rows)
        def val_dataloader(self): return [DataLoader(self.rows[:9])]
        def test_dataloader(self): return DataLoader(self.rows[9:12])
    """
    workload = section(
        tmp_path, source, module="my_net:Alone", datamodule="my_net:Data",
        datamodule_options={"count": 30},
    )  # fmt: skip
    task = prepared(workload)
    assert [len(task.own.splits[split]) for split in task.splits] == [30, 9, 3]
    refused(
        workload.model_copy(update={"datamodule_options": {"num": 3}}),
        r"my_net:Data has no such option \(allowed: count\)", "workload.datamodule_options.num",
    )  # fmt: skip


TOKENS = """
class Tokens(Net):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 6)
    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(
            self.embed(batch).transpose(1, 2), batch.where(batch > 0, -100),
            ignore_index=-100)
    def validation_step(self, batch): pass
    def train_dataloader(self): return DataLoader(texts(0), collate_fn=padded)
    def val_dataloader(self): return DataLoader(texts(1), collate_fn=padded)
def texts(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 6, (2 + 3 * i % 7,), generator=generator) for i in range(30)]
def padded(examples):
    return nn.utils.rnn.pad_sequence(examples, batch_first=True)
def count(batch):
    return (batch > 0).sum()
"""


def test_a_mean_over_targets_is_named_as_such_and_then_exact(tmp_path: Path) -> None:
    refused(
        section(tmp_path, TOKENS, module="my_net:Tokens"),
        r"weighted by what it is said to be a mean over, .*name what .*loss_is_mean_over\)",
    )
    over = {"targets": "my_net:count"}
    task = prepared(section(tmp_path, TOKENS, module="my_net:Tokens", loss_is_mean_over=over))
    [first, _] = task.data_summary.in_report
    assert first.endswith("a mean over the targets that my_net:count counts.")
    losses = [ours(task, recipe(8, 0.01, 4, micro_batch_size=size)) for size in (8, 2, 1)]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-6)
    # the loss of the first step is that of all its tokens together
    batch = DataOrder(1, task.num_train).indices(0, 8)
    made, counts = task.new_model(1)(task.collated_alike(batch))
    assert not made._is_view()  # fsdp warns of one
    assert counts.sum() == (task.collated_alike(batch).batch > 0).sum()
    model: Any = task.new_model(1)
    whole = model.module.training_step(task.collated_alike(batch).batch, 0)
    assert losses[0][0] == pytest.approx(float(whole.detach()), rel=1e-6)


REFUSED = {
    "by hand": (
        "class Net(Net):\n    automatic_optimization = False",
        "Net optimizes by hand",
    ),
    "a hook": (
        "class Net(Net):\n    def on_before_optimizer_step(self, optimizer): pass",
        "Net overrides on_before_optimizer_step, which is not called here",
    ),
    "two optimizers": (
        "class Net(Net):\n    def configure_optimizers(self):\n"
        "        return [torch.optim.SGD(self.parameters(), 1.0) for _ in range(2)]",
        "Net has 2 optimizers; allowed: one",
    ),
    "a stream": (
        "class Stream(torch.utils.data.IterableDataset):\n    def __iter__(self): yield 1\n"
        "class Net(Net):\n    def train_dataloader(self): return DataLoader(Stream())",
        "train is an IterableDataset",
    ),
    "a sampler": (
        "class Net(Net):\n    def train_dataloader(self):\n"
        "        drawn = torch.utils.data.WeightedRandomSampler([1.0] * 40, 40)\n"
        "        return DataLoader(rows(40, 0), sampler=drawn)",
        "train_dataloader has a WeightedRandomSampler, which would be ignored",
    ),
    "no validation": (
        "class Net(Net):\n    def val_dataloader(self): return []",
        "Net has no val_dataloader, and validation is needed",
    ),
    "two of them": (
        "class Net(Net):\n    def val_dataloader(self): return [DataLoader(rows(9, 1))] * 2",
        "val_dataloader returned a list; allowed: a DataLoader",
    ),
    "no step": (
        "from lightning.pytorch import LightningModule\n"
        "class Net(LightningModule):\n    def __init__(self): super().__init__()",
        "Net has no training_step",
    ),
    "another class": ("class Net: pass", "my_net:Net is no LightningModule"),
    "no loss": (
        "class Net(Net):\n    def training_step(self, batch, batch_idx): return None",
        "losses raised ValueError: training_step returned NoneType; it must return one number",
    ),
    "its Trainer": (
        "class Net(Net):\n    def training_step(self, batch, batch_idx):\n"
        "        return super().training_step(batch, batch_idx)['loss'] * self.trainer.max_epochs",
        "losses raised RuntimeError: Net is not attached to a `Trainer`",
    ),
    "batch norm": (
        "class Net(Net):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layers.insert(1, nn.BatchNorm1d(8))",
        "its layer layers.1, a BatchNorm1d, normalizes over them",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_as_lightning_would(tmp_path: Path, case: str) -> None:
    source, match = REFUSED[case]
    refused(section(tmp_path, source), match)


def test_a_direction_is_of_what_is_logged(tmp_path: Path) -> None:
    refused(
        section(tmp_path, directions={"accuracy": "maximize"}),
        r"validation_step logs no such metric \(allowed: val_loss, val_accuracy\)",
        "workload.directions.accuracy",
    )


def test_a_direction_by_the_name_that_is_logged_is_answered_with_ours(tmp_path: Path) -> None:
    refused(
        section(tmp_path, directions={"val/accuracy": "maximize"}),
        "write val_accuracy: names here have letters, digits and _ alone",
        "workload.directions.val/accuracy",
    )


GROUPS = """
class Net(Net):
    def configure_optimizers(self):
        first, _, last = self.layers
        groups = [{"params": first.parameters()}, {"params": last.parameters(), "lr": 0.001}]
        optimizer = torch.optim.Adagrad(groups, lr=0.01, initial_accumulator_value=0.1)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
"""
ALONE = GROUPS.replace('{"optimizer": optimizer, "lr_scheduler": scheduler}', "optimizer").replace(
    "        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1)\n", ""
)


def with_own_optimizer(workload: Lightning) -> Any:
    task = prepare_task(workload, EVALUATION)
    assert isinstance(task, ModuleTask)
    require_trainable(task, 0, optimizers={"module"})
    return task


def test_the_modules_own_optimizer_is_lightnings(tmp_path: Path) -> None:
    """Ratios of its groups, moments from the start; the schedule is the study's."""
    task = with_own_optimizer(section(tmp_path, GROUPS))
    how = recipe(8, 0.01, 12, micro_batch_size=4, weight_decay=0.0, optimizer="module")
    (tmp_path / "alone").mkdir()
    alone: Any = with_own_optimizer(section(tmp_path / "alone", ALONE)).new_model(how.seed)
    losses = ours(task, how)
    np.testing.assert_allclose(losses, theirs(alone.module, task, how), atol=1e-5, rtol=0)
    assert ours(task, recipe(8, 0.01, 12, weight_decay=0.0)) != losses  # AdamW's are others
    [_, note] = task.data_summary.in_report
    assert note == (
        "configure_optimizers sets the optimizer (Adagrad); the study file sets its peak rate, and "
        "the rates of its groups keep their ratios. Its scheduler is not used: the study file sets "
        "the schedule."
    )


def test_a_rate_twice_as_high_is_so_in_every_group(tmp_path: Path) -> None:
    model: Any = with_own_optimizer(section(tmp_path, GROUPS)).new_model(0)
    how = recipe(8, 0.04, 3, optimizer="module", weight_decay=0.0)
    optimizer = build_optimizer(model, how.hyperparameters)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04, 0.004])
    set_lr(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.002])


def on_two(workers: Workers, folder: str) -> list[float]:
    task = with_own_optimizer(section(Path(folder), GROUPS))
    how = recipe(
        8, 0.01, 6, world_size=2, strategy="fsdp", weight_decay=0.0, optimizer="module"
    )  # fmt: skip
    return ours(task, how, workers)


@pytest.mark.slow
def test_fsdp_cuts_the_weights_of_the_modules_own_optimizer(tmp_path: Path) -> None:
    task = with_own_optimizer(section(tmp_path, GROUPS))
    alone = ours(task, recipe(8, 0.01, 6, weight_decay=0.0, optimizer="module"))
    together = on_workers(on_two, str(tmp_path))
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize("source", ["", GROUPS], ids=["AdamW", "Adagrad"])
def test_a_run_of_the_modules_own_optimizer_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(supervision_module, "CHECK_SECONDS", 0.0)
    task = with_own_optimizer(section(tmp_path, source))
    how = recipe(8, 0.01, 24, optimizer="module", weight_decay=0.0, schedule="cosine")
    _, expected = run(task, how, Supervision())
    starts, measured, incidents = paused_often(task, how, str(tmp_path / "kept"), EVALUATION)
    assert starts > 5
    assert without_time(measured) == without_time(expected)
    assert {incident["kind"] for incident in incidents} == {"resumed"}


UNFIT = {
    "none": ("return None", r"must give one torch optimizer \(got: NoneType\)"),
    "its trainer": (
        "return torch.optim.SGD(self.parameters(), 1.0 / self.trainer.max_steps)",
        "raised RuntimeError: Net is not attached to a `Trainer`",
    ),
    "a closure": ("return torch.optim.LBFGS(self.parameters())", "gives LBFGS, which computes"),
    "a part": (
        "return torch.optim.SGD(self.layers[0].parameters(), 0.1)",
        "leaves out the weight layers.2.weight; give it to the optimizer or freeze it",
    ),
    "no rate": ("return torch.optim.SGD(self.parameters(), 0.0)", "gives SGD with a rate of 0"),
    "a cycle": (
        "made = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)\n"
        "        return [made], [torch.optim.lr_scheduler.OneCycleLR(made, 1.0, 10)]",
        "gives a OneCycleLR that moves the momentum too",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_optimizer_whose_rate_cannot_be_set(tmp_path: Path, case: str) -> None:
    body, match = UNFIT[case]
    source = f"class Net(Net):\n    def configure_optimizers(self):\n        {body}"
    with pytest.raises(DataError, match=f"workload.module: configure_optimizers {match}") as raised:
        with_own_optimizer(section(tmp_path, source))
    assert len(str(raised.value).splitlines()) == 1


def test_a_module_of_another_task_configures_no_optimizer() -> None:
    study = {
        "name": "own", "question": "Whose optimizer?", "workload": {"task": "noisy_quadratic"},
        "scientific": {"global_batch_size": [4, 8]},
        "nuisance": {"peak_lr": {"log_uniform": [1e-4, 1e-2]}}, "budget": {"steps": 10},
        "evaluation": {"every_steps": 5}, "search": {"trials_per_cell": 2},
    }  # fmt: skip

    def issues(**fixed: Any) -> list[str]:
        return [str(i) for i in check_study(StudySpec.model_validate({**study, "fixed": fixed}))]

    assert not issues(weight_decay=0.1)
    found = [i for i in issues(optimizer="module", weight_decay=0.1) if "chains" not in i]
    [wrong, decay] = sorted(found)
    assert decay.startswith("fixed.weight_decay: has no effect with optimizer module")
    assert wrong.startswith("fixed.optimizer: needs task: lightning")
