"""What the scheduler makes of events that come twice, and of a store that is away."""

import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from scaling.records.ledger import Ledger
from scaling.records.measurement import Measurement
from scaling.records.objective import Objective
from scaling.records.trial import TrialRecord
from scaling.runner.scheduler import LedgerScheduler
from scaling.spec.phases import Asha, EarlyStopping
from scaling.training.checkpoint import CheckpointStore
from tests.recipes import recipe

HALVING = Asha(rule="asha", first_rung_examples=400, reduction_factor=2.0)


def scheduler_of(
    folder: Path, *, early_stopping: EarlyStopping | None = None, checkpoints: str = ""
) -> tuple[LedgerScheduler, Ledger]:
    ledger = Ledger(folder, [])
    scheduler = LedgerScheduler(
        ledger, folder, checkpoints or f"{folder}/checkpoints", early_stopping, Objective(),
        cancel=lambda _: None, require_alive=lambda: None,
    )  # fmt: skip
    return scheduler, ledger


def record(name: str) -> TrialRecord:
    return TrialRecord(name, "search", {"global_batch_size": 4}, {}, recipe(4, 0.1, 300))


def goes_on(
    scheduler: LedgerScheduler, name: str, losses: dict[int, float], *, at_rung: bool = False
) -> bool:
    """Whether a trial goes on after it has reported losses by step."""
    points = [Measurement(s, s * 4, s * 4, s * 0.1, validation_loss=v) for s, v in losses.items()]
    event = {"kind": "measured", "measurements": list(map(asdict, points)), "at_rung": at_rung}
    return scheduler._record({"record": record(name).to_json()}, event)


def test_a_rung_that_is_reported_again_is_not_judged_again(tmp_path: Path) -> None:
    scheduler, ledger = scheduler_of(tmp_path, early_stopping=HALVING)
    assert goes_on(scheduler, "first", {0: 3.0, 100: 1.0}, at_rung=True)
    assert goes_on(scheduler, "first", {120: 2.0})
    for number, loss in enumerate((0.5, 0.6)):
        goes_on(scheduler, f"better-{number}", {100: loss}, at_rung=True)
    # Its group died and goes on from a checkpoint before the rung, or its Tune actor did.
    assert goes_on(scheduler, "first", {0: 3.0, 100: 1.0}, at_rung=True)
    assert [m.step for m in ledger.records["first"].measurements] == [0, 100, 120]
    # The next rung is judged, though some of what comes with it is known.
    goes_on(scheduler, "better-0", {200: 0.4}, at_rung=True)
    assert not goes_on(scheduler, "first", {120: 2.0, 200: 2.0}, at_rung=True)


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
