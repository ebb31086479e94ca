"""The main job for real: a study file in, MLflow runs and a report out."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from scaling.records.study import StudyRecord
from scaling.report.__main__ import main as report
from scaling.sinks.mlflow.load import load_study
from scaling.study import main as study
from tests.commands import Finished, run
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import PRONUNCIATION, QUADRATIC, summary, write_study
from tests.faults.disturbed import working_in

pytestmark = pytest.mark.ray
STUDIES = Path(__file__).parents[2] / "studies"


def store(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def loaded(folder: Path, name: str) -> StudyRecord:
    return load_study(name, store(folder))


def test_it_ends_well_and_says_where_everything_is(finished: Finished) -> None:
    assert finished.status == 0, finished.stderr
    assert "reports/pronunciation/report.html" in finished.stdout
    assert "mlflow ui --backend-store-uri sqlite:///" in finished.stdout
    assert "2 workers ready on cpu" in finished.stdout
    assert "Traceback" not in finished.stderr
    for name in ("report.html", "report.md", "summary.json", "trials.parquet", "figures"):
        assert (finished.folder / "reports/pronunciation" / name).exists()


def test_every_phase_ran_with_its_budget_and_seeds(finished: Finished) -> None:
    trials = loaded(finished.folder, "pronunciation").trials
    phases = {p: [t for t in trials if t.phase == p] for p in ("search", "transfer", "confirm")}
    assert {phase: len(trials) for phase, trials in phases.items()} == {
        "search": 6, "transfer": 4, "confirm": 4,
    }  # fmt: skip
    assert {t.status for t in trials} == {"done"}
    for trial in trials:
        assert trial.recipe.hyperparameters.num_steps == (
            20 if trial.recipe.hyperparameters.global_batch_size == 8 else 12
        )
        assert trial.final is not None
        assert trial.final.step == trial.recipe.hyperparameters.num_steps
        assert trial.recipe.layout.world_size == 2
        assert trial.final.test_loss is not None
    assert {t.recipe.seed for t in phases["search"]} == {0}
    assert {t.recipe.seed for t in phases["confirm"] + phases["transfer"]} == {1, 2}
    base = next(t for t in phases["confirm"] if t.recipe.hyperparameters.global_batch_size == 8)
    rates = {t.rule: t.recipe.hyperparameters.peak_lr for t in phases["transfer"]}
    assert rates["none"] == base.recipe.hyperparameters.peak_lr
    assert rates["linear"] == pytest.approx(4 * base.recipe.hyperparameters.peak_lr)


def test_training_learns_and_two_workers_measure_the_noise(finished: Finished) -> None:
    for trial in loaded(finished.folder, "pronunciation").trials:
        first, last = trial.measurements[0], trial.measurements[-1]
        assert first.validation_loss is not None
        assert last.validation_loss is not None
        assert last.validation_loss < first.validation_loss
        assert last.grad_covariance_trace is not None
        assert last.grad_covariance_trace > 0


def test_mlflow_has_parent_children_curves_and_artifacts(finished: Finished) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store(finished.folder))
    [experiment] = [e for e in client.search_experiments() if e.name == "pronunciation"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    assert len(runs) == 15
    note = parents[0].data.tags["mlflow.note.content"]
    assert PRONUNCIATION["question"] in note
    assert summary(finished, "pronunciation")["answer"] in note
    artifacts = {a.path for a in client.list_artifacts(parents[0].info.run_id, "report")}
    assert "report/report.html" in artifacts
    assert "report/figures" in artifacts
    child = next(r for r in runs if r.data.tags.get("phase") == "confirm")
    assert child.data.tags["status"] == "done"
    assert child.data.params["peak_lr"]
    steps = client.get_metric_history(child.info.run_id, "validation_loss")
    examples = client.get_metric_history(child.info.run_id, "by_examples/validation_loss")
    batch = int(child.data.params["global_batch_size"])
    assert [m.step * batch for m in steps] == [m.step for m in examples]


def test_example_losses_of_confirm_trials_are_kept(finished: Finished) -> None:
    import pandas as pd

    folder = finished.folder / "runs/pronunciation/example_losses"
    trials = loaded(finished.folder, "pronunciation").trials
    for trial in (t for t in trials if t.phase == "confirm"):
        frame: Any = pd.read_parquet(folder / f"{trial.trial_id}.parquet")
        sums = frame.groupby("split")[["loss_sum", "num_targets"]].sum()
        assert trial.final is not None
        for split in ("train", "validation", "test"):
            loss = sums.loc[split, "loss_sum"] / sums.loc[split, "num_targets"]
            assert loss == pytest.approx(getattr(trial.final, f"{split}_loss"))


def test_optuna_has_every_search_trial(finished: Finished) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = finished.folder / "runs/pronunciation/optuna.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    for batch in (8, 32):
        search = optuna.load_study(
            study_name=f"pronunciation/global_batch_size={batch}", storage=storage
        )
        assert [t.state.name for t in search.trials] == ["COMPLETE"] * 3


def test_the_report_is_rebuilt_from_mlflow_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--tracking-uri", store(finished.folder), "--output", "again"]
    assert report(["pronunciation", *given]) == 0
    again = json.loads((tmp_path / "again/summary.json").read_text())
    assert again == summary(finished, "pronunciation")


def test_the_least_to_beat_is_in_mlflow_and_in_the_summary(finished: Finished) -> None:
    recorded = loaded(finished.folder, "pronunciation").environment
    baselines = summary(finished, "pronunciation")["baselines"]
    assert recorded["baseline"] == baselines["guess"] == "token frequencies"
    assert recorded["baseline_validation_loss"] == baselines["validation_loss"]
    assert 3.0 < baselines["validation_loss"] < 3.7  # far below a uniform guess
    cells = summary(finished, "pronunciation")["cells"]
    batch = summary(finished, "pronunciation")["recommendation"]["global_batch_size"]
    assert (batch is not None) == any(cell["beats_baseline"] for cell in cells)
    for trial in loaded(finished.folder, "pronunciation").trials:
        final = trial.final
        assert final is not None
        assert final.tokens is not None
        assert final.targets is not None
        assert final.tokens > final.targets > final.examples


def test_starting_again_says_what_exists_and_touches_nothing(finished: Finished) -> None:
    trials = finished.folder / "runs/pronunciation/trials.jsonl"
    before = trials.read_bytes()
    again = run(finished.folder, "pronunciation.yaml")
    assert again.status == 2
    assert "already exists in runs/pronunciation, with 14 ended trials" in again.stderr
    assert "--resume" in again.stderr
    assert "rm -r runs/pronunciation/study.json runs/pronunciation/lock" in again.stderr
    assert trials.read_bytes() == before


def test_resuming_a_finished_study_runs_nothing_again(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = summary(finished, "pronunciation")
    assert study(["pronunciation.yaml", "--resume"]) == 0
    assert "ready on" not in capsys.readouterr().out
    assert summary(finished, "pronunciation") == before
    assert len(loaded(finished.folder, "pronunciation").trials) == 14


def test_resuming_a_changed_study_is_refused_with_the_difference(finished: Finished) -> None:
    changed = run(finished.folder, "pronunciation.yaml", "--resume", "--set", "budget.min_steps=13")
    assert changed.status == 2
    assert "budget.min_steps: was 12, is 13 (the trials" in changed.stderr


def test_a_missing_column_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"sentence": "a", "label": "b"}\n')
    broken = PRONUNCIATION | {"name": "broken"}
    broken["workload"] = {**PRONUNCIATION["workload"], "data": {"files": {"train": "rows.json"}}}
    write_study(tmp_path, broken)
    refused = run(tmp_path, "broken.yaml")
    assert refused.status == 2
    assert "workload.data.text_column" in refused.stderr
    assert "sentence, label" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_cluster_too_small_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path, QUADRATIC)
    refused = run(tmp_path, "quadratic.yaml", "--set", "resources.cpus_per_worker=1000.0")
    assert refused.status == 2
    assert "resources: one trial needs" in refused.stderr
    assert "cpus_per_worker" in refused.stderr
    assert "Traceback" not in refused.stderr
    # A refused start leaves no study behind that would block the corrected one.
    assert not (tmp_path / "runs/quadratic/study.json").exists()


@pytest.mark.slow
def test_both_executors_give_bitwise_the_same_trials(tmp_path: Path, cluster: Cluster) -> None:
    finals: dict[str, list[Any]] = {}
    for executor in ("pool", "per_trial"):
        folder = tmp_path / executor
        folder.mkdir()
        write_study(folder, QUADRATIC)
        changes = ("scientific.global_batch_size=[4]", f"resources.executor={executor}")
        done = cluster.run(folder, "quadratic.yaml", "--set", changes[0], "--set", changes[1])
        assert done.status == 0, done.stderr
        trials = loaded(folder, "quadratic").trials
        finals[executor] = [[m.validation_loss for m in t.measurements] for t in trials]
    assert finals["pool"] == finals["per_trial"]
    assert all(len(losses) == 4 for losses in finals["pool"])


@pytest.mark.slow
def test_noisy_quadratic_finds_the_known_critical_batch_size(tmp_path: Path) -> None:
    # Case 1, from the real ensemble: within 10% of S_min 67.3, E_min 30,725, critical batch 456.
    started = time.monotonic()
    done = run(tmp_path, str(STUDIES / "noisy_quadratic.yaml"))
    assert done.status == 0, done.stderr
    fit = summary(done, "noisy_quadratic")["critical_batch_size"]["steps_examples"]
    assert fit["min_steps"] == pytest.approx(67.3, rel=0.1)
    assert fit["min_examples"] == pytest.approx(30_725, rel=0.1)
    assert fit["value"] == pytest.approx(456, rel=0.1)
    assert fit["interval"][0] < 456 < fit["interval"][1]
    print(f"noisy_quadratic.yaml took {time.monotonic() - started:.0f} s")


def test_no_process_is_left(finished: Finished) -> None:
    assert finished.status == 0
    deadline = time.monotonic() + 20
    while (left := working_in(finished.folder)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left
