"""Runs of several sizes from a table: what the report says, and what is said of bad input."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from scaling.report.__main__ import main
from tests.report.test_every_report import reasons_of_nothing, without_why

HEADER = "N,D,global_batch_size,peak_lr,validation_loss"
SIZES = ((1e7, 2e8), (2e7, 4e8), (2e7, 1.6e9), (8e7, 8e8), (8e7, 6.4e9))


def best(num_parameters: float, num_tokens: float) -> tuple[float, float]:
    """The planted bottom: rate and batch."""
    n, d = num_parameters / 2e7, num_tokens / 1e9
    return 2e-3 * n**-0.4 * d**0.2, 64 * d**0.5


def planted(path: Path, sizes: tuple[tuple[float, float], ...] = SIZES) -> Path:
    """A table with a known bottom at every size."""
    rng, lines = np.random.default_rng(0), [HEADER]
    for num_parameters, num_tokens in sizes:
        rate, batch = best(num_parameters, num_tokens)
        floor = 1.7 + 400 * num_parameters**-0.34 + 800 * num_tokens**-0.37
        for size in (8, 16, 32, 64, 128, 256, 512):
            for peak_lr in 5e-4 * 2.0 ** np.arange(6):
                u, v = math.log2(peak_lr / rate), math.log2(size / batch)
                height = 0.3 * u**2 - 0.15 * u * v + 0.3 * v**2
                loss = floor * math.exp((height + rng.normal(0, 0.05)) / 100)
                lines.append(f"{num_parameters},{num_tokens},{size},{peak_lr},{loss}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("ladder")
    asked = ["--predict", "N=1.6e8,D=1.3e10", "--predict", "D=4e8,N=4e7"]
    status = main(
        ["--from-csv", str(planted(folder / "runs.csv")), "--scale", "N", "--scale", "D", *asked,
         "--tokens-per-example", "1000", "--output", str(folder / "report")]
    )  # fmt: skip
    assert status == 0
    figures = {path.stem for path in (folder / "report" / "figures").glob("*.svg")}
    assert {"best_rate_vs_compute", "best_batch_vs_compute", "loss_vs_rate_by_size"} <= figures
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Predictions from runs of several sizes" in text
    assert "### Back-test" in text
    return json.loads((folder / "report" / "summary.json").read_text(encoding="utf-8"))


def test_a_planted_bottom_is_predicted(summary: dict) -> None:
    ladder = summary["ladder"]
    assert ladder["scale"] == ["N", "D"]
    for found, size in zip(ladder["predictions"], ((1.6e8, 1.3e10), (4e7, 4e8)), strict=True):
        assert found["scale"] == {"N": size[0], "D": size[1]}
        rate, batch = best(*size)
        low, high = found["peak_lr_interval"]
        assert low < rate < high < 3 * low
        low, high = found["global_batch_size_interval"]
        assert low < batch < high < 3 * low
        assert 0 <= found["expected_regret_ratio"] < 2e-3
        assert found["compute_factor"] == pytest.approx(size[0] * size[1] / (8e7 * 6.4e9))
        sizes = [point["global_batch_size"] for point in found["path"]]
        assert sizes == sorted(sizes)
        assert min(sizes) < found["global_batch_size"] < max(sizes)
        rates = [point["peak_lr"] for point in found["path"]]
        assert rates == sorted(rates)  # the planted valley is tilted


def test_exponents_are_those_planted(summary: dict) -> None:
    exponents = summary["ladder"]["exponents"]
    planted_ones = {"peak_lr": {"N": -0.4, "D": 0.2}, "global_batch_size": {"N": 0.0, "D": 0.5}}
    for output, by_name in planted_ones.items():
        for name, value in by_name.items():
            low, high = exponents[output][name]["interval"]
            assert low < value < high


def test_the_largest_sizes_are_left_out_and_predicted(summary: dict) -> None:
    tested = summary["ladder"]["back_test"]
    assert [entry["scale"] for entry in tested] == [{"N": 8e7, "D": 8e8}, {"N": 8e7, "D": 6.4e9}]
    for entry in tested:
        assert entry["inside"]
        low, high = entry["regret_ratio_interval"]
        assert low <= entry["regret_ratio"] <= high
        assert entry["regret_ratio"] < 5e-4
        assert set(entry["regret_ratio_formulas"]) == {"step_law", "deepseek", "minicpm"}
    assert tested[-1]["regret_ratio_copied"] > tested[-1]["regret_ratio"]


def test_the_recommendation_is_the_first_prediction(summary: dict) -> None:
    first, found = summary["ladder"]["predictions"][0], summary["recommendation"]
    assert found["global_batch_size"] == first["global_batch_size"]
    assert found["peak_lr"] == first["peak_lr"]
    assert summary["lr_scaling"]["exponent"] is None
    assert summary["lr_scaling"]["why"]["exponent"]
    assert summary["critical_batch_size"]["steps_examples"]["why"]["value"]
    assert {"N", "D", "global_batch_size"} == set(summary["cells"][0]["cell"])


def test_the_headline_says_the_prediction_and_no_run_that_was_made(summary: dict) -> None:
    headline = summary["headline"]
    first = summary["ladder"]["predictions"][0]
    assert f"run a batch of {first['global_batch_size']:,} [" in headline
    assert "Recommended" not in headline
    sentences = re.split(r"(?<=\.) (?=[A-Z])", headline)
    assert 3 <= len(sentences) <= 8
    assert all(len(sentence.split()) <= 30 for sentence in sentences)
    tested = len(summary["ladder"]["back_test"])
    assert any(s.startswith(f"With each of the {tested} largest sizes") for s in sentences)


def test_every_null_says_why(summary: dict) -> None:
    assert list(without_why(summary)) == []
    assert list(reasons_of_nothing(summary)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "N", "--where", "N=10000000"], "1 size, and a ladder needs at least two"),
        (["--scale", "N", "D", "--where", "N=20000000"], "every run has the same N"),
        (["--scale", "params"], "--scale: no column 'params'"),
        (["--scale", "N", "D", "--predict", "N=1e8"], "no 'D'; give N=VALUE,D=VALUE"),
        (["--scale", "N", "D", "--predict", "N=1e8,D=-1"], "'D=-1' must be a finite number above"),
        (["--scale", "N", "D", "--predict", "N=1e8,T=1"], "'T' is not named by --scale"),
        (["--scale", "N", "D", "--predict", "N=1e8,N=1"], "'N' is given twice"),
        (["--scale", "N", "D", "--predict", "1e8"], "'1e8' is not NAME=VALUE"),
        (["--scale", "N", "D", "--tokens-per-example", "0"], "must be a finite number above 0"),
        (["--predict", "N=1e8"], "--predict needs --scale COLUMN"),
        (["--scale", "N", "N"], "one column or two different ones"),
        (["--scale", "N", "D", "peak_lr"], "one column or two different ones"),
        (["--scale", "N", "D", "--where", "global_batch_size=64"], "every run has the same batch"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    path = planted(tmp_path / "runs.csv")
    assert main(["--from-csv", str(path), *options, "--output", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_size_that_is_not_positive_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = planted(tmp_path / "runs.csv")
    path.write_text(path.read_text(encoding="utf-8") + "0,1e9,64,0.001,3.0\n", encoding="utf-8")
    assert main(["--from-csv", str(path), "--scale", "N", "D"]) == 2
    assert "column 'N': '0' must be a number above 0" in capsys.readouterr().err
