"""Where a study and its report may be kept, whatever links lead there."""

import os
import re
from pathlib import Path

import pytest

from scaling import Study
from scaling.driver.run import RefusedError, _unwritable
from scaling.files.own import UNFINISHED, write_report_files
from scaling.plan.start import Start, require_places
from scaling.plan.start_checks import require_tasks
from scaling.runner.preflight import StartError
from scaling.runner.state import StudyState, resuming
from scaling.tasks.content import DATA
from scaling.tasks.errors import DataError
from tests.space.test_space import study


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("link/s", "--output: link/s would hold the study's storage, runs/s"),
        ("reports/../runs/s", "would hold the study's storage, runs/s"),
        ("S3://bucket/report", "--output: S3:/bucket/report is a URL"),
    ],
)
def test_a_report_is_not_around_its_study_by_whatever_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs", "reports"):
        (tmp_path / folder).mkdir()
    (tmp_path / "link").symlink_to("runs")
    with pytest.raises(StartError) as refused:
        require_places(Start(study(), "run", Path(output)))
    assert words in str(refused.value)


def test_a_report_that_cannot_be_written_is_no_fault_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = StudyState.open(study(), {DATA: "a"}, {})
    state.lock.close()
    start = Start(study(), "run", Path("reports/s"))
    opened = os.open

    def full(path: str, *given: int, **more: int) -> int:
        if str(path).startswith(UNFINISHED):
            raise OSError(28, "No space left on device", path)
        return opened(path, *given, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left") as unwritten:
        write_report_files(start.output, {"summary.json": "{}"})
    line = _unwritable(unwritten.value, start, state)
    assert line == "--output: cannot write reports/s: No space left on device"
    with pytest.raises(OSError, match="No space left") as unwritten:
        state.decide({})
    line = _unwritable(unwritten.value, start, state)
    assert line == (
        f"storage: cannot write {tmp_path}/runs/s/study.json: No space left on device; free some "
        "space"
    )


@pytest.mark.parametrize(
    ("command", "resumed"),
    [
        ("scaling run s", "scaling run s --resume"),
        ("scaling run 's (1)'", "scaling run 's (1)' --resume"),
        ("study.run()", "study.run(resume=True)"),
        ("study.run(output='r')", "study.run(output='r', resume=True)"),
    ],
)
def test_what_goes_on_with_a_study(command: str, resumed: str) -> None:
    assert resuming(command) == resumed


STEPS = {"budget": {"steps": 60_000}}
SECONDS = {
    "budget": {"seconds": 1e9}, "evaluation": {"every_steps": 1},
    "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        (STEPS | {"evaluation": {"every_steps": 6}}, "evaluation.every_steps: 6 makes 10,001 "),
        (STEPS | {"evaluation": {"every_steps": 7}}, None),
        (STEPS | {"evaluation": {"every_examples": 16}}, "evaluation.every_examples: 16 makes "),
        (STEPS | {"evaluation": {"growth_ratio": 1.00001}}, "growth_ratio: 1.00001 makes 60,001 "),
        (STEPS | {"evaluation": {"growth_ratio": 1.01}}, None),
        ({"budget": {"examples": 160_000}, "evaluation": {"every_steps": 1}}, "makes 10,001 "),
        ({"budget": {"examples": 159_000}, "evaluation": {"every_steps": 1}}, None),
        (SECONDS, None),
    ],
)
def test_more_evaluations_than_a_record_takes_are_refused(
    changes: dict[str, object], refused: str | None
) -> None:
    spec = study(**changes)
    if refused is None:
        require_tasks(spec)
        return
    with pytest.raises(DataError, match=r"of a trial \(allowed: at most 10,000\)$") as error:
        require_tasks(spec)
    assert refused in str(error.value)


def test_what_is_advised_in_python_has_the_arguments_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    StudyState.open(study(), {DATA: "a"}, {}).lock.close()
    asked = Study(**study().model_dump(mode="json", exclude_unset=True))
    with pytest.raises(RefusedError, match=re.escape("study.run(output='r', resume=True)")):
        asked.run(output=Path("r"))
    with pytest.raises(RefusedError, match=re.escape("study.run(address='a:1', resume=True)")):
        asked.run(address="a:1")
