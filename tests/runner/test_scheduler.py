"""What the scheduler makes of a store that is away."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from scaling.records.ledger import Ledger
from scaling.records.objective import Objective
from scaling.records.trial import TrialRecord
from scaling.runner.scheduler import LedgerScheduler
from scaling.training.checkpoint import CheckpointStore
from tests.recipes import recipe


def scheduler_of(folder: Path, *, checkpoints: str) -> tuple[LedgerScheduler, Ledger]:
    ledger = Ledger(folder, [])
    scheduler = LedgerScheduler(
        ledger, folder, checkpoints, None, Objective(),
        cancel=lambda _: None, require_alive=lambda: None,
    )  # fmt: skip
    return scheduler, ledger


def record(name: str) -> TrialRecord:
    return TrialRecord(name, "search", {"global_batch_size": 4}, {}, recipe(4, 0.1, 300))


class AwayError(Exception):
    """A store's own, which is no OSError."""


@pytest.mark.parametrize("method", ["exists", "ls", "rm_file"])
def test_a_trial_ends_though_its_checkpoints_cannot_be_removed(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AwayError("the bucket is away")

    url = f"memory://{uuid.uuid4().hex}"
    scheduler, ledger = scheduler_of(tmp_path, checkpoints=url)
    CheckpointStore(f"{url}/first", keep=1).save(1, {"step": 1})
    ledger.start(record("first"))
    with monkeypatch.context() as patched:
        patched.setattr(type(fsspec.filesystem("memory")), method, fail)
        scheduler._end("first", "done")
    assert ledger.records["first"] == replace(
        record("first"), status="done", wall_seconds=ledger.records["first"].wall_seconds
    )
    assert "the bucket is away" in caplog.text
    fsspec.filesystem("memory").rm(url, recursive=True)
