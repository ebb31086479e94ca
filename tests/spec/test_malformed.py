"""What is said of every kind of bad study file: where, and what kind of mistake it is.

How it is said is in tests/data/errors.txt.
"""

import os
from pathlib import Path

import pytest

from scaling.spec.issues import MAX_ISSUES, NO_VALUE, Issue, StudyFileError
from scaling.spec.read import read_study
from tests.spec.contradictions import TOGETHER
from tests.spec.malformed_fields import STRUCTURE
from tests.spec.malformed_files import TEXTS
from tests.spec.studies import LM, TRAIN, Case, case_id, issues_of, issues_of_text


@pytest.mark.parametrize("case", STRUCTURE + TOGETHER, ids=case_id)
def test_malformed_field(tmp_path: Path, case: Case) -> None:
    study, changes, path, code = case
    issues = issues_of(tmp_path, study, changes)
    assert (path, code) in {(issue.path, issue.code) for issue in issues}, [*map(str, issues)]
    assert all("\n" not in str(issue) for issue in issues)


@pytest.mark.parametrize("case", STRUCTURE, ids=case_id)
def test_a_wrong_field_raises_no_false_alarm_elsewhere(tmp_path: Path, case: Case) -> None:
    study, changes, path, _ = case
    assert {issue.path for issue in issues_of(tmp_path, study, changes)} == {path}


def test_every_error_at_once(tmp_path: Path) -> None:
    changes = {
        "seed": -1,
        "workload.data.num_trian": 3,
        "resources.num_workers": 3,
        "search.trials_per_cell": "six",
        "fixed.schedule": "cosine",
        "fixed.momentum": 0.9,
        "scientific.global_batch_size": [64, 18],
        "storage": "nothing://x",
    }
    assert [issue.path for issue in issues_of(tmp_path, LM, changes)] == [
        "seed",
        "workload.data.num_trian",
        "search.trials_per_cell",
        "scientific.global_batch_size",
        "fixed.momentum",
        "fixed.schedule",
        "storage",
    ]


def test_the_value_and_what_is_allowed_are_kept_apart(tmp_path: Path) -> None:
    [issue] = issues_of(tmp_path, LM, {"seed": -3})
    assert issue == Issue(
        "seed",
        "must be at least 0",
        -3,
        "a whole number at least 0 and below 2147483648",
        "greater_than_equal",
    )
    [unknown] = issues_of(tmp_path, LM, {"workload.data.num_trian": 3})
    assert unknown.value is NO_VALUE


def test_errors_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    issues = issues_of(tmp_path, LM, {"scientific.global_batch_size": ["x"] * 500})
    assert len(issues) == MAX_ISSUES + 1
    assert str(issues[-1]) == "… and further errors"


@pytest.mark.parametrize(("content", "problem"), [("", "is empty"), (None, "is not a file")])
def test_unusable_data_file(tmp_path: Path, content: str | None, problem: str) -> None:
    data = tmp_path / "train.csv"
    data.mkdir() if content is None else data.write_text(content, encoding="utf-8")
    issues = issues_of(tmp_path, LM, {"workload.data": {"files": {"train": str(data)}}})
    assert [(issue.path, issue.message) for issue in issues] == [(TRAIN, problem)]


def test_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    [issue] = issues_of(tmp_path, LM, {"storage": str(tmp_path / "state")})
    assert str(issue).startswith("storage: is a file")


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line\n", encoding="utf-8")
    names = [f"{tmp_path}/a.txt", f"{tmp_path}/./a.txt"]
    [issue] = issues_of(tmp_path, LM, {"workload.data": {"files": {"train": names}}})
    assert str(issue).startswith(f"workload.data.files.train: is the same file as {names[0]}")


@pytest.mark.parametrize("kind", TEXTS)
def test_no_study_at_all(tmp_path: Path, kind: str) -> None:
    content, path, code = TEXTS[kind]
    issues = issues_of_text(tmp_path, content)
    where = str(tmp_path / path) if path == "study.yaml" else path
    assert any(where in (issue.path, "") and code == issue.code for issue in issues), [
        *map(str, issues)
    ]
    assert all("\n" not in str(issue) for issue in issues)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "there is no such file"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("loop", "there is no such file"),
        ("x" * 300, "cannot be read: File name too long"),
        ("folder/a\0b", "there is no such file"),
    ],
)
def test_unreadable_path(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    with pytest.raises(StudyFileError) as caught:
        read_study(path)
    assert [(issue.path, issue.message) for issue in caught.value.issues] == [(str(path), message)]


def test_a_name_without_its_ending(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").touch()
    with pytest.raises(StudyFileError, match=r"no such file; did you mean .*/study\.yaml\?"):
        read_study(tmp_path / "study")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: x", encoding="utf-8")
    file.chmod(0)
    with pytest.raises(StudyFileError, match="cannot be read: Permission denied"):
        read_study(file)
