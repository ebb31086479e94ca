"""A worker whose device broke has told the broker why before anything else can fail."""

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from scaling import process
from scaling.runner import serving
from scaling.runner.jobs import Assignment, Job, RankError
from scaling.spec.resources import Resources
from scaling.training.memory.out_of_memory import (
    FixedMemoryError,
    fixed_memory,
    is_out_of_memory,
)
from scaling.training.parallel.workers import Workers
from tests.recipes import recipe


@pytest.fixture(autouse=True)
def nothing_stays_frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker exempts from garbage collection what it has loaded; here that is all of pytest."""
    monkeypatch.setattr(process, "_is_exempt", False)  # and as it was, afterwards
    yield
    gc.unfreeze()


class Broker:
    """Gives out one job, and keeps what it hears."""

    def __init__(self) -> None:
        self.left: list[RankError | None] = []
        self._jobs = [Assignment(Job("trial", recipe(4, 1e-2, 1)), 1, 1, 4), None]

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            match name:
                case "next_job":
                    return self._jobs.pop(0)
                case "leave":
                    self.left.append(args[-1])
                    return "clean"
                case _:
                    return None

        return SimpleNamespace(remote=call)


def answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Ray is asked for is there already; asked for its context, it would start a Ray."""
    context = SimpleNamespace(get_node_id=lambda: "node")
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)


def test_a_broken_device_keeps_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def release(_device: torch.device) -> None:
        raise RuntimeError("CUDA error: while emptying the cache")

    answers_at_once(monkeypatch)
    monkeypatch.setattr(serving, "run_trial", train)
    monkeypatch.setattr(serving, "release_memory", release)
    broker = Broker()
    server = serving._Server("slot0", broker, *_of_one_task(), Workers(), "checkpoints", {})
    with pytest.raises(RuntimeError, match=r"(?s)lost its group in trial.*side assert") as raised:
        server.serve()
    assert "emptying the cache" not in str(raised.value)
    [error] = broker.left
    assert error is not None
    assert "device-side assert" in error.traceback


@pytest.mark.parametrize(
    ("text", "ran_out"),
    [
        ("NCCL error: unhandled cuda error\nCuda failure 2 'out of memory'", True),
        ("Triton Error [CUDA]: out of memory", True),
        ("CUDA driver error: out of memory", True),
        ("CUDA error: device-side assert triggered", False),
        ("NCCL error: remote process exited", False),
    ],
)
def test_memory_that_ran_out_is_known_by_what_its_libraries_say(text: str, ran_out: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) == ran_out


@pytest.mark.parametrize("is_fixed", [True, False])
def test_only_a_forward_or_backward_pass_asks_for_a_smaller_micro_batch(
    monkeypatch: pytest.MonkeyPatch, is_fixed: bool
) -> None:
    def train(*_args: Any, **_kwargs: Any) -> None:
        with fixed_memory("updating the weights") if is_fixed else nullcontext():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nFree: 1")

    answers_at_once(monkeypatch)
    monkeypatch.setattr(serving, "run_trial", train)
    broker = Broker()
    serving._Server("slot0", broker, *_of_one_task(), Workers(), "checkpoints", {}).serve()
    [error] = broker.left
    assert error is not None
    assert error.out_of_memory
    assert error.too_large == (None if is_fixed else 1), "one worker has halved it itself"
    said = "memory ran out while updating the weights, which a smaller micro-batch would not change"
    assert (said in error.traceback) == is_fixed


def test_memory_in_a_named_part_keeps_every_other_error() -> None:
    with pytest.raises(RuntimeError, match="no such thing") as raised, fixed_memory("evaluating"):
        raise RuntimeError("no such thing")
    assert not isinstance(raised.value, FixedMemoryError)


def _of_one_task() -> tuple[Any, Any]:
    return [SimpleNamespace(workload=None, resources=Resources())], [SimpleNamespace()]
