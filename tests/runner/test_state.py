"""A study's state folder: one study, one process, the same data."""

import fcntl
import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from scaling.cli.status import is_locked
from scaling.records.ledger import Ledger, cut_unfinished_line
from scaling.runner.state import StudyState, require_startable, require_usable_storage
from scaling.runner.state_folder import StateError
from scaling.space.rounds import ProposedTrial, Rounds, SearchEnd, SurfaceRecipe
from scaling.tasks.content import DATA
from tests.records.test_ledger import record
from tests.space.test_space import study


def in_folder(folder: Path, **changes: Any) -> Any:
    return study(storage=str(folder / "state"), **changes)


def test_a_study_keeps_its_identity_and_one_process_runs_it(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    require_startable(spec, resume=False, command="run")
    first = StudyState.open(spec, {DATA: "a"}, {})
    assert first.is_new
    # The lock belongs to the open file: a second one conflicts, in whichever process.
    with pytest.raises(StateError, match="being run by another process"):
        StudyState.open(spec, {DATA: "a"}, {})
    first.lock.close()
    again = StudyState.open(spec, {DATA: "a"}, {})
    assert (again.study_id, again.is_new) == (first.study_id, False)
    again.lock.close()


def test_what_a_study_is_survives_a_machine_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    state = StudyState.open(in_folder(tmp_path), {DATA: "a"}, {})
    state.lock.close()
    assert synced == [(state.folder / "study.json").stat().st_ino, state.folder.stat().st_ino]


def test_changed_data_are_refused(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    with pytest.raises(StateError, match="data of the study"):
        StudyState.open(spec, {DATA: "b"}, {})


def test_a_refused_start_is_forgotten_and_one_with_trials_is_not(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.discard_if_new()
    require_startable(spec, resume=False, command="run")
    state.lock.close()
    state = StudyState.open(spec, {DATA: "a"}, {})
    trials = state.folder / "trials.jsonl"
    failed_and_run_again = f"{record().to_json()}\n" * 2
    trials.write_text(failed_and_run_again + '{"cut o')
    state.discard_if_new()
    state.lock.close()
    with pytest.raises(StateError, match="with 1 ended trials;"):
        require_startable(spec, resume=False, command="run")
    trials.write_bytes(b"\xff\xfe\n")
    with pytest.raises(StateError, match=r"already exists .* with a trials\.jsonl that cannot be"):
        require_startable(spec, resume=False, command="run")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_start_that_waits_for_one_that_is_refused_has_a_folder_of_its_own(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = in_folder(tmp_path)
    if is_there:
        (tmp_path / "state").mkdir()
    first = StudyState.open(spec, {DATA: "a"}, {})

    def refuse_the_first(_: float) -> None:
        first.discard_if_new()
        first.lock.close()

    monkeypatch.setattr("time.sleep", refuse_the_first)
    second = StudyState.open(spec, {DATA: "a"}, {})
    second.lock.close()
    (second.folder / "trials.jsonl").touch()
    require_startable(spec, resume=True, command="run")
    third = StudyState.open(spec, {DATA: "a"}, {})
    third.lock.close()
    assert third.study_id == second.study_id


def test_a_changed_spec_is_refused_with_the_difference(tmp_path: Path) -> None:
    StudyState.open(in_folder(tmp_path), {DATA: "a"}, {}).lock.close()
    changed = in_folder(tmp_path, budget={"examples": 1001})
    with pytest.raises(StateError, match=r"budget\.examples: was 1000, is 1001"):
        require_startable(changed, resume=True, command="run")


def test_a_study_that_goes_on_extended_keeps_what_changed(tmp_path: Path) -> None:
    state = StudyState.open(in_folder(tmp_path), {DATA: "a"}, {})
    state.lock.close()
    batches = {"global_batch_size": [16, 32, 64]}
    spec = in_folder(tmp_path, scientific=batches, search={"trials_per_cell": 10})
    require_startable(spec, resume=True, command="run")
    before = (state.folder / "study.json").read_bytes()
    state = StudyState.open(spec, {DATA: "a"}, {})
    assert (state.folder / "study.json").read_bytes() == before  # until its first trial starts
    places = {"global_batch_size=16": 0, "global_batch_size=64": 1, "global_batch_size=32": 2}
    assert state.recorded.cell_places(spec) == places
    for _ in range(2):
        state.go_on(spec)
    state.lock.close()
    known = json.loads((state.folder / "study.json").read_text())
    assert known["study_id"] == state.study_id
    assert known["spec"]["search"]["trials_per_cell"] == 10
    assert known["cell_places"] == places
    [entry] = known["history"]
    assert entry["changes"] == {
        "scientific.global_batch_size": {"was": [16, 64], "is": [16, 32, 64]},
        "search.trials_per_cell": {"was": 8, "is": 10},
    }
    with pytest.raises(StateError, match=r"search\.trials_per_cell: was 10, is 8 \(it may grow"):
        require_startable(in_folder(tmp_path, scientific=batches), resume=True, command="run")


RECIPE = {"name": "surface-B=1-009", "choices": {}}


def by_surface(folder: Path, **search: Any) -> Any:
    return in_folder(folder, search={"num_trials": 12, **search})


def test_the_rounds_of_a_search_are_kept_exactly(tmp_path: Path) -> None:
    state = StudyState.open(by_surface(tmp_path), {DATA: "a"}, {})
    assert state.recorded.rounds() is None
    point = {"peak_lr": 0.1 + 0.2, "clip_norm": None, "optimizer": "sgd", "nesterov": True}
    cell = "global_batch_size=16"
    end = SearchEnd(9, (SurfaceRecipe(f"surface-{cell}-009", cell, point),))
    rounds = Rounds(4, ((ProposedTrial(cell, point),), ()), end)
    state.keep_rounds(rounds)
    state.go_on(by_surface(tmp_path, stop=None))
    state.lock.close()
    state = StudyState.open(by_surface(tmp_path, num_trials=13), {DATA: "a"}, {})
    state.lock.close()
    assert state.recorded.rounds() == rounds
    with pytest.raises(StateError, match=r"search\.round_size: was null, is 3 \(the rounds of a"):
        require_startable(by_surface(tmp_path, round_size=3), resume=True, command="run")


@pytest.mark.parametrize(
    ("rounds", "message"),
    [
        ([], "rounds: Input should be"),
        ({"size": "x"}, "rounds.size: "),
        ({"size": 4, "proposed": [[{"cell": "B=1", "choices": {}}]]}, "there is no cell B=1"),
        (
            {"size": 4, "end": {"num_trials": 9, "recipes": [RECIPE | {"cell": "B=1"}]}},
            "rounds.end: there is no cell B=1",
        ),
    ],
)
def test_rounds_that_no_study_wrote_are_refused(
    tmp_path: Path, rounds: object, message: str
) -> None:
    spec = by_surface(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    file = state.folder / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rounds": rounds}))
    with pytest.raises(StateError, match=re.escape("study.json: is not a study's: rounds")) as why:
        require_startable(spec, resume=True, command="run")
    assert message in str(why.value)


@pytest.mark.parametrize("format", [2, 4, None])
def test_a_study_of_another_format_does_not_go_on(format: int | None, tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    require_startable(spec, resume=True, command="run")
    file = state.folder / "study.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": format}))
    with pytest.raises(StateError, match="another version of scaling") as refused:
        require_startable(spec, resume=True, command="run")
    assert "\n" not in str(refused.value)
    assert f"python -m scaling.report {spec.name}" in str(refused.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(StateError, match="storage: cannot write"):
        StudyState.open(spec, {DATA: "a"}, {})


def test_changed_files_of_a_model_are_refused_by_name(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    files = {"model/config.json": "a" * 64, "model/model.safetensors": "b" * 64}
    state = StudyState.open(spec, {DATA: "a", **files}, {})
    assert state.recorded.content == {"the data": "a", **files}
    state.lock.close()
    StudyState.open(spec, {DATA: "a", **files}, {}).lock.close()
    other = files | {"model/model.safetensors": "c" * 64}
    for _ in range(2):  # and the lock is let go
        with pytest.raises(StateError, match=r"model/model\.safetensors has changed \(bbb"):
            StudyState.open(spec, {DATA: "a", **other}, {})


KNOWN = {"study_id": "a", "data_sha256": "b", "spec": {}, "given": {}, "cell_places": {}}


@pytest.mark.parametrize(
    "content",
    [
        "[]", "3", "{", "null", "{}", '{"study_id": "a"}',
        *(
            json.dumps(KNOWN | wrong)
            for wrong in (
                {"spec": []}, {"study_id": 3}, {"given": None}, {"cell_places": []},
                {"cell_places": {"a": "b"}}, {"decided": 3}, {"files": []},
            )
        ),
    ],
)  # fmt: skip
def test_a_state_of_a_wrong_shape_is_refused(content: str, tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    (tmp_path / "state/study.json").write_text(content)
    with pytest.raises(StateError, match=r"study\.json: (is no|must be|is not a)"):
        require_startable(spec, resume=True, command="run")
    with pytest.raises(StateError, match=r"study\.json: (is no|must be|is not a)"):
        StudyState.open(spec, {DATA: "a"}, {})


def test_a_record_of_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    (tmp_path / "state/trials.jsonl").write_text(json.dumps({"trial_id": "a"}) + "\n")
    with pytest.raises(StateError, match=r"line 1 of .*restore the file, or remove the line"):
        StudyState.open(spec, {DATA: "a"}, {})


BROKEN = {
    "study.json": ("{", "is not JSON"),
    "study.json of nothing": ("{}", "study_id is missing"),
    "trials.jsonl": ('{"trial_id": "a"}\n', "line 1 of .* is not a trial's record"),
    "trials.jsonl of text": ("\x00nonsense\n", "line 1 of .* is not a trial's record"),
    "optuna.journal": ("nonsense\n{}\n", "cannot read line 1"),
    "optuna.journal of numbers": ("3\n", "cannot read line 1"),
    "optuna.journal of others": ('{"op_code": 4, "worker_id": "x"}\n', "Optuna cannot read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_before_anything_goes_on(name: str, tmp_path: Path) -> None:
    content, words = BROKEN[name]
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    file = tmp_path / "state" / name.split(" ")[0]
    file.write_text(content)
    with pytest.raises(StateError, match=words) as refused:
        require_startable(spec, resume=True, command="run")
    assert "\n" not in str(refused.value)
    assert file.name in str(refused.value)
    assert file.read_text() == content


def test_a_line_that_a_crash_cut_off_is_no_fault(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    for name in ("trials.jsonl", "optuna.journal"):
        (tmp_path / "state" / name).write_text('{"op_co')
    require_startable(spec, resume=True, command="run")
    cut_unfinished_line(tmp_path / "state" / "optuna.journal")
    assert (tmp_path / "state" / "optuna.journal").read_text() == ""


def test_a_study_whose_trial_has_started_is_not_discarded(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    Ledger(state.folder, []).start(record())
    (state.folder / "checkpoints" / "a").mkdir(parents=True)
    state.discard_if_new()
    assert (state.folder / "study.json").exists()
    assert (state.folder / "checkpoints" / "a").exists()
    state.lock.close()
    require_startable(spec, resume=True, command="run")


def test_a_look_at_the_lock_keeps_no_study_away(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    path = tmp_path / "state" / "lock"
    assert not is_locked(path)
    with path.open() as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        assert not is_locked(path)  # another one looks
        ends = threading.Timer(0.03, fcntl.flock, (look, fcntl.LOCK_UN))
        ends.start()
        state = StudyState.open(spec, {DATA: "a"}, {})
        ends.join()
    assert is_locked(path)
    state.lock.close()


def test_what_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    (state.folder / "example_losses").mkdir()
    for folder in (state.folder, state.folder / "example_losses"):
        (folder / ".scaling-unfinished-0123456789abcdef.part").touch()
    (state.folder / "example_losses" / "notes.part").touch()
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    assert [path.name for path in state.folder.rglob("*.part")] == ["notes.part"]


def test_a_lock_alone_keeps_no_study_away(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").touch()
    StudyState.open(in_folder(tmp_path), {DATA: "a"}, {}).lock.close()


def test_a_journal_of_deep_lists_is_one_line(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()
    (tmp_path / "state" / "optuna.journal").write_text("[" * 100_000 + "\n")
    with pytest.raises(StateError, match="Optuna cannot read line 1"):
        require_startable(spec, resume=True, command="run")


def test_what_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    cyrillic = "# Скорость обучения\n" * 50_000  # 1.7 MB, and 5.6 MB with ASCII alone
    StudyState.open(spec, {DATA: "a"}, {"own.py": cyrillic}).lock.close()
    require_startable(spec, resume=True, command="run")
    spec = in_folder(tmp_path / "other")
    with pytest.raises(StateError, match=r"study\.json would have 6,.* bytes, and may have 4,000,"):
        StudyState.open(spec, {DATA: "a"}, {"own.py": "\x01" * 1_000_000})
    require_startable(spec, resume=False, command="run")


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    lock = state.folder / "lock"
    lock.unlink()
    lock.symlink_to(state.folder / "study.json")
    with pytest.raises(StateError, match=r"storage: .*lock is not a file \(links are not followed"):
        require_usable_storage(spec)


def test_trials_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    spec = in_folder(tmp_path)
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    (state.folder / "trials.jsonl").mkdir()
    with pytest.raises(StateError, match=r"trials\.jsonl: Is a directory"):
        state.recorded.records()
