"""Random numbers that are fixed for a while."""

import random

import numpy as np
import pytest
import torch

from scaling.tasks.own.reading import fixed_chance


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
