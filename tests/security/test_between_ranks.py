"""Ranks exchange numbers and JSON: what a peer sends is never unpickled."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scaling
from scaling.training.parallel.workers import Workers
from tests.forked import start_workers


class _Refusing(pickle.Unpickler):
    """What torch.distributed would unpickle an object with."""

    def load(self) -> Any:
        raise AssertionError("unpickled what a peer sent")


def _exchange(rank: int, folder: str) -> None:
    pickle.Unpickler = _Refusing  # type: ignore[misc]
    torch.distributed.distributed_c10d._unpickler = _Refusing  # type: ignore[attr-defined]
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    workers = Workers(rank, 2)
    assert workers.agree(f"of {rank}") == "of 0"
    values = [None, True, 1.5, float("-inf"), "é\n", {"a": [rank]}]
    assert workers.gather(values) == [[*values[:-1], {"a": [r]}] for r in (0, 1)]
    for own in (np.arange(3 + rank) / 3, np.zeros(0), np.array([float("nan"), -0.0])):
        arrays = workers.gather_array(own)
        assert arrays[rank].tobytes() == own.tobytes()
        assert [len(array) for array in arrays] == ([3, 4] if len(own) > 2 else [len(own)] * 2)
    os._exit(0)  # the interpreter's own end may unpickle


def test_two_ranks_exchange_without_pickles(tmp_path: Path) -> None:
    start_workers(_exchange, (str(tmp_path),), nprocs=2)


def test_a_pickle_from_a_peer_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="unpickled"):
        _Refusing(io.BytesIO(pickle.dumps("x"))).load()


def test_no_collective_of_objects_is_called() -> None:
    package = Path(scaling.__file__).parent
    names = ("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list")
    called = [
        f"{path.name}: {name}"
        for path in package.rglob("*.py")
        for name in names
        if name in path.read_text(encoding="utf-8")
    ]
    assert not called
