"""What a run keeps of a study before its workers train, without Ray."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from scaling.driver.live_page import LivePage
from scaling.driver.progress import ProgressView
from scaling.measures.device import Device
from scaling.records.ledger import append_line
from scaling.records.measurement import Measurement
from scaling.runner import phases, room
from scaling.runner.phases import StudyRun, _described_gpus
from scaling.runner.preflight import StartError
from scaling.runner.remaining import Stage, stages
from scaling.runner.state import StudyState, require_startable
from scaling.space.layout import Facts
from scaling.space.rounds import Rounds
from scaling.space.trials import PlannedTrial, planned_search
from scaling.spec.study import StudySpec
from scaling.tasks.content import DATA
from tests.runner.test_surface_rounds import FACTS, Study, by_surface
from tests.space.test_space import study

MEASURED = Measurement(10, 160, None, 0.1, validation_loss=1.0)


def opened(spec: StudySpec) -> StudyState:
    state = StudyState.open(spec, {DATA: "a"}, {})
    state.lock.close()
    return state


def refuse() -> None:
    raise StartError("the cluster is busy")


def test_an_extension_whose_workers_do_not_start_can_be_started_again(tmp_path: Path) -> None:
    storage = {"storage": str(tmp_path / "state")}
    small = by_surface().model_copy(update=storage)
    large = by_surface(20, (16, 64, 512)).model_copy(update=storage)
    ran = Study().run(small)
    opened(small).keep_rounds(ran.rounds)

    state = opened(large)
    facts = replace(FACTS, cell_places=state.recorded.cell_places(large))
    page = LivePage(large, state.folder, facts.metrics, ran.records)
    view = ProgressView(large, Console(file=StringIO()), facts.metrics, page)
    run = StudyRun(large, facts, (), state, (), view, "run --resume")

    def planned() -> Iterator[Stage]:
        return stages(large, ran.records, facts, ran.rounds)

    with pytest.raises(StartError):
        next(run._missing(planned(), [], refuse))
    for spec in (large, small):
        require_startable(spec, resume=True, command="run")
    assert state.recorded.rounds() == ran.rounds

    new = next(run._missing(planned(), [], lambda: state.go_on(large)))
    assert any("512" in trial.trial_id for trial in new)
    assert isinstance(opened(large).recorded.rounds(), Rounds)


def test_a_study_with_nothing_left_to_run_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = nullcontext(SimpleNamespace(is_lost=False))
    monkeypatch.setattr(phases, "ClusterWatch", lambda _: watch)
    monkeypatch.setattr(phases, "shared_tasks", lambda *_: ())
    monkeypatch.setattr(phases, "num_gpus", lambda: 0)
    monkeypatch.setattr(room, "machines", lambda: [{"CPU": 2.0}])
    spec = study(storage=str(tmp_path / "state"), resources={"num_workers": 4})
    state = opened(spec)
    facts = Facts(None, None)
    *planned, last = planned_search(spec, facts)

    def end(trial: PlannedTrial) -> None:
        ended = replace(trial.record(), status="done", measurements=(MEASURED,))
        append_line(state.folder / "trials.jsonl", ended.to_json())

    def run() -> dict[str, object]:
        page = LivePage(spec, state.folder, facts.metrics, {})
        view = ProgressView(spec, Console(file=StringIO()), facts.metrics, page)
        return StudyRun(spec, facts, (), state, (), view, "run --resume").run()

    for trial in planned:
        end(trial)
    with pytest.raises(StartError, match="one trial needs 4 workers"):
        run()
    end(last)
    for trial in (last.trial_id, "goes-on"):
        folder = state.folder / "checkpoints" / trial
        folder.mkdir(parents=True)
        for name in ("step-000000000010.pt", f".{'a' * 32}.part"):
            (folder / name).touch()
    assert run() == {"rules_refused": []}
    left = {path.name for path in (state.folder / "checkpoints").rglob("*")}
    assert left == {"goes-on", "step-000000000010.pt"}


def test_gpus_of_earlier_runs_are_kept_and_joined_where_they_differ() -> None:
    before = {"gpu": "A100, H100", "version_cuda": "12.8", "started": "now"}
    assert _described_gpus([], before) == {"gpu": "A100, H100", "version_cuda": "12.8"}
    devices = [Device("cpu"), Device("cuda:0", {"gpu": "H100", "version_cuda": "13.0"})]
    assert _described_gpus(devices, before) == {"gpu": "A100, H100", "version_cuda": "12.8, 13.0"}
    assert _described_gpus(devices, {}) == devices[1].facts
