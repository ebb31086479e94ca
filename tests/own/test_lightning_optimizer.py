"""A LightningModule's own optimizer (`optimizer: module`): its groups, its moments, its limits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.optimizers.build import build_optimizer, set_lr
from scaling.spec.checks.study import check_study
from scaling.spec.own_training import Lightning
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from scaling.training import supervision as supervision_module
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.own.lightning_modules import ours, section, theirs
from tests.recipes import EVALUATION, recipe
from tests.together import on_workers
from tests.training.test_checkpoint import paused_often, run, without_time

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and logging


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
