"""Scores in tables: made large where asked for, and never taken for a loss."""

import json
import math
from pathlib import Path

import pytest

from scaling.analysis.findings import analyse
from scaling.report.__main__ import main
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.foreign_tables.table_suggestions import is_score
from scaling.report.summary import summarize

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)


def table(folder: Path, column: str, scale: float = 1.0, unit: str = "") -> Path:
    """A score that is best at .001 √(B / 64), and at 128 of three batches."""
    lines = [f"global_batch_size,peak_lr,{column},seed"]
    for batch, highest in ((64, 0.8), (128, 0.9), (256, 0.85)):
        for rate in RATES:
            for seed in (0, 1):
                away = math.log(rate / (1e-3 * math.sqrt(batch / 64)))
                score = (highest - 0.02 * away**2 + seed / 1000) * scale
                lines.append(f"{batch},{rate},{score}{unit},{seed}")
    path = folder / "scores.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("scale", "unit"),
    [
        (1.0, ""),
        pytest.param(100.0, "", marks=[pytest.mark.slow, pytest.mark.ci]),
        (100.0, "%"),
    ],
)
def test_a_score_is_made_large(scale: float, unit: str, tmp_path: Path) -> None:
    path = table(tmp_path, "val_accuracy", scale, unit)
    output = tmp_path / "out"
    assert (
        main(["--from-csv", str(path), "--maximize", "val_accuracy", "--output", str(output)]) == 0
    )
    summary = json.loads((output / "summary.json").read_text())
    assert summary["recommendation"]["global_batch_size"] == 128
    assert summary["recommendation"]["peak_lr"] in (1e-3, 2e-3)
    assert summary["metrics"]["val_accuracy"]["direction"] == "maximize"
    for cell, highest in zip(summary["cells"], (0.8, 0.9, 0.85), strict=True):
        best = cell["metrics"]["val_accuracy"]
        assert best["value"] == pytest.approx(highest * scale, abs=0.003 * scale)
        assert best["interval"][0] < best["value"] < best["interval"][1]
        true = 1e-3 * math.sqrt(cell["global_batch_size"] / 64)
        assert cell["best_peak_lr"] == pytest.approx(true, rel=0.1)
        assert cell["num_seeds"] == 2
        assert cell["validation_loss"] is None
        assert cell["train_loss"] is None
        assert cell["generalization_gap"] is None
    assert summary["lr_scaling"]["exponent"] == pytest.approx(0.5, abs=0.1)
    assert "The highest val_accuracy is" in summary["headline"]
    text = (output / "report.md").read_text()
    assert "The highest val_accuracy at the end of the budget" in text
    assert (output / "figures" / "loss_vs_lr.svg").exists()


def test_a_loss_beside_the_score_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    path.write_text(
        "global_batch_size,peak_lr,validation_loss,train_loss,f1\n"
        "32,0.1,1.0,0.9,0.5\n32,0.2,2.0,1.9,0.7\n32,0.4,3.0,2.9,0.6\n"
    )
    rows = read_table(path, maximize="f1").sweep.rows
    assert {(row.validation_loss, row.train_loss) for row in rows} == {(None, None)}
    assert [row.metrics for row in rows] == [{"f1": 0.5}, {"f1": 0.7}, {"f1": 0.6}]


@pytest.mark.parametrize(
    "column", ["val_acc", "accuracy", "test/AUC", "BLEU", "eval_f1", "roc_auc", "R2", "top1"]
)
def test_a_score_is_no_loss(column: str, tmp_path: Path) -> None:
    path = table(tmp_path, column)
    with pytest.raises(TableError, match=f"--maximize {column}"):
        read_table(path)
    with pytest.raises(TableError, match=f"--maximize {column}"):
        read_table(path, rename=[(column, "validation_loss")])
    with pytest.raises(TableError, match="no column 'accurracy'"):
        read_table(path, maximize="accurracy")


@pytest.mark.parametrize(
    "name", ["val_loss", "error_rate", "accuracy_loss", "perplexity", "precision", "accumulation"]
)
def test_what_is_no_score(name: str) -> None:
    assert not is_score(name)


def test_maximize_belongs_to_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--maximize", "accuracy"])
    assert "--maximize belong to --from-csv" in capsys.readouterr().err


def test_steps_to_the_target_stay_beside_a_score(tmp_path: Path) -> None:
    """The fewest steps are at the best rate: the surface of steps makes them small."""
    lines = ["global_batch_size,peak_lr,accuracy,steps_to_target"]
    for batch in (32, 64, 128, 256):
        for rate in RATES:
            away = math.log(rate / 1e-3) ** 2
            steps = round(100 * (1 + 200 / batch) * (1 + 0.2 * away))
            lines.append(f"{batch},{rate},{0.9 - 0.02 * away},{steps}")
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines))
    cells = summarize(analyse(read_table(path, maximize="accuracy").sweep))["cells"]
    assert [cell["steps_to_target"] for cell in cells] == [725, 412, 256, 178]
    assert [cell["best_peak_lr_for_target"] for cell in cells] == [1e-3] * 4


def test_percent_signs_are_read_in_all_rows_or_in_none(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("global_batch_size;peak_lr;acc\n32;0,001;85,5%\n32;0,002;84%\n")
    rows = read_table(path, maximize="acc").sweep.rows
    assert [row.metrics["acc"] for row in rows] == [85.5, 84.0]
    path.write_text("global_batch_size,peak_lr,acc\n32,0.001,85%\n32,0.002,0.84\n")
    with pytest.raises(TableError, match="has no percent sign"):
        read_table(path, maximize="acc")


def test_a_target_of_words_is_none_to_reach(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    lines = "32,0.001,2.0,price,640\n32,0.002,2.1,price,\n"
    header = "global_batch_size,peak_lr,validation_loss,config.target,examples_to_target\n"
    path.write_text(header + lines)
    found = read_table(path)
    assert found.sweep.target is None
    assert "Without steps_to_target these are not read: examples_to_target." in found.notes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from-csv", ""], "cannot be read"),
        (["--compare", "a", "b", "--num-workers", "2"], "limits"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert words in capsys.readouterr().err
