"""Files of a user's own, written for a test."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from scaling.spec.own_training import Custom
from scaling.spec.resources import Resources
from scaling.tasks.errors import DataError
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from tests.recipes import EVALUATION

BASE = """
import torch
from torch import nn
from torch.nn import functional

import scaling

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Linear(8, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

def points(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(x, int(x.argmax()) % 3) for x in torch.randn(count, 4, generator=generator)]

def losses(model, batch):
    x, y = batch
    return functional.cross_entropy(model(x), y, reduction="none"), torch.ones(len(y))

def task(**others):
    given = dict(train=points(40), validation=points(20, 1), losses=losses)
    return scaling.CustomTask(**{**given, "model": lambda seed: Net(), **others})

def build():
    return task()
"""


def custom(folder: Path, source: str = "", **fields: Any) -> Custom:
    """A section whose factory is `build` of my_task.py, where `source` follows BASE."""
    (folder / "my_task.py").write_text(BASE + textwrap.dedent(source), encoding="utf-8")
    return section(folder, **fields)


def section(folder: Path, **fields: Any) -> Custom:
    given = {"task": "custom", "factory": "my_task:build", "folder": str(folder), **fields}
    return Custom.model_validate(given)


def prepared(workload: Custom, **resources: Any) -> ModuleTask:
    """The task, tried as before a study."""
    task = prepare_task(workload, EVALUATION)
    assert isinstance(task, ModuleTask)
    require_trainable(task, 0, resources=Resources(**resources))
    return task


def refused(workload: Custom, match: str, path: str = "workload.factory", **resources: Any) -> str:
    """The one line by which a study is refused."""
    with pytest.raises(DataError, match=match) as raised:
        prepared(workload, **resources)
    assert raised.value.path == path
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)
