"""A LightningModule is trained as Lightning's own Trainer trains it, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.own_training import Lightning
from scaling.training.data_order import DataOrder
from tests.own.lightning_modules import ours, pl, prepared, refused, section, theirs
from tests.recipes import recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and logging


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
    ranges = {"val_accuracy": [0, 1], "val_loss": [0, None]}
    task = prepared(section(tmp_path, directions=directions, ranges=ranges))
    known = task.described_metrics
    ends = {name: (metric.least, metric.most) for name, metric in known.items()}
    assert ends == {"val_accuracy": (0, 1), "val_loss": (0, None)}
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


def test_a_modules_own_data_are_prepared_before_they_are_set_up(tmp_path: Path) -> None:
    source = """
    class Own(Net):
        calls = []
        def prepare_data(self): self.calls.append("prepare_data")
        def setup(self, stage):
            self.calls.append(stage)
            self.rows = {"fit": rows(30, 0), "test": rows(7, 2)}[stage]
        def train_dataloader(self): return DataLoader(self.rows)
        def test_dataloader(self): return DataLoader(self.rows)
    """
    task = prepared(section(tmp_path, source, module="my_net:Own"))
    assert [len(task.own.splits[split]) for split in task.splits] == [30, 25, 7]
    assert task.new_model(0).module.calls[:3] == ["prepare_data", "fit", "test"]


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
    made, counts = task.new_model(1)(task.collated_alike("train", batch))
    assert not made._is_view()  # fsdp warns of one
    assert counts.sum() == (task.collated_alike("train", batch).batch > 0).sum()
    model: Any = task.new_model(1)
    whole = model.module.training_step(task.collated_alike("train", batch).batch, 0)
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
    "a sampler of what is held out": (
        "class Net(Net):\n    def val_dataloader(self):\n"
        "        few = torch.utils.data.SubsetRandomSampler(range(5))\n"
        "        return DataLoader(rows(40, 0), sampler=few)",
        "val_dataloader has a SubsetRandomSampler, which would be ignored",
    ),
    "a sampler of batches": (
        "class Same(torch.utils.data.Sampler):\n    def __iter__(self): yield [0, 0]\n"
        "class Net(Net):\n    def train_dataloader(self):\n"
        "        return DataLoader(rows(40, 0), batch_sampler=Same())",
        "train_dataloader has a Same, which would be ignored",
    ),
    "whole batches": (
        "class Net(Net):\n    def train_dataloader(self):\n"
        "        return DataLoader(rows(40, 0), batch_size=None)",
        "train_dataloader has batch_size=None; allowed: a number",
    ),
    "callbacks": (
        "class Net(Net):\n    def configure_callbacks(self): return []",
        "Net overrides configure_callbacks, which is not called here",
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


def test_what_has_the_name_of_another_number_is_no_metric(tmp_path: Path) -> None:
    source = (
        "class Net(Net):\n    def validation_step(self, batch):\n"
        "        super().validation_step(batch)\n"
        "        self.log_dict({'best_validation_loss': 1.0, 'lr_stderr': 2.0, 'lr': 3.0})"
    )
    task = prepared(section(tmp_path, source))
    assert list(task.described_metrics) == ["val_loss", "val_accuracy"]


def test_a_range_is_of_what_is_logged(tmp_path: Path) -> None:
    refused(
        section(tmp_path, ranges={"accuracy": [0, 1]}),
        r"ranges.accuracy: there is no such metric \(allowed: val_loss, val_accuracy\)",
        "workload",
    )


def test_a_direction_by_the_name_that_is_logged_is_answered_with_ours(tmp_path: Path) -> None:
    refused(
        section(tmp_path, directions={"val/accuracy": "maximize"}),
        "write val_accuracy: names here have letters, digits and _ alone",
        "workload.directions.val/accuracy",
    )
