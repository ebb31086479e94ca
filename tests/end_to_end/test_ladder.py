"""A ladder on a planted table, from its file to a checked prediction and its back-test."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from tests.end_to_end.studies import write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SIZES = [(1e6, 2e7), (3e6, 5e7), (9e6, 1.5e8), (2.7e7, 4e8), (8.1e7, 1e9)]
ASKED = (2.4e8, 3e9)
STUDY: dict[str, Any] = {
    "name": "ladder",
    "question": "Which batch and rate should the next size up use?",
    "workload": {
        "task": "table", "file": "runs.csv", "between": "interpolated", "noise_ratio": 2e-4,
        "columns": {"global_batch_size": "bs", "peak_lr": "lr"}, "where": {"N": 1e6},
        "validation_loss_column": "loss",
    },
    "scientific": {"global_batch_size": [8, 16, 32, 64, 128, 256, 512, 1024]},
    "nuisance": {"peak_lr": {"log_uniform": [1.0e-4, 3.0e-2]}},
    "budget": {"steps": 100},
    "evaluation": {"every_steps": 100},
    "search": {"num_trials": 48, "stop": None, "round_size": 12},
    "ladder": {
        "sizes": [{"workload.where": {"N": n, "D": d}} for n, d in SIZES],
        "predict": [{"workload.where": {"N": ASKED[0], "D": ASKED[1]}}],
        "check": {"num_seeds": 2},
    },
    "confirm": {"num_seeds": 2},
    "resources": {"num_workers": 1},
}  # fmt: skip


def bottom(n: float, d: float) -> tuple[float, float]:
    """Best rate and batch, planted."""
    return 2e-3 * (n / 9e6) ** -0.3 * (d / 1.5e8) ** 0.1, 64 * (d / 1.5e8) ** 0.4


def loss(n: float, d: float, batch: float, rate: float) -> float:
    best_rate, best_batch = bottom(n, d)
    u, v = math.log2(rate / best_rate), math.log2(batch / best_batch)
    percent = 0.3 * u**2 * math.exp(0.3 * math.tanh(u)) - 0.15 * u * v + 0.2 * v**2
    return (1.7 + 20 * n**-0.25 + 30 * d**-0.25) * math.exp(percent / 100)


def write_table(path: Path) -> None:
    rates = [1e-4 * 2 ** (k / 2) for k in range(17)]
    batches = STUDY["scientific"]["global_batch_size"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["N", "D", "bs", "lr", "loss"])
        for (n, d), batch, rate in itertools.product(SIZES, batches, rates):
            writer.writerow([n, d, batch, rate, loss(n, d, batch, rate)])


def test_small_sizes_foretell_the_large_one_and_a_check_agrees(tmp_path: Path) -> None:
    write_table(tmp_path / "runs.csv")
    write_study(tmp_path, STUDY)
    ended = run(tmp_path, "ladder.yaml")
    assert ended.status == 0, ended.stderr
    summary = json.loads((tmp_path / "reports/ladder/summary.json").read_text())
    ladder = summary["ladder"]
    assert ladder["scale"] == ["N", "D"]

    [prediction] = ladder["predictions"]
    rate, batch = prediction["peak_lr"], prediction["global_batch_size"]
    least = loss(*ASKED, *reversed(bottom(*ASKED)))
    assert prediction["scale"] == {"N": ASKED[0], "D": ASKED[1]}
    assert loss(*ASKED, batch, rate) / least - 1 < 0.003
    assert prediction["compute_factor"] == pytest.approx(
        ASKED[0] * ASKED[1] / (SIZES[-1][0] * SIZES[-1][1])
    )
    assert summary["recommendation"]["global_batch_size"] == batch
    assert summary["recommendation"]["peak_lr"] == rate

    assert [tested["scale"]["N"] for tested in ladder["back_test"]] == [2.7e7, 8.1e7]
    for tested in ladder["back_test"]:
        assert tested["regret_ratio"] < 0.003
        assert tested["regret_ratio"] < tested["regret_ratio_copied"]

    check = ladder["check"]
    assert check["scale"] == {"N": SIZES[-1][0], "D": SIZES[-1][1]}
    assert [recipe["is_prediction"] for recipe in check["recipes"]] == [True] + [False] * 4
    assert all(recipe["num_seeds"] == 2 for recipe in check["recipes"])
    assert all(recipe["excess"] > 0 for recipe in check["recipes"][1:])

    trials = [
        json.loads(line)
        for line in (tmp_path / "runs/ladder/trials.jsonl").read_text().splitlines()
    ]
    phases = [trial["phase"] for trial in trials]
    assert (phases.count("search"), phases.count("confirm"), phases.count("check")) == (48, 2, 10)
    assert all(trial["scale"]["N"] < 8e7 for trial in trials if trial["phase"] != "check")
    assert {trial["scale"]["N"] for trial in trials if trial["phase"] == "confirm"} == {2.7e7}
    cells = summary["cells"]
    assert {cell["cell"]["N"] for cell in cells} == {n for n, _ in SIZES}
    assert summary["lr_scaling"]["exponent"] is None
    assert summary["critical_batch_size"]["steps_examples"]["value"] is None

    again = run(tmp_path, "ladder.yaml", "--resume", "--set", "ladder.check.num_seeds=3")
    assert again.status == 2
    assert "ladder.check.num_seeds" in again.stderr
