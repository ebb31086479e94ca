"""The command `scaling`: help at once, statuses and messages as the modules have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scaling import Study
from scaling.cli.app import app
from scaling.spec.shipped import shipped_studies, study_file
from tests.driver.test_study_command import GOOD

COMMAND = "from scaling.cli.app import main; main()"
HEAVY = {"torch", "ray", "optuna", "mlflow", "transformers", "datasets", "pandas", "altair"}


def called(*words: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, list(words))
    return found.exit_code, found.stdout, found.stderr


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    script = f"import sys\nsys.argv = ['scaling', '--help']\ntry:\n    {COMMAND}\nfinally:\n" \
        f"    print('heavy:', *sorted({HEAVY!r} & set(sys.modules)))"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    for name in ("run", "plan", "resume", "report", "compare", "status", "doctor", "ui"):
        assert f" {name} " in done.stdout
    assert "heavy:\n" in done.stdout
    before = os.times()
    subprocess.run([sys.executable, "-c", COMMAND, "--help"], capture_output=True, check=True)
    after = os.times()
    used = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    assert used < 1.5  # 0.2 s of processor time on an idle machine


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("run", "reports/NAME"), ("plan", "reports/NAME"), ("resume", "reports/NAME"),
        ("compare", "reports/A_vs_B"), ("compare", "MLFLOW_TRACKING_URI"), ("init", "DATA.yaml"),
        ("ui", "MLFLOW_TRACKING_URI"),
    ],
)  # fmt: skip
def test_help_says_what_holds_where_an_option_is_left_out(command: str, default: str) -> None:
    """Words in brackets may be Rich's markup, and would not be shown."""
    status, out, _ = called(command, "--help")
    assert status == 0
    assert default in "".join(out.replace("│", " ").split())


def test_a_bad_study_file_is_refused_as_by_the_module(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace("0.3", "-0.3"), encoding="utf-8")
    status, out, err = called("run", str(file))
    assert (status, out) == (2, "")
    assert "fixed.peak_lr: must be above 0" in err
    status, _, err = called(
        "plan", str(file), "--set", "fixed.peak_lr=0.1", "--set", "budget.steps=no"
    )
    assert status == 2
    assert "budget.steps" in err


def test_a_plan_of_a_study_that_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"lr_vs_batch", "noisy_quadratic", "joint_search"} <= set(shipped_studies())
    status, out, err = called("plan", "noisy_quadratic")
    assert (status, err) == (0, "")
    assert "search: 8 trials" in out
    assert not any(tmp_path.iterdir())
    assert Study.read("noisy_quadratic").spec.name == "noisy_quadratic"
    Path("lr_vs_batch").write_text("my own", encoding="utf-8")
    assert study_file("lr_vs_batch") == "lr_vs_batch"
    assert Path(study_file("gallery/ladder")).name == "ladder.yaml"


def test_a_table_is_reported_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{b},{lr},{2 + abs(i - 1)}" for b in (32, 64) for i, lr in enumerate((1e-3, 2e-3, 4e-3))
    ]
    text = "\n".join(["global_batch_size,peak_lr,validation_loss", *rows])
    Path("sweep.csv").write_text(text, encoding="utf-8")
    status, out, _ = called("report", "--from-csv", "sweep.csv")
    assert status == 0
    assert "report.html" in out
    status, _, _ = called("compare", "sweep.csv", "reports/sweep", "--output", "both")
    assert status == 0
    assert Path("both/report.html").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert called("report", "--from-csv=~/sweep.csv", "--output=~/again")[0] == 0
    assert called("compare", "~/sweep.csv", "~/again", "--output=~/of both")[0] == 0
    assert Path("of both/report.html").exists()
    status, _, err = called("report", "--from-csv", "none.csv")
    assert status == 2
    assert "none.csv" in err


def test_status_of_a_folder_without_studies(tmp_path: Path) -> None:
    status, out, _ = called("status", str(tmp_path))
    assert status == 2
    assert "no study keeps its state here" in out


def test_status_shows_names_as_they_are(tmp_path: Path) -> None:
    """Brackets are no markup, which would be swallowed, or end in a traceback."""
    state = tmp_path / "[red]rates[b]"
    state.mkdir()
    (state / "study.json").write_text("{", encoding="utf-8")
    status, out, _ = called("status", str(tmp_path))
    assert status == 0
    assert "[red]rates[b]" in out
    assert "cannot be read" in out


def test_doctor_says_what_is_there_and_how_to_install_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scaling.cli import doctor

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(doctor.EXTRAS, "nothing", ("no_such_package", "a test"))
    found = {one.what: one for one in doctor.findings()}
    assert found["torch"].level == found["MLflow"].level == found["Ray"].level == "good"
    assert found["extra nothing"].remedy == "pip install 'scaling[nothing]'"
    assert not any(tmp_path.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    status, out, _ = called("doctor")
    assert status == 2
    assert "bad" in out


def test_mlflow_is_told_of_its_store_where_no_other_user_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = "postgresql://user:password@host/db"
    told: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("scaling.sinks.mlflow.views.comparison_links", lambda *_: ())
    monkeypatch.setattr("subprocess.call", lambda words, env: told.append((words, env)) or 0)
    status, out, _ = called("ui", "--tracking-uri", uri)
    [(words, variables)] = told
    assert (status, variables["MLFLOW_BACKEND_STORE_URI"]) == (0, uri)
    assert "password" not in " ".join(words) + out
