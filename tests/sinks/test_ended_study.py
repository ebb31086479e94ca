"""A study whose trials have ended: --resume makes its report and tells MLflow what it lacks.

Nothing trains here, so the study folders are written as a study writes them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.records.ledger import append_line
from scaling.records.load import write_environment
from scaling.records.trial import TrialRecord
from scaling.report.__main__ import main as report
from scaling.runner.state import StudyState
from scaling.sinks import StudyEnd
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.study_file import spec_to_yaml
from scaling.spec.read import study_from_mapping
from scaling.spec.study import StudySpec
from scaling.study import main
from scaling.tasks.content import DATA
from tests.sinks.told import (
    assert_each_once,
    client,
    close_store,
    open_sink,
    recipe,
    runs,
    track,
    trial,
)

RESUME = ["study.yaml", "--resume"]
ENVIRONMENT = {"num_cpus": 2, "started": "2026-01-01", "ended": "2026-01-02", "rules_refused": []}


@pytest.fixture
def spec() -> StudySpec:
    return study_from_mapping(
        {
            "name": "lr_vs_batch",
            "question": "How must the peak learning rate move with the batch?",
            "workload": {"task": "noisy_quadratic"},
            "scientific": {"global_batch_size": [16, 64]},
            "nuisance": {"peak_lr": {"log_uniform": [1e-4, 3e-2]}},
            "fixed": {"optimizer": "sgd"},
            "budget": {"steps": 40},
            "evaluation": {"every_steps": 10},
            "search": {"trials_per_cell": 3},
        }
    )


def records() -> list[TrialRecord]:
    """Three rates at two batch sizes; ids that do not sort as they were started."""
    return [
        trial(
            f"search-b{batch}-{number}",
            cell={"global_batch_size": batch},
            choices={"peak_lr": rate},
            recipe=recipe(global_batch_size=batch, peak_lr=rate),
            measurements=tuple(
                replace(m, validation_loss=m.validation_loss + abs(number - 1) / 10)
                for m in trial().measurements
                if m.validation_loss is not None
            ),
        )
        for batch in (64, 16)
        for number, rate in ((2, 1e-2), (0, 1e-3), (1, 3e-3))
    ]


def write_study(folder: Path, spec: StudySpec, trials: Sequence[TrialRecord]) -> str:
    """Write a study file and the state of a study that has ended; returns its id."""
    (folder / "study.yaml").write_text(spec_to_yaml(spec), encoding="utf-8")
    state = StudyState.open(spec, {DATA: "0" * 64}, {})
    for record in trials:
        append_line(state.folder / "trials.jsonl", record.to_json())
    write_environment(state.folder, ENVIRONMENT)
    state.lock.close()
    return state.study_id


@pytest.fixture
def ended(
    tmp_path: Path, spec: StudySpec, uri: str, monkeypatch: pytest.MonkeyPatch
) -> list[TrialRecord]:
    """A study that has ended and been told to MLflow, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trials = records()
    study_id = write_study(tmp_path, spec, trials)
    folder = tmp_path / "runs" / spec.name
    sink = open_sink(spec, uri, folder, ENVIRONMENT, study_id=study_id)
    track(sink, trials)
    sink.study_ended(StudyEnd("done"))
    return trials


def page(folder: str) -> dict[str, str]:
    """A report's files but for the names that Altair makes up for its views."""
    names = ("summary.json", "report.md", "report.html")
    texts = {name: Path(folder, name).read_text(encoding="utf-8") for name in names}
    return {name: re.sub(r"view_[0-9a-f]+_", "view_", text) for name, text in texts.items()}


def test_the_report_of_the_folder_is_that_of_mlflow(ended: list[TrialRecord], uri: str) -> None:
    assert main(RESUME) == 0
    assert report(["lr_vs_batch", "--output", "again"]) == 0
    assert page("again") == page("reports/lr_vs_batch")
    assert "#/experiments/" in page("again")["report.html"]
    assert len(json.loads(page("again")["summary.json"])["cells"]) == 2
    [parent] = [run for run in runs(uri) if "role" in run.data.tags]
    artifacts = {file.path for file in client(uri).list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.html", "report/summary.json", "report/figures"} <= artifacts
    assert parent.info.status == "FINISHED"


@pytest.mark.slow
def test_resuming_it_loads_no_ray_and_no_torch(ended: list[TrialRecord]) -> None:
    program = (
        "import sys\n"
        "from scaling.study import main\n"
        "status = main(sys.argv[1:])\n"
        "print(*({'ray', 'torch', 'transformers', 'datasets'} & set(sys.modules)))\n"
        "sys.exit(status)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *RESUME], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "all of its trials have ended" in ran.stdout
    assert ran.stdout.splitlines()[-1] == ""


def delete_store() -> None:
    Path("mlflow.db").unlink()


def delete_experiment() -> None:
    store = client("sqlite:///mlflow.db")
    store.delete_experiment(runs("sqlite:///mlflow.db")[0].info.experiment_id)


def delete_parent() -> None:
    client("sqlite:///mlflow.db").delete_run(runs("sqlite:///mlflow.db")[0].info.run_id)


def delete_trial() -> None:
    client("sqlite:///mlflow.db").delete_run(runs("sqlite:///mlflow.db")[1].info.run_id)


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("loss", [delete_store, delete_experiment, delete_parent, delete_trial])
def test_what_mlflow_lost_is_written_again(
    loss: Callable[[], None], ended: list[TrialRecord], uri: str
) -> None:
    loss()
    assert main(RESUME) == 0
    by_id = sorted(ended, key=lambda record: record.trial_id)
    assert list(load_study("lr_vs_batch", uri).trials) == by_id
    assert_each_once(uri, ended)


def test_another_store_gets_everything(
    ended: list[TrialRecord], schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(schema, "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    assert main(RESUME) == 0
    assert len(load_study("lr_vs_batch", other).trials) == len(ended)


def test_a_store_that_was_cut_is_said_and_a_new_one_is_written(
    ended: list[TrialRecord], schema: Path, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    close_store(uri)
    os.truncate("mlflow.db", Path("mlflow.db").stat().st_size // 2)
    size = Path("mlflow.db").stat().st_size
    assert main(RESUME) == 2
    said = capsys.readouterr().err
    assert "mlflow.db is damaged (database disk image is malformed); move it away" in said
    assert "--resume writes it into a new one" in said
    assert Path("mlflow.db").stat().st_size == size
    Path("mlflow.db").rename("mlflow.db.cut")
    shutil.copy(schema, "mlflow.db")
    close_store(uri)
    assert main(RESUME) == 0
    assert len(load_study("lr_vs_batch", uri).trials) == len(ended)


def test_two_studies_of_one_name_are_told_apart(
    ended: list[TrialRecord], spec: StudySpec, uri: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "second")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    second = write_study(tmp_path / "second", spec, ended[:4])
    assert main(RESUME) == 0
    capsys.readouterr()

    assert report(["lr_vs_batch", "--output", "last"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        f"MLflow has 2 studies named lr_vs_batch; this is {second}, which was started last."
    )
    assert said[1].startswith(f"  --study-id {second}  started 20")
    assert said[1].endswith(f"  4 trials  {tmp_path}/second/runs/lr_vs_batch")
    assert said[2].endswith(f"  6 trials  {tmp_path}/runs/lr_vs_batch")
    first = said[2].split()[1]
    assert report(["lr_vs_batch", "--study-id", first, "--output", "first"]) == 0
    num_trials = [
        json.loads(page(name)["summary.json"])["num_trials"] for name in ("first", "last")
    ]
    assert num_trials == [6, 4]


@pytest.mark.slow
def test_mlflow_that_is_away_keeps_no_report_from_being_made(
    ended: list[TrialRecord],
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The store goes while the study ends."""
    from scaling.sinks.mlflow.sink import MlflowSink

    def lose(self: MlflowSink) -> dict[str, str]:
        Path("mlflow.db").unlink()
        return {}

    with monkeypatch.context() as patched:
        patched.setattr(MlflowSink, "trial_urls", lose)
        assert main(RESUME) == 1
    assert Path("reports/lr_vs_batch/report.html").exists()
    said = capsys.readouterr().err
    assert "mlflow.db is gone" in said
    assert "not everything is in MLflow yet" in said
    assert "To go on: python -m scaling.study study.yaml --resume" in said
    assert main(RESUME) == 0
    assert len(load_study("lr_vs_batch", uri).trials) == len(ended)


def test_an_interrupt_while_mlflow_is_waited_for_keeps_everything(
    ended: list[TrialRecord], uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scaling.sinks.mlflow.writer import Writer

    closed: list[float] = []
    close = Writer.close

    def interrupted(
        self: Writer, timeout_seconds: float, *, while_it_goes_on: bool = False
    ) -> None:
        closed.append(timeout_seconds)
        if len(closed) == 1:
            raise KeyboardInterrupt
        close(self, timeout_seconds, while_it_goes_on=while_it_goes_on)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "close", interrupted)
        assert main(RESUME) == 130
    assert closed == [120.0, 10.0]
    assert report(["lr_vs_batch", "--tracking-uri", uri, "--output", "again"]) == 0
    assert {run.info.status for run in runs(uri)} == {"FINISHED"}


def test_a_new_wording_is_in_the_report_and_no_trial_runs(
    ended: list[TrialRecord], spec: StudySpec, uri: str
) -> None:
    assert main([*RESUME, "--set", "question=What else?"]) == 0
    assert json.loads(page("reports/lr_vs_batch")["summary.json"])["question"] == "What else?"
    assert load_study("lr_vs_batch", uri).spec.question == "What else?"
    # And a folder that was moved is where it is.
    shutil.move("runs", "elsewhere")
    moved = ["--set", "storage=elsewhere/lr_vs_batch", "--set", "question=What else?"]
    assert main([*RESUME, *moved]) == 0
    assert str(Path("elsewhere").absolute()) in runs(uri)[0].data.tags["folder"]
