"""What --resume --plan says."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scaling.plan.resume_plan import print_resume_plan
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.remaining import LATER_ROUNDS, stages
from scaling.runner.state import StudyState, looked_at
from scaling.runner.state_folder import StateError
from scaling.space.rounds import Rounds
from scaling.study import main
from scaling.tasks.content import DATA
from scaling.tasks.prepare import prepare_task
from tests.runner.test_remaining import FACTS, LOSSES, ended, extended
from tests.space.test_space import study

STUDY = "\n".join(
    (
        "name: left", "question: What is left?", "workload: {task: noisy_quadratic}",
        "scientific: {global_batch_size: [16, 64]}",
        "nuisance: {peak_lr: {log_uniform: [1.0e-3, 1.0e-1]}}", "budget: {steps: 5}",
        "evaluation: {every_steps: 5}", "search: {trials_per_cell: 2}", "confirm: {num_seeds: 2}",
    )
)  # fmt: skip


def plan(spec: Any, recorded: RecordedStudy) -> list[str]:
    out = StringIO()
    task = prepare_task(spec.workload, spec.evaluation)
    print_resume_plan(spec, recorded, [task], Console(file=out, width=200))
    return out.getvalue().splitlines()


def ran(folder: Path, spec: Any, num_stages: int) -> RecordedStudy:
    """A study's folder after some of its stages, each trial of which took a second."""
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    records: dict[str, Any] = {}
    rounds = Rounds(4) if spec.search.num_trials else None
    for stage, _ in zip(stages(spec, records, FACTS, rounds), range(num_stages), strict=False):
        if stage.rounds is not None:
            state.keep_rounds(stage.rounds)
        for trial in stage.missing:
            record = ended(trial, LOSSES.get(trial.trial_id, 1.0))
            records[trial.trial_id] = replace(record, wall_seconds=1.0)
    lines = "".join(f"{record.to_json()}\n" for record in records.values())
    (state.folder / "trials.jsonl").write_text(lines)
    return RecordedStudy(state.folder, json.loads((state.folder / "study.json").read_text()))


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return tmp_path


def test_a_plan_of_a_study_that_ended_says_so(at: Path) -> None:
    spec = extended(2)
    text = plan(spec, ran(at, spec, 2))
    assert "  14 trials have ended, 0 are to run" in text
    assert text[-1] == "nothing is left to run: --resume writes the report again"


def test_more_seeds_are_counted_by_phase_and_cell(at: Path) -> None:
    recorded = ran(at, extended(2), 2)
    text = plan(extended(2, num_seeds=4), recorded)
    assert "  changed: confirm.num_seeds: was 2, is 4" in text
    rows = [line.split() for line in text if "global_batch_size=" in line]
    assert rows == [
        ["search", "global_batch_size=16", "2", "0"],
        ["search", "global_batch_size=64", "2", "0"],
        ["transfer", "global_batch_size=64", "2", "2"],
        ["confirm", "global_batch_size=16", "2", "2"],
        ["confirm", "global_batch_size=64", "2", "2"],
        ["branch", "global_batch_size=16", "4", "4"],
    ]  # fmt: skip
    # 10 trials of a second each, two at once.
    assert text[-1].startswith("time: about 0.1 min at 2 trials at once, judged by the 14 trials")


def test_a_search_that_goes_on_may_find_a_better_recipe(at: Path) -> None:
    text = plan(extended(3), ran(at, extended(2), 2))
    assert "  14 trials have ended, 2 are to run" in text
    assert any(line.startswith("The search is not over.") for line in text)


def test_a_search_cut_off_has_all_that_follows_left(at: Path) -> None:
    text = plan(extended(2), ran(at, extended(2), 1))
    assert "  4 trials have ended, 10 are to run" in text


def test_what_is_left_of_a_search_by_the_surface_is_a_bound(at: Path) -> None:
    stop = {"regret_at_most_ratio": 1e-9}
    spec = study(
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        search={"num_trials": 16, "stop": stop},
        confirm={"num_seeds": 1},
    )
    recorded = ran(at, spec, 1)  # a design of 8
    text = plan(spec, recorded)
    assert "  8 trials have ended, at most 10 are to run" in text
    assert "  search in rounds of 4; 1 round has been proposed" in text
    rows = [line.rsplit(maxsplit=2) for line in text if line.startswith("search  ")]
    assert [row[1:] for row in rows[:2]] == [["4", "2"], ["4", "2"]]  # those of the next round
    assert [*rows[2][0].split(maxsplit=1), *rows[2][1:]] == ["search", LATER_ROUNDS, "0", "4"]
    # 10 trials of a second each, two at once.
    assert text[-1].startswith("time: at most about 0.1 min at 2 trials at once, judged by the 8")
    assert RecordedStudy.read(recorded.folder) == recorded  # what comes next is not kept


def test_the_command_changes_nothing_on_disk(at: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at / "left.yaml").write_text(STUDY)
    spec = extended(2).model_copy(update={"name": "left"})
    assert main(["left.yaml", "--plan", "--resume"]) == 0  # nothing to resume: the whole plan
    assert "in all: 8 trials" in capsys.readouterr().out
    (at / "runs").mkdir()
    with looked_at(spec) as recorded:
        assert recorded is None
    from scaling.spec.read import read_study

    ran(at, read_study(at / "left.yaml", []), 1)
    file = at / "runs/left/study.json"
    known = json.loads(file.read_text())
    task = prepare_task(spec.workload, spec.evaluation)
    file.write_text(json.dumps(known | {"data_sha256": task.content_hash}))
    before = {path: path.stat().st_mtime_ns for path in at.rglob("*")}
    changes = ["--set", "search.trials_per_cell=3", "--set", "question=Another?"]
    assert main(["left.yaml", "--plan", "--resume", *changes]) == 0
    assert "4 trials have ended, 6 are to run" in capsys.readouterr().out
    assert main(["left.yaml", "--plan", "--resume", "--set", "seed=1"]) == 2
    assert "seed: was 0, is 1 (the trials that were run are others)" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in at.rglob("*")} == before


def test_what_is_kept_at_a_url_is_looked_at_without_a_copy(at: Path) -> None:
    url = f"memory://looked-at-{at.name}"
    spec = extended(2).model_copy(update={"storage": url})
    state = StudyState.open(spec, {DATA: "a"}, {})
    with state.mirrored():
        pass
    state.lock.close()
    (at / "runs").rename(at / "elsewhere")
    with looked_at(spec) as recorded:
        assert recorded is not None
        assert recorded.study_id == state.study_id
        assert recorded.records() == {}
    assert not (at / "runs").exists()
    StudyState.open(spec, {DATA: "a"}, {}).lock.close()  # another study in the same place
    with pytest.raises(StateError, match="hold different trials"), looked_at(spec):
        pass
