"""Random numbers that are fixed for a while."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scaling.tasks.own.reading import fixed_chance
from scaling.training.batches import Batches
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.emulated_gpu import emulated_gpu
from tests.own.writing import custom, prepared
from tests.recipes import recipe
from tests.training.test_checkpoint import run


def drawn() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def test_chance_is_fixed_inside_and_goes_on_after_it() -> None:
    torch.manual_seed(5)
    expected = float(torch.rand(()))
    torch.manual_seed(5)
    with fixed_chance(0):
        first = drawn()
    assert float(torch.rand(())) == expected
    with fixed_chance(0):
        assert drawn() == first


def test_gpus_that_are_not_used_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_initialized():
        pytest.skip("this process uses a GPU")
    touched: list[object] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched.append)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    with fixed_chance(0):
        pass
    assert touched == []
    assert not torch.cuda.is_initialized()


@pytest.mark.parametrize("noise", [0, 1])
def test_what_takes_random_numbers_is_not_read_ahead(noise: int, tmp_path: Path) -> None:
    """They would come in between those of the step before, or of an evaluation."""
    source = f"""
    class Noisy(list):
        def __getitem__(self, number):
            x, y = super().__getitem__(number)
            return x + {noise} * torch.rand(4), y

    def build():
        return task(train=Noisy(points(40)))
    """
    own = prepared(custom(tmp_path, source))
    on_gpu: Any = SimpleNamespace(
        data_workers=SimpleNamespace(device=torch.device("cuda")),
        weights=SimpleNamespace(parameters=[], norm_layers=None),
    )
    gradient = GradientOfBatch(own, on_gpu, recipe(8, 1e-2, 1))
    assert gradient.batches.looks_ahead == (not noise)


def test_on_a_gpu_too_examples_are_read_where_they_were_opened(tmp_path: Path) -> None:
    """SQLite's connections are of one thread, as other readers' handles are."""
    source = """
    import sqlite3

    class Rows:
        def __init__(self):
            self.opened = sqlite3.connect(":memory:")
            self.opened.execute("create table rows (a real, b real, c real, d real, y integer)")
            rows = [(*x.tolist(), y) for x, y in points(40)]
            self.opened.executemany("insert into rows values (?, ?, ?, ?, ?)", rows)

        def __len__(self):
            return 40

        def __getitem__(self, number):
            found = self.opened.execute("select * from rows where rowid = ?", (number + 1,))
            *x, y = found.fetchone()
            return torch.tensor(x), y

    def losses_here(model, batch):
        x, y = batch
        return functional.cross_entropy(model(x), y, reduction="none"), torch.ones_like(y)

    def build():
        return task(train=Rows(), losses=losses_here)
    """
    own = prepared(custom(tmp_path, source))
    how = recipe(8, 1e-2, 4, micro_batch_size=4)
    with emulated_gpu() as gpu:
        _, measured = run(own, how, Supervision(), workers=Workers(device=gpu))
    assert measured[-1].step == 4


def test_a_batch_that_nobody_trains_on_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's next batch is made before a step ends, and the step may be the last one."""
    source = """
    import os

    class Rows(list):
        def __getitem__(self, number):
            if number == 38 and "BAD" in os.environ:
                raise ValueError(f"bad example {number}")
            return super().__getitem__(number)

    def build():
        return task(train=Rows(points(40)))
    """
    own = prepared(custom(tmp_path, source))
    monkeypatch.setenv("BAD", "1")
    batches = Batches(own, 0, torch.device("cpu"), looks_ahead=True)
    batches.expect(np.array([38, 39]))
    batches.expect(np.array([2, 3]))
    assert len(list(batches.of([np.array([2, 3])]))) == 1
    batches.expect(np.array([38, 39]))
    with pytest.raises(ValueError, match="bad example 38"):
        next(batches.of([np.array([38, 39])]))
