"""A worker whose device broke has told the broker why before anything else can fail."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from scaling.runner import worker_pool
from scaling.runner.jobs import Assignment, Job, RankError
from scaling.training.memory.out_of_memory import is_out_of_memory
from scaling.training.parallel.workers import Workers
from tests.recipes import recipe


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


def test_a_broken_device_keeps_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    def release(_device: torch.device) -> None:
        raise RuntimeError("CUDA error: while emptying the cache")

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(worker_pool, "run_trial", train)
    monkeypatch.setattr(worker_pool, "release_memory", release)
    broker = Broker()
    server = worker_pool._Server("slot0", broker, *_of_one_task(), Workers(), "checkpoints", {})
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
        ("CUDA error: device-side assert triggered", False),
        ("NCCL error: remote process exited", False),
    ],
)
def test_memory_that_ran_out_is_known_by_what_its_libraries_say(text: str, ran_out: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) == ran_out


def _of_one_task() -> tuple[Any, Any]:
    return [SimpleNamespace()], [SimpleNamespace()]
