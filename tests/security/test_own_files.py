"""What a user keeps beside our files stays, and nothing of ours is written through a link."""

import json
import os
from pathlib import Path

import fsspec
import pytest

from scaling.files.own import ForeignFolderError, report_files, write_report_files
from scaling.records.study import StudyRecord
from scaling.report.__main__ import main
from scaling.report.document import write_report
from scaling.runner.state import StudyState, require_startable
from scaling.runner.state_folder import StateError
from scaling.tasks.content import DATA
from scaling.training.checkpoint import remove_checkpoints
from tests.analysis.synthetic import spec
from tests.space.test_space import study

CONTENTS: dict[str, str | bytes] = {"report.html": "ours", "figures/a.svg": "ours"}
TABLE = "global_batch_size,steps_to_target\n8,100\n16,60\n32,40\n"


def tree(folder: Path) -> dict[str, str]:
    """Every file's content (a link's target), by its path."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize(
    "name", ["notes.txt", "report.html", "summary.json", "figures/mine.png", ".hidden"]
)
def test_a_report_is_not_written_into_a_folder_with_other_files(tmp_path: Path, name: str) -> None:
    output = tmp_path / "output"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("the user's")
    before = tree(tmp_path)
    with pytest.raises(ForeignFolderError, match="nothing was touched") as refused:
        write_report(StudyRecord(spec(), ()), output)
    assert "\n" not in str(refused.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("option", ["--from-csv", "--compare"])
def test_the_report_command_refuses_it_with_status_2(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(TABLE)
    output = tmp_path / "output"
    output.mkdir()
    (output / "report.html").write_text("the user's")
    before = tree(tmp_path)
    tables = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    given = tables[:1] if option == "--from-csv" else tables
    assert main([option, *given, "--output", str(output)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert tree(tmp_path) == before


def test_our_files_are_replaced_and_a_users_beside_them_stay(tmp_path: Path) -> None:
    write_report_files(tmp_path, CONTENTS)
    (tmp_path / "figures/mine.png").write_text("the user's")
    (tmp_path / "notes.txt").write_text("the user's")
    write_report_files(tmp_path, {"report.html": "newer"})
    assert set(tree(tmp_path)) == {
        ".scaling-report.json", "report.html", "notes.txt", "figures/mine.png",
    }  # fmt: skip
    assert report_files(tmp_path) == [".scaling-report.json", "report.html"]
    with pytest.raises(ForeignFolderError, match=r"figures/mine\.png is not a report's"):
        write_report_files(tmp_path, {"report.html": "newest", "figures/mine.png": "ours"})
    assert (tmp_path / "report.html").read_text() == "newer"


def test_a_report_that_was_cut_off_is_written_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def killed(source: str, target: str, **folders: int) -> None:
        if target == "a.svg":
            raise KeyboardInterrupt
        replace(source, target, **folders)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_report_files(tmp_path, CONTENTS)
    write_report_files(tmp_path, CONTENTS)
    assert set(tree(tmp_path)) == {".scaling-report.json", *CONTENTS}


def test_links_are_neither_written_nor_deleted_through(tmp_path: Path) -> None:
    outside, output = tmp_path / "outside", tmp_path / "output"
    (outside / "figures").mkdir(parents=True)
    for name in ("figures/a.svg", "report.html"):
        (outside / name).write_text("the user's")
    before = tree(outside)
    write_report_files(output, CONTENTS)
    (output / "report.html").unlink()
    (output / "report.html").symlink_to(outside / "report.html")
    (output / "figures/a.svg").unlink()
    (output / "figures/a.svg").symlink_to(outside / "figures/a.svg")
    write_report_files(output, {"report.html": "ours"})
    assert tree(outside) == before
    (output / "figures").rmdir()
    (output / "figures").symlink_to(outside / "figures")
    with pytest.raises(ForeignFolderError, match="is not a folder"):
        write_report_files(output, {"report.html": "ours"})
    assert tree(outside) == before


@pytest.mark.parametrize(
    "mark",
    [
        "", "[]", "{}", "[" * 100_000, '{"format": "another", "version": 1, "files": []}',
        json.dumps({"format": "scaling-report", "version": 2, "files": []}),
        json.dumps({"format": "scaling-report", "version": 1, "files": ["../notes.txt"]}),
        json.dumps({"format": "scaling-report", "version": 1, "files": ["/etc/hosts"]}),
        json.dumps({"format": "scaling-report", "version": 1, "files": ["a/b"]}),
        json.dumps({"format": "scaling-report", "version": 1, "files": [["a"]]}),
    ],
)  # fmt: skip
def test_a_mark_that_is_not_ours_refuses_the_folder(tmp_path: Path, mark: str) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / ".scaling-report.json").write_text(mark)
    (tmp_path / "notes.txt").write_text("the user's")
    before = tree(tmp_path)
    with pytest.raises(ForeignFolderError, match="is not a report's mark"):
        write_report_files(output, CONTENTS)
    assert tree(tmp_path) == before


def test_the_committed_report_is_marked() -> None:
    folder = Path(__file__).parents[2] / "reports/lr_vs_batch"
    present = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert set(report_files(folder)) == present


OURS = {
    "lock": "the user's", "trials.jsonl": "half a line", "mlflow_spool.jsonl": "{}\n",
    "optuna.journal": "the user's", "checkpoints/search-all-000/notes": "the user's",
    "study.json": '{"name": "the user\'s"}', "notes.txt": "the user's", "ray.log": "the user's",
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_study_does_not_start_in_a_folder_with_other_files(
    tmp_path: Path, name: str, resume: bool
) -> None:
    folder = tmp_path / "state"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(OURS[name])
    before = tree(tmp_path)
    given = study(storage=str(folder))
    for start in (
        lambda: require_startable(given, resume=resume, command="run"),
        lambda: StudyState.open(given, {DATA: "a"}, {}),
    ):
        with pytest.raises(StateError, match="nothing was touched") as refused:
            start()
        assert "\n" not in str(refused.value)
        assert "rm " not in str(refused.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["lock", "trials.jsonl", "study.json", "ray.log", "checkpoints"])
def test_a_link_in_a_study_s_folder_is_refused(tmp_path: Path, name: str) -> None:
    given = study(storage=str(tmp_path / "state"))
    StudyState.open(given, {DATA: "a"}, {}).lock.close()
    (tmp_path / "outside").write_text("the user's")
    (tmp_path / "state" / name).unlink(missing_ok=True)
    (tmp_path / "state" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StateError, match="links are not followed"):
        StudyState.open(given, {DATA: "a"}, {})
    assert (tmp_path / "outside").read_text() == "the user's"


def test_a_state_folder_without_its_mark_is_refused(tmp_path: Path) -> None:
    given = study(storage=str(tmp_path / "state"))
    StudyState.open(given, {DATA: "a"}, {}).lock.close()
    (tmp_path / "state/.scaling-state.json").unlink()
    with pytest.raises(StateError, match="nothing was touched"):
        require_startable(given, resume=True, command="run")


def test_the_way_to_start_afresh_removes_what_is_ours_alone(tmp_path: Path) -> None:
    given = study(storage=str(tmp_path / "state"))
    StudyState.open(given, {DATA: "a"}, {}).lock.close()
    (tmp_path / "state/notes.txt").write_text("the user's")
    with pytest.raises(StateError, match=r"study\.json") as refused:
        require_startable(given, resume=False, command="true")
    assert "notes.txt" not in str(refused.value)
    assert "name or storage" in str(refused.value)


def test_a_url_with_other_objects_is_refused() -> None:
    url = "memory://taken-by-another/study"
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/notes.txt", b"the user's")
    try:
        for resume in (False, True):
            with pytest.raises(StateError, match=r"are not a study's \(notes.txt\)"):
                require_startable(study(storage=url), resume=resume, command="run")
        assert fs.cat_file(f"{root}/notes.txt") == b"the user's"
    finally:
        fs.rm(root, recursive=True)


def test_only_checkpoints_are_removed_of_a_trial(tmp_path: Path) -> None:
    folder = tmp_path / "search-all-000"
    folder.mkdir()
    for name in ("step-000000000010.pt", "step-000000000010.worker-00001.pt", "notes.txt"):
        (folder / name).write_text("x")
    remove_checkpoints(str(folder))
    assert tree(tmp_path) == {"search-all-000/notes.txt": "x"}
    (folder / "notes.txt").unlink()
    remove_checkpoints(str(folder))
    assert not folder.exists()
