"""The command line refuses a bad study file: exit status 2, the field named, soon and lightly."""

import subprocess
import sys
from pathlib import Path

import pytest

from scaling.study import main

GOOD = """
name: noisy_quadratic
question: Are S_min and E_min found again?
workload: {task: noisy_quadratic}
fixed: {optimizer: sgd, global_batch_size: 64, peak_lr: 0.3}
budget: {steps: 600}
evaluation: {growth_ratio: 1.05}
search: {trials_per_cell: 1}
"""

RUN_AND_LIST_HEAVY_MODULES = """
import runpy, sys
try:
    runpy.run_module("scaling.study", run_name="__main__")
except SystemExit as end:
    heavy = {"torch", "ray", "optuna", "mlflow", "transformers", "datasets"} & set(sys.modules)
    print("heavy:", *sorted(heavy))
    raise
"""

BAD: dict[str, tuple[str, str]] = {
    "missing": (GOOD.replace("budget: {steps: 600}", ""), "budget: is required"),
    "misspelt": (GOOD.replace("peak_lr", "peek_lr"), "fixed.peek_lr: unknown key; did you mean"),
    "wrong type": (GOOD.replace("600", "many"), "budget.steps: must be a whole number"),
    "out of range": (GOOD.replace("0.3", "-0.3"), "fixed.peak_lr: must be above 0"),
    "infeasible batch": (
        GOOD + "resources: {num_workers: 3}\n",
        "fixed.global_batch_size: must be a multiple of resources.num_workers 3",
    ),
    "empty": ("", "study.yaml: is empty"),
    "not YAML": ("name: [1,\n", "study.yaml: line 2, column 1: is not YAML"),
    "aliases": ("name: &x [1]\nquestion: [*x, *x]\n", "name: line 1, column 7: anchors"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    content, message = BAD[kind]
    file = tmp_path / "study.yaml"
    file.write_text(content, encoding="utf-8")
    assert main([str(file)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: there is no such file" in capsys.readouterr().err


def test_bad_override_is_refused_before_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert main([str(file), "--plan", "--set", "budget.steps=0", "--set", "seed=x"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'seed: must be a whole number (got "x"; allowed: a whole number at least 0 '
        "and below 2147483648)",
        "budget.steps: must be above 0 (got 0; allowed: a whole number above 0)",
    ]


def test_refusal_imports_nothing_heavy(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace("peak_lr", "peek_lr"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_HEAVY_MODULES, str(file)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2, ran
    assert ran.stdout.strip() == "heavy:"


FROM_HUB = """
name: from_hub
question: Does a hub that cannot be reached cost a minute?
workload:
  task: causal_lm
  model: {pretrained: no/such-model}
  data: {source: "builtin:python_topics", max_length: 32}
fixed: {global_batch_size: 8, peak_lr: 1.0e-3}
budget: {steps: 2}
evaluation: {every_steps: 1}
search: {trials_per_cell: 1}
"""


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://no-such-host.invalid")
    file = tmp_path / "study.yaml"
    file.write_text(FROM_HUB + f"storage: {tmp_path / 'runs'}\n", encoding="utf-8")
    # Not forked: the hub's client reads its environment when it is imported.
    command = [sys.executable, "-m", "scaling.study", str(file), "--output", "report"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran
    assert "from no/such-model: We couldn't connect" in ran.stderr
    assert "Retrying" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_study_that_fails_before_its_first_trial_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(GOOD, encoding="utf-8")

    def failing(tasks: object) -> None:
        raise AttributeError("a mistake here")

    monkeypatch.setattr("scaling.driver.environment.describe", failing)
    for _ in range(2):  # and the second time it is no study that exists already
        with pytest.raises(AttributeError, match="a mistake here"):
            main(["study.yaml"])
    assert not Path("runs/noisy_quadratic").exists()
