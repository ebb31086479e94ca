"""Modes, devices, counters and metrics of a LightningModule that no Trainer holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.own.lightning_modules import ours, prepared, refused, section, theirs
from tests.recipes import recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and logging

FROZEN = """
class Net(Net):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.layers[:3].eval().requires_grad_(False)
"""


def test_a_frozen_part_stays_in_evaluation_mode_as_under_the_trainer(tmp_path: Path) -> None:
    task = prepared(section(tmp_path, FROZEN))
    how = recipe(8, 0.01, 6, weight_decay=0.0, beta2=0.999, eps=1e-8)
    model: Any = task.new_model(how.seed)
    np.testing.assert_allclose(ours(task, how), theirs(model.module, task, how), atol=1e-5, rtol=0)
    modes = [layer.training for layer in task.new_model(0).eval().train().module.layers]
    assert modes == [False, False, False, True]


def test_it_knows_the_device_that_it_is_moved_to(tmp_path: Path) -> None:
    model = prepared(section(tmp_path)).new_model(0).to("meta")
    assert model.module.device.type == "meta"
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["global_step", "current_epoch"])
@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_what_only_a_trainer_counts_is_refused(tmp_path: Path, name: str, step: str) -> None:
    source = f"""
    class Net(Net):
        def {step}(self, batch, batch_idx):
            return self.step(batch)[0] * min(1.0, self.{name} / 100)
    """
    refused(section(tmp_path, source), f"RuntimeError: self.{name} needs Lightning's Trainer")


def test_outside_of_its_steps_lightning_counts_as_ever(tmp_path: Path) -> None:
    task = prepared(section(tmp_path))
    module = task.new_model(0).module
    assert (module.global_step, module.current_epoch) == (0, 0)


def test_a_part_s_counter_is_refused_and_a_module_s_own_is_not(tmp_path: Path) -> None:
    inner = """
    class Inner(LightningModule):
        def forward(self, x):
            return x * min(1, self.global_step)
    class Net(Net):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(Inner(), self.layers)
    """
    refused(section(tmp_path, inner), "RuntimeError: self.global_step needs Lightning's Trainer")
    own = """
    class Net(Net):
        global_step = 3
        def training_step(self, batch, batch_idx):
            return self.step(batch)[0] * self.global_step
    """
    assert prepared(section(tmp_path, own)).new_model(0).module.global_step == 3


def test_its_class_stays_what_it_is(tmp_path: Path) -> None:
    """Modules register their subclasses, ask for their type, and are pickled by their class."""
    source = """
    import copy, pickle
    NAMES = set()
    class Registered(LightningModule):
        def __init_subclass__(cls):
            assert cls.__name__ not in NAMES
            NAMES.add(cls.__name__)
    class Net(Net, Registered):
        def training_step(self, batch, batch_idx):
            assert type(self) is Net
            assert type(pickle.loads(pickle.dumps(self))) is Net
            copy.deepcopy(self)
            return self.step(batch)[0]
    """
    task = prepared(section(tmp_path, source))
    module: Any = task.new_model(0).module
    assert type(module).__name__ == "Net"
    assert "global_step" not in vars(type(module))


def test_its_step_is_compiled_as_one_graph(tmp_path: Path) -> None:
    task = prepared(section(tmp_path))
    model, other = task.new_model(0), task.new_model(1)
    assert type(model.module) is type(other.module)  # as are those of all trials: compiled once
    model.compile(fullgraph=True, dynamic=True, backend="eager")  # a break raises
    for count in (5, 6, 7):
        losses, _ = model(task.collate(np.arange(count), 0)["batch"])
        losses.sum().backward()


def test_metrics_of_torchmetrics_start_anew_with_each_batch(tmp_path: Path) -> None:
    source = """
    from torchmetrics import CatMetric, MeanMetric
    class Net(Net):
        def __init__(self):
            super().__init__()
            self.all_losses, self.mean, self.train_mean = CatMetric(), MeanMetric(), MeanMetric()
        def training_step(self, batch, batch_idx):
            loss, _ = self.step(batch)
            self.all_losses(loss)
            self.train_mean(loss)
            self.log_dict({"train/losses": self.all_losses, "train/mean": self.train_mean})
            return loss
        def validation_step(self, batch):
            self.mean(self.step(batch)[0])
            self.log("val/mean", self.mean)
    """
    task = prepared(section(tmp_path, source))
    assert len(ours(task, recipe(8, 0.01, 3))) == 3
    model = task.new_model(0)
    for _ in range(3):
        model(task.collate(np.arange(8), 0)["batch"])
    assert model.module.all_losses.value == []
    model.eval()
    first, second = (task.score(model, torch.device("cpu")) for _ in range(2))
    assert first == second
    assert first["val_mean"] > 0


def test_a_logged_name_becomes_one_that_can_be_recorded(tmp_path: Path) -> None:
    source = """
    class Net(Net):
        def validation_step(self, batch):
            self.log_dict({"précision": 1.0, "1st_acc": 2.0, "val-loss/top 5": 3.0})
    """
    task = prepared(section(tmp_path, source))
    assert list(task.described_metrics) == ["precision", "metric_1st_acc", "val_loss_top_5"]


def test_two_logged_names_that_become_one_are_refused(tmp_path: Path) -> None:
    source = """
    class Net(Net):
        def validation_step(self, batch):
            self.log_dict({"val/acc": 1.0, "val_acc": 2.0})
    """
    refused(section(tmp_path, source), "validation_step logs 'val/acc' and 'val_acc', and both are")
