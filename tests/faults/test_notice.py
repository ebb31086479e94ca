"""A worker's process gets SIGTERM, as on a machine that is taken back: its trial is saved first."""

import signal
from pathlib import Path

import pytest

from tests.faults.disturbed import (
    Losses,
    in_the_middle_of_a_trial,
    records,
    started,
    with_fault,
)
from tests.faults.test_lost_parts import WORKER, assert_nothing_lost, wait_for_a_new

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Later than any trial ends, so that the only checkpoint is the one that the signal asks for.
NEVER = {"checkpoints": {"every_seconds": 3600.0}}


def test_its_trial_goes_on_at_the_step_where_it_was(tmp_path: Path, undisturbed: Losses) -> None:
    # Its group is not blamed, so it needs no restart.
    study = started(tmp_path, changes=NEVER, **with_fault(tmp_path, kind="no_restarts"))
    in_the_middle_of_a_trial(study)
    before = study.processes(WORKER)
    before[0].send_signal(signal.SIGTERM)
    wait_for_a_new(study, WORKER, {process.pid for process in before})
    assert_nothing_lost(study, tmp_path, undisturbed)
    incidents = [i for trial in records(tmp_path) for i in trial.incidents]
    assert [i["kind"] for i in incidents] == ["restarted", "resumed"]
    assert incidents[0]["cause"] == "a machine of its workers is taken back"
    assert 0 < incidents[1]["step"] < 300
