"""LightningModules of the tests, and their losses here and by Lightning's own Trainer."""

import textwrap
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import Lightning
from scaling.tasks.errors import DataError
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from scaling.training.data_order import DataOrder
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION

pl = pytest.importorskip("lightning.pytorch")  # of the extra lightning

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
    file, text = folder / "my_net.py", BASE + textwrap.dedent(source)
    # Another worker may read it just now.
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
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
