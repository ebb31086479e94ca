"""How a study starts: whether all but its report has ended, and what a failed start leaves."""

from pathlib import Path
from typing import Any

import pytest

from scaling.driver.run import prepared, run
from scaling.plan.start import Start, has_ended
from scaling.records.load import write_environment
from scaling.sinks.mlflow.load import load_study
from tests.plan.test_resume_plan import ran
from tests.space.test_space import study


def confirmed(**changes: Any) -> Any:
    return study(search={"trials_per_cell": 2}, confirm={"num_seeds": 2}, **changes)


def carried(**changes: Any) -> Any:
    return confirmed(transfer={"base_batch_size": 16, "rules": ["sqrt"]}, **changes)


LATER = {"target": {"at_most": 0.5}}


@pytest.mark.parametrize(
    ("before", "now", "is_over"),
    [
        (confirmed(), confirmed(), True),
        (confirmed(), confirmed(question="Another?"), True),
        (confirmed(), confirmed(**LATER), False),  # its recipe for the target is to be confirmed
        (confirmed(target={"at_most": 0.9}), confirmed(**LATER), False),
        (confirmed(**LATER), confirmed(), True),
        (carried(), carried(**LATER), True),  # no recipe but that for the loss is confirmed
    ],
)
def test_another_target_leaves_trials_to_run_where_its_recipe_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Any, now: Any, is_over: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    recorded = ran(tmp_path, before, 2)
    write_environment(recorded.folder, {"ended": "now", "num_trials_ended": 0})
    assert has_ended(Start(now, "run", tmp_path / "report", resume=True)) is is_over


def test_an_error_before_the_first_trial_leaves_neither_a_study_nor_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a library's own error")

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("scaling.driver.run._train", fail)
    start = Start(study(storage="state"), "scaling run", tmp_path / "report")
    with pytest.raises(RuntimeError):
        run(start, prepared(start))
    assert not (tmp_path / "state").exists()
    with pytest.raises(LookupError, match="it has no studies"):
        load_study("s", uri)
