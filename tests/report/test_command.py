"""`python -m scaling.report` as a user runs it."""

import csv
import json
import math
from pathlib import Path

import pytest

from scaling.report.__main__ import main
from scaling.sinks import resolve_tracking_uri
from tests.commands import run

# Zhang et al. 2024 (arXiv:2410.21676), 85M parameters
STEPS = (46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600)


def test_two_columns_fit_the_critical_batch_alone(tmp_path: Path) -> None:
    lines = [f"{64 * 2**index},{steps}" for index, steps in enumerate(STEPS)]
    (tmp_path / "85m.csv").write_text("\n".join(["global_batch_size,steps_to_target", *lines]))
    done = run(tmp_path, "--from-csv", "85m.csv", module="scaling.report")
    assert done.status == 0, done.stderr
    assert not done.stderr
    summary = json.loads((tmp_path / "reports" / "85m" / "summary.json").read_text())
    fit = summary["critical_batch_size"]["steps_examples"]
    assert fit["value"] == pytest.approx(2191, abs=1)
    assert fit["interval"][0] < 2191 < fit["interval"][1]
    assert summary["lr_scaling"]["exponent"] is None
    assert summary["cells"][0]["best_peak_lr"] is None


def test_a_grid_of_rates_gives_an_exponent(tmp_path: Path) -> None:
    """The layout of a published sweep: their names, two models in one file, a cliff."""
    with (tmp_path / "grid.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["N", "lr", "bs", "smooth loss"])
        for size in (1, 2):
            for batch in (32, 64, 128, 256, 512):
                for step in range(10):
                    lr = 2.5e-4 * math.sqrt(2) ** step
                    loss = 2.4 + 0.05 * math.log(lr / (1e-3 * (batch / 128) ** 0.5)) ** 2
                    writer.writerow([size, lr, batch, 7.0 if step == 9 else loss])
    names = ("bs=global_batch_size", "lr=peak_lr", "smooth loss=validation_loss")
    renames = ["--rename", *names[:2], "--rename", names[2]]
    arguments = ["--from-csv", "grid.csv", *renames, "--where", "N=2", "--output", "out"]
    done = run(tmp_path, *arguments, module="scaling.report")
    assert done.status == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["num_trials"] == 50
    assert summary["lr_scaling"]["exponent"] == pytest.approx(0.5, abs=1e-3)
    assert (tmp_path / "out" / "figures" / "loss_vs_lr.svg").exists()
    assert "smooth loss" in (tmp_path / "out" / "report.md").read_text()


def test_an_unknown_study_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["no_such_study"]) == 2
    error = capsys.readouterr().err
    assert "no_such_study" in error
    assert error.count("\n") == 1
    assert "mlflow.db" in resolve_tracking_uri(None)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["name", "--from-csv", "x.csv"],
        ["name", "--rename", "a=b"],
        ["--from-csv", "x.csv", "--rename", "nothing"],
        ["--from-csv", "x.csv", "--where", "=3"],
    ],
)
def test_bad_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--num-workers", "0"], "--num-workers"),
        (["--deadline-seconds", "-1"], "--deadline-seconds"),
        (["--cost-ceiling", "5"], "cost_ceiling needs price_per_worker_hour"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("global_batch_size,steps_to_target\n16,100\n32,60\n")
    assert main(["--from-csv", str(table), *arguments, "--output", str(tmp_path / "out")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
