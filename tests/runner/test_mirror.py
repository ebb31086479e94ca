"""A study whose state is copied to a URL, and that goes on from there on another machine."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from scaling.runner.mirror import Mirror, fetch, is_at
from scaling.runner.state import StudyState, require_same_content, require_startable
from scaling.runner.state_folder import StateError
from scaling.tasks.content import DATA
from tests.space.test_space import study


@pytest.fixture
def url() -> Iterator[str]:
    """A file system in memory that nothing else is in."""
    name = f"memory://{uuid.uuid4().hex}/study"
    yield name
    fs, root = fsspec.core.url_to_fs(name)
    if fs.exists(root):
        fs.rm(root, recursive=True)


class AwayError(Exception):
    """A store's own, which is no OSError."""


def fail(*_: Any, **__: Any) -> None:
    raise AwayError("the bucket is away")


def known(study_id: str) -> dict[str, Any]:
    return {"study_id": study_id, "spec": {}, "given": {}, "cell_places": {}, "data_sha256": "a"}


def state(folder: Path, trials: str = "", study_id: str = "s1") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(known(study_id)))
    (folder / "trials.jsonl").write_text(trials)
    return folder


def at(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(root).lstrip("/"): fs.cat_file(path) for path in fs.find(root)}


def test_the_copy_is_whole_at_the_end_and_has_no_half_line(tmp_path: Path, url: str) -> None:
    assert not is_at(url)
    folder = state(tmp_path / "a", "one\ntw")
    (folder / "example_losses").mkdir()
    (folder / "example_losses/t.parquet").write_bytes(b"\x00no line\nat all")
    (folder / "ray").mkdir()
    (folder / "ray/log").write_text("stays here")
    with Mirror(folder, url, every_seconds=60):
        (folder / "optuna.journal").write_text("{}\n")
    assert is_at(url)
    assert at(url) == {
        "study.json": json.dumps(known("s1")).encode(),
        "trials.jsonl": b"one\n",
        "optuna.journal": b"{}\n",
        "example_losses/t.parquet": b"\x00no line\nat all",
    }


def test_no_trial_is_said_to_have_ended_before_its_example_losses_are_there(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state(tmp_path / "a")
    losses = folder / "example_losses"
    losses.mkdir()

    def end(trial: str) -> None:
        (losses / f"{trial}.parquet").write_bytes(b"losses")
        with (folder / "trials.jsonl").open("a") as trials:
            trials.write(f"{trial}\n")

    def write_slowly(mirror: Mirror, name: str, content: bytes) -> None:
        if name == "example_losses/a.parquet":
            end("b")
            (folder / "environment.json").write_text("{}")
        write(mirror, name, content)

    end("a")
    write = Mirror._write
    monkeypatch.setattr(Mirror, "_write", write_slowly)
    mirror = Mirror(folder, url)
    mirror.copy()
    assert at(url)["trials.jsonl"] == b"a\n"
    assert at(url).keys() == {"study.json", "example_losses/a.parquet", "trials.jsonl"}
    mirror.copy()
    assert at(url)["trials.jsonl"] == b"a\nb\n"
    assert {"example_losses/b.parquet", "environment.json"} < at(url).keys()


def test_changes_are_copied_while_it_runs_and_nothing_twice(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = state(tmp_path / "a")
    mirror = Mirror(folder, url)
    mirror.copy()
    written: list[str] = []
    write = Mirror._write
    monkeypatch.setattr(
        Mirror, "_write", lambda self, name, text: (written.append(name), write(self, name, text))
    )
    mirror.copy()
    with (folder / "trials.jsonl").open("a") as trials:
        trials.write("one\n")
    mirror.copy()
    assert written == ["trials.jsonl"]
    assert at(url)["trials.jsonl"] == b"one\n"


def test_a_url_that_is_away_is_tried_again_and_said_at_the_end(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = state(tmp_path / "a", "one\n")
    with monkeypatch.context() as patched:
        fs, _ = fsspec.core.url_to_fs(url)
        patched.setattr(type(fs), "pipe_file", fail)
        # Why a study ends is not hidden by it.
        with pytest.raises(KeyboardInterrupt), Mirror(folder, url):
            raise KeyboardInterrupt
        assert "the bucket is away" in caplog.text
        with pytest.raises(OSError, match="the bucket is away") as said, Mirror(folder, url):
            pass
        assert str(said.value.filename).startswith(url)
    with Mirror(folder, url):
        pass
    assert at(url)["trials.jsonl"] == b"one\n"


def test_another_machine_goes_on_and_the_first_one_after_it(tmp_path: Path, url: str) -> None:
    first, second = state(tmp_path / "first", "one\n"), tmp_path / "second"
    with Mirror(first, url):
        pass
    fetch(url, second)
    assert (second / "trials.jsonl").read_text() == "one\n"
    with (second / "trials.jsonl").open("a") as trials:
        trials.write("two\n")
    (second / "optuna.journal").write_text("{}\n")
    with Mirror(second, url):
        pass
    fetch(url, first)
    assert (first / "trials.jsonl").read_text() == "one\ntwo\n"
    assert (first / "optuna.journal").read_text() == "{}\n"
    # What is ahead of the URL stays: it was written when the URL was away.
    with (first / "trials.jsonl").open("a") as trials:
        trials.write("three\n")
    fetch(url, first)
    assert (first / "trials.jsonl").read_text() == "one\ntwo\nthree\n"


def test_a_last_line_that_a_crash_cut_off_contradicts_nothing(tmp_path: Path, url: str) -> None:
    with Mirror(state(tmp_path / "a", "one\ntwo\n"), url):
        pass
    here = state(tmp_path / "b", "one\nth")
    fetch(url, here)
    assert (here / "trials.jsonl").read_text() == "one\ntwo\n"
    (here / "trials.jsonl").write_text("one\ntwo\nthr")
    fetch(url, here)  # the ledger cuts it when it is opened


@pytest.mark.parametrize("other", [("one\nTWO\n", "s1"), ("one\n", "s2")])
def test_what_contradicts_is_not_overwritten(
    tmp_path: Path, url: str, other: tuple[str, str]
) -> None:
    with Mirror(state(tmp_path / "a", "one\ntwo\n"), url):
        pass
    here = state(tmp_path / "b", *other)
    with pytest.raises(ValueError, match="hold different trials; remove one of them"):
        fetch(url, here)
    assert (here / "trials.jsonl").read_text() == other[0]


def test_a_url_that_cannot_be_listed_is_said_as_one_that_cannot_be_read(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Mirror(state(tmp_path / "a"), url):
        pass
    fs, _ = fsspec.core.url_to_fs(url)
    with monkeypatch.context() as patched:
        patched.setattr(type(fs), "glob", fail)
        with pytest.raises(OSError, match="the bucket is away"):
            fetch(url, tmp_path / "b")


def test_a_study_at_a_url_starts_once_and_resumes_anywhere(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(storage=url)
    for machine in ("a", "b"):
        (tmp_path / machine).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    require_startable(spec, resume=False, command="run")
    first = StudyState.open(spec, {DATA: "x"}, {})
    with first.mirrored():
        pass
    first.lock.close()
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(StateError, match=f"already exists at {url}"):
        require_startable(spec, resume=False, command="run")
    assert list((tmp_path / "b").iterdir()) == []
    require_startable(spec, resume=True, command="run")
    second = StudyState.open(spec, {DATA: "x"}, {})
    second.lock.close()
    assert (second.study_id, second.is_new) == (first.study_id, False)


def test_a_refused_start_is_forgotten_at_the_url_too(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = StudyState.open(study(storage=url), {DATA: "x"}, {})
    with opened.mirrored():
        pass
    opened.discard_if_new()
    opened.lock.close()
    assert not is_at(url)
    require_startable(study(storage=url), resume=False, command="run")


def test_a_plan_names_the_folder_and_not_its_own_copy_of_it(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = study(storage=f"{url}/")
    opened = StudyState.open(spec, {DATA: "a"}, {})
    opened.lock.close()
    assert opened.checkpoints == f"{url}/checkpoints"
    trials = opened.folder / "trials.jsonl"
    trials.write_text("one\n")
    with opened.mirrored():
        pass
    for here, words in (("two\n", f"{url} and runs/s hold"), ("one\n", "line 1 of runs/s/trials")):
        trials.write_text(here)
        for only_looks in (False, True):
            with pytest.raises(StateError, match=words):
                require_startable(spec, resume=True, command="run", only_looks=only_looks)


def test_a_plan_on_another_machine_sees_that_the_data_have_changed(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = study(storage=url)
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    opened = StudyState.open(spec, {DATA: "a"}, {})
    opened.lock.close()
    with opened.mirrored():
        pass
    monkeypatch.chdir(tmp_path / "second")
    require_same_content(spec, {DATA: "a"}, {})
    with pytest.raises(StateError, match="the data of the study in runs/s have changed"):
        require_same_content(spec, {DATA: "b"}, {})
    assert not Path("runs").exists()
