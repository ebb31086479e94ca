"""What goes wrong in a thread of the pool reaches whoever waits for it; without Ray."""

import threading
from types import SimpleNamespace

import pytest
import ray.exceptions

from scaling.runner import worker_pool
from scaling.runner.preflight import ClusterError
from scaling.runner.worker_pool import WorkerPool


def bare_pool(notes: list[str]) -> WorkerPool:
    """A pool of one group whose broker cannot be reached."""

    def lost(*_: object) -> None:
        raise ray.exceptions.RayActorError

    pool = object.__new__(WorkerPool)
    pool._closing, pool._errors, pool._sizes = threading.Event(), {}, [1]
    pool._note, pool._num_ready = notes.append, 1
    pool._broker = SimpleNamespace(slot_ended=SimpleNamespace(remote=lost))
    return pool


def test_a_group_that_cannot_be_made_ends_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise FileNotFoundError("the working directory is gone")

    monkeypatch.setattr(WorkerPool, "_trainer", gone)
    pool = bare_pool([])
    pool._run_slot("slot0", 1)
    with pytest.raises(ClusterError, match="slot0 ended: the working directory is gone"):
        pool.require_alive()


def test_a_look_at_the_cluster_that_fails_is_said_once_and_not_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    pool = bare_pool(notes)
    looks = iter([KeyError("Alive"), KeyError("Alive"), ray.exceptions.RayError("away"), None])

    def look(_: WorkerPool) -> None:
        if (error := next(looks)) is not None:
            raise error
        pool._closing.set()

    monkeypatch.setattr(WorkerPool, "_follow", look)
    monkeypatch.setattr(worker_pool, "FOLLOW_SECONDS", 0.0)
    pool._follow_cluster()
    assert notes == ["the cluster cannot be looked at: 'Alive'"]
