"""Checkpoints in stores that are slow, full or away: the run itself is unharmed."""

import errno
import io
import itertools
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch

from scaling.records.measurement import Measurement
from scaling.spec.evaluation import Evaluation
from scaling.tasks.prepare import prepare_task
from scaling.training import supervision as supervision_module
from scaling.training.checkpoint import CheckpointStore
from scaling.training.parallel.workers import Workers
from scaling.training.saving import copied
from scaling.training.supervision import Directive, Supervision
from tests.recipes import EVALUATION, changed, pronunciation, quadratic, recipe
from tests.together import case, on_workers
from tests.training.test_checkpoint import checks_often, run

__all__ = ["checks_often"]  # a fixture


class _LateStore(CheckpointStore):
    """One whose disk is slow, and full in the end."""

    def save(self, step: int, state: Any, rank: int = 0) -> None:
        time.sleep(0.5)
        raise OSError(errno.ENOSPC, "No space left on device")


def leave_together(workers: Workers, folder: str, ends_by: Directive) -> None:
    """The first worker alone writes, and no other one leaves or goes on before it has."""
    supervision_module.CHECK_SECONDS = 0.0
    task: Any = prepare_task(quadratic(num_chains=3), EVALUATION)
    incidents: list[Any] = []
    asked = itertools.count(1)
    supervision = Supervision(
        checkpoints=_LateStore(folder, keep=1), checkpoint_seconds=0.0,
        directive=lambda: ends_by if next(asked) == 3 else "continue", note=incidents.append,
    )  # fmt: skip
    outcome, _ = run(task, recipe(4, 0.1, 6, world_size=2), supervision, EVALUATION, workers)
    ended = workers.gather(time.monotonic())
    assert max(ended) - min(ended) < 0.3
    assert outcome.status == {"pause": "paused", "stop": "stopped", "continue": "done"}[ends_by]
    # All of them say so alike, since to say something may be a collective.
    assert incidents == [{"kind": "checkpoint_failed", "cause": "No space left on device"}]


def leave_together_each_way(workers: Workers, folder: str) -> None:
    for ends_by in ("pause", "stop", "continue"):
        with case(ends_by):
            leave_together(workers, folder, ends_by)


def test_workers_end_together_once_the_last_checkpoint_is_written(tmp_path: Path) -> None:
    on_workers(leave_together_each_way, str(tmp_path))


class AwayError(Exception):
    """A store's own, which is no OSError."""


def away(*_: Any, **__: Any) -> None:
    raise AwayError("the bucket is away")


@pytest.mark.usefixtures("checks_often")
@pytest.mark.parametrize("method", ["rm_file", "ls", "makedirs"])
def test_a_store_that_fails_in_its_own_way_ends_no_run(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory: Any = type(fsspec.filesystem("memory"))
    works, folder = getattr(memory, method), f"{uuid.uuid4().hex}/trial"
    num_failed = itertools.count()

    def fail(self: Any, path: str, *arguments: Any, **options: Any) -> Any:
        if path.endswith(".part") or not training:  # a checkpoint's file moves to its name
            return works(self, path, *arguments, **options)
        next(num_failed)
        return away()

    def directive() -> Directive:
        training.append("now")
        time.sleep(0.01)  # the thread that writes has its turn
        return "continue"

    training: list[str] = []
    monkeypatch.setattr(memory, method, fail)
    monkeypatch.setattr(supervision_module, "LEAST_OVER_SAVING", 0)
    incidents: list[Any] = []
    supervision = Supervision(
        checkpoints=CheckpointStore(f"memory://{folder}", keep=1),
        checkpoint_seconds=0.0,
        directive=directive,
        note=incidents.append,
    )
    task: Any = prepare_task(quadratic(num_chains=3), EVALUATION)
    outcome, _ = run(task, recipe(4, 0.1, 20), supervision)
    assert outcome.status == "done"
    assert next(num_failed) >= 3
    assert incidents == [{"kind": "checkpoint_failed", "cause": "the bucket is away"}]


def test_a_checkpoint_that_a_store_does_not_give_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = CheckpointStore(f"memory://{uuid.uuid4().hex}/trial", keep=1)
    store.save(1, {"step": 1})
    with monkeypatch.context() as patched:
        patched.setattr(type(fsspec.filesystem("memory")), "_open", away)
        assert store.read(1) is None
    assert store.read(1) == {"step": 1}


class _SlowFile(io.BytesIO):
    """Takes a while to be closed, as an upload does, and is kept by then."""

    def __init__(self, kept: dict[str, bytes], path: str) -> None:
        super().__init__()
        self._kept, self._path = kept, path

    def close(self) -> None:
        if not self.closed:
            time.sleep(0.4)
            self._kept[self._path] = self.getvalue()
        super().close()


class _SlowStore(fsspec.AbstractFileSystem):
    """Files in memory over a slow line."""

    protocol = "slow"
    files: ClassVar[dict[str, bytes]] = {}

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        return _SlowFile(self.files, path) if "w" in mode else io.BytesIO(self.files[path])

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        names = [name for name in self.files if name.startswith(f"{path}/")]
        return [{"name": name, "size": 1, "type": "file"} for name in names] if detail else names

    def mv(self, path1: str, path2: str, *_: Any, **__: Any) -> None:
        self.files[path2] = self.files.pop(path1)

    def rm_file(self, path: str) -> None:
        del self.files[path]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("checks_often")
def test_a_slow_store_takes_at_most_a_fiftieth_of_the_time() -> None:
    fsspec.register_implementation("slow", _SlowStore, clobber=True)
    store = CheckpointStore("slow://study/trial", keep=2)
    seconds, waited = waiting(Supervision(checkpoints=store, checkpoint_seconds=0.0))
    _, otherwise = waiting(Supervision())
    assert store.read(store.steps()[-1]) is not None
    # Two saved in the loop would take 0.8 seconds; a busy machine takes its part.
    assert waited - otherwise < 0.02 * seconds + 0.1


def waiting(supervision: Supervision) -> tuple[float, float]:
    """Seconds of a run's steps, and those between its ends that are in no step or evaluation."""
    task: Any = prepare_task(pronunciation(), EVALUATION)
    reported: list[float] = []

    def decide(measurement: Measurement, at_rung: bool) -> Directive:
        reported.append(time.perf_counter())
        return "continue"

    how = changed(recipe(16, 1e-2, None), budget_seconds=3.0)
    evaluation = Evaluation(every_steps=10**6, num_examples=20)
    _, measured = run(task, how, supervision, evaluation, decide=decide)
    evaluating = [m.evaluation_seconds or 0.0 for m in measured]
    seconds = measured[-1].seconds
    return seconds, reported[-1] - reported[0] - seconds - (evaluating[-1] - evaluating[0])


def test_what_is_written_is_what_was_there_when_it_was_saved() -> None:
    tied = torch.ones(3)
    state = {"a": tied, "b": [tied, (tied[:2], 1)], "c": "text"}
    kept = copied(state)
    tied.zero_()
    assert kept["a"].tolist() == [1, 1, 1]
    assert kept["b"][0] is kept["a"]
    assert kept["b"][1][0].tolist() == [1, 1]
    assert kept["c"] == "text"
