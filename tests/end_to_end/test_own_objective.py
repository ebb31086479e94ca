"""A metric of the user's own decides a whole study, whose confirmed models are kept."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scaling.files.names import file_name
from scaling.sinks.mlflow.load import load_study
from scaling.spec.read import read_study
from scaling.tasks.prepare import prepare_task
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import summary
from tests.end_to_end.test_own_training import section_of, write_files

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHANGES = ("search.objective=accuracy", "confirm.keep_models=true", "budget.examples=1000")
STUDIES = {
    "custom": ("A module of your own", "study.yaml", "waves"),
    "lightning": ("A LightningModule", "net.yaml", "net"),
}


@pytest.mark.parametrize("task", STUDIES)
def test_an_accuracy_of_ones_own_decides(task: str, tmp_path: Path, cluster: Cluster) -> None:
    if task == "lightning":
        pytest.importorskip("lightning")
    title, file, name = STUDIES[task]
    write_files(section_of(title), tmp_path)
    words = [word for change in CHANGES for word in ("--set", change)]
    ran = cluster.run(tmp_path, file, *words)
    assert ran.status == 0, ran.stderr
    found = summary(ran, name)
    trials = load_study(name, f"sqlite:///{tmp_path / 'mlflow.db'}").trials
    for cell in found["cells"]:
        accuracies = {
            t.recipe.hyperparameters.peak_lr: t.final.metrics["accuracy"]
            for t in trials
            if t.phase == "search" and t.final is not None
            if t.recipe.hyperparameters.global_batch_size == cell["global_batch_size"]
        }
        assert accuracies[cell["recipe_peak_lr"]] == max(accuracies.values())
        assert cell["metrics"]["accuracy"]["value"] > 0.5
    assert "accuracy" in found["recommendation"]["reason"]
    assert "nats" not in str(found)

    confirmed = [trial for trial in trials if trial.phase == "confirm"]
    assert len(confirmed) == 4
    assert len(list((tmp_path / "mlartifacts").rglob("weights.pt"))) == 4
    spec = read_study(tmp_path / file)
    prepared: Any = prepare_task(spec.workload, spec.evaluation)
    model: Any = prepared.new_model(0).eval()
    for trial in confirmed:
        kept = tmp_path / "runs" / name / "models" / file_name(trial.trial_id) / "weights.pt"
        model.module.load_state_dict(torch.load(kept, weights_only=True))
        everything = slice(0, prepared.num_evaluated("validation"))
        with torch.inference_mode():
            losses = prepared.example_losses(model, "validation", everything, torch.device("cpu"))
        assert trial.final is not None
        assert losses.loss == pytest.approx(trial.final.validation_loss, abs=1e-5)
