"""Studies from Python: ten lines run one, and every place it is kept gives the same result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import scaling
from tests.commands import Finished

pytestmark = pytest.mark.ray
SCRIPT = """
import sys
import scaling

assert not {"torch", "ray", "mlflow", "optuna", "pandas"} & set(sys.modules)

if __name__ == "__main__":
    study = scaling.Study.read("study.yaml", ["scientific.global_batch_size=[16, 64, 256]"])
    assert "search: 3 trials" in study.plan()
    result = study.run()
    assert set(result.trials.status) == {"done"}
    try:
        study.run()
    except scaling.RefusedError as error:
        print("refused:", error)
    again = study.run(resume=True)
    assert again.trials.equals(result.trials)
    within = result.recommend(deadline_seconds=1e6)
    assert within["meets_limits"]
    print("best:", within["global_batch_size"])
"""
STUDY = """
name: quadratic
question: From Python?
workload: {task: noisy_quadratic}
scientific: {global_batch_size: [16, 64]}
fixed: {optimizer: sgd, peak_lr: 0.1}
budget: {steps: 200}
evaluation: {growth_ratio: 1.5}
search: {trials_per_cell: 1}
"""


def report_of(finished: Finished) -> Path:
    return finished.folder / "reports" / "pronunciation"


def uri_of(finished: Finished) -> str:
    return f"sqlite:///{finished.folder / 'mlflow.db'}"


@pytest.mark.ci
@pytest.mark.slow
def test_ten_lines_run_a_study(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "go.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "go.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "refused: study quadratic already exists" in done.stdout
    assert "study.run(resume=True)" in done.stdout
    assert "best: " in done.stdout


@pytest.mark.slow
def test_a_study_is_loaded_from_wherever_it_is(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    written = json.loads((report_of(finished) / "summary.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri_of(finished))
    by_name = scaling.load("pronunciation")
    assert json.loads(json.dumps(by_name.summary)) == written
    folder = finished.folder / "runs" / "pronunciation"
    by_folder = scaling.load(folder)
    assert by_folder.trials.drop(columns=["incidents"]).equals(
        by_name.trials.drop(columns=["incidents"])
    )
    assert {"trial_id", "step", "examples", "validation_loss"} <= set(by_folder.curves.columns)
    assert len(by_folder.curves) > len(by_folder.trials)
    report = scaling.load(report_of(finished))
    assert list(report.trials.trial_id) == list(by_name.trials.trial_id)
    assert report.curves.empty
    assert report.summary == written
    monkeypatch.chdir(finished.folder.parent)
    from_mlflow = scaling.load("pronunciation", tracking_uri=uri_of(finished))
    assert list(from_mlflow.trials.validation_loss) == list(by_name.trials.validation_loss)


def test_figures_recommendations_and_what_a_notebook_shows(finished: Finished) -> None:
    result = scaling.load(finished.folder / "runs" / "pronunciation")
    chart = result.figure("loss_vs_lr")
    assert chart.to_dict(validate=False)["layer"]
    with pytest.raises(LookupError, match=r"no figure 'loss'; there are loss_and_time, loss_vs_lr"):
        result.figure("loss")
    for limit, words in (
        ({"num_workers": 0}, r"recommendation\.num_workers: must be above 0 \(got 0"),
        ({"deadline": 60}, r"recommendation\.deadline: unknown key"),
    ):
        with pytest.raises(scaling.StudyFileError, match=words):
            result.recommend(**limit)
    assert result.recommend(deadline_seconds=1e6)["reason"].startswith("Over seeds no recipe beats")
    shown = result._repr_html_()
    assert "<table>" in shown
    assert result.sweep.question in shown
    report = result.write_report(finished.folder / "written")
    assert report.exists()


def test_what_does_not_exist_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LookupError, match="holds neither a study's state nor a report"):
        scaling.load(tmp_path)
    with pytest.raises(scaling.StudyFileError, match="budget"):
        scaling.Study(name="x", question="?", workload={"task": "noisy_quadratic"})
