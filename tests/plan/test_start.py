"""Where a study and its report may be kept, whatever links lead there."""

import os
from pathlib import Path

import pytest

from scaling.driver.run import _unwritable
from scaling.files.own import UNFINISHED, write_report_files
from scaling.plan.start import Start, require_places
from scaling.runner.preflight import StartError
from scaling.runner.state import StudyState, resuming
from scaling.tasks.content import DATA
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
