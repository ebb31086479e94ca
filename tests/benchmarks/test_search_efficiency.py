"""Searches of a small table: what is read, what is counted, and the last line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.search_efficiency import Search, by_studies_of_their_own, read_tables, regrets_of

SCRIPT = Path(__file__).parents[2] / "benchmarks/search_efficiency.py"
BATCHES, RATES = (8, 16, 32), (0.001, 0.002, 0.004, 0.008, 0.016)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two tables that differ in Na, each with a missing run, a repeated one and diverged ones."""
    lines = ["N,D,Na,lr,bs,other,smooth loss"]
    for na in (1, 2):
        for i, batch in enumerate(BATCHES):
            for j, rate in enumerate(RATES):
                loss = 3 + na + 0.1 * (j - 1 - i) ** 2
                if (batch, rate) == (8, 0.004):
                    continue
                lines.append(f"7,9,{na},{rate},{batch},x,{'' if (i, j) == (0, 4) else loss}")
        lines.append(f"7,9,{na},0.008,32,x,{9 + na}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_for_each_size_with_the_lowest_loss_of_equal_runs(file: Path) -> None:
    one, two = read_tables(file)
    assert (one.batches, one.rates) == (BATCHES, RATES)
    assert two.losses[2, 3] == 5
    assert np.isnan(one.losses[0, 2])
    assert np.isinf(one.losses[0, 4])
    assert one.seen(0, seed=0)[0, 2] == one.losses[0, 1]  # the nearest run of the batch


def test_regret_is_over_the_best_of_each_batch_without_noise(file: Path) -> None:
    one, _ = read_tables(file)
    assert one.regrets({0: 1, 1: 2, 2: 3}).tolist() == [0, 0, 0]
    regrets = one.regrets({0: 2, 1: 3, 2: 1})
    assert regrets == pytest.approx([0, 0.1 / 4, 0.4 / 4])
    assert one.regrets({0: 4, 1: 2, 2: 3})[0] == pytest.approx(0.4 / 4)  # diverged: the worst
    assert one.for_all({1: 4}) == {0: 4, 1: 4, 2: 4}


def test_noise_changes_what_is_seen_alone(file: Path) -> None:
    one, _ = read_tables(file)
    known = np.isfinite(one.losses)
    ratio = one.seen(0.01, seed=3)[known] / one.losses[known] - 1
    assert 0.003 < ratio.std() < 0.03
    assert (one.seen(0.01, seed=3) == one.seen(0.01, seed=3)).all()
    assert (one.seen(0.01, seed=4) != one.seen(0.01, seed=3))[known].all()


def test_fewer_trials_are_the_first_of_more(file: Path) -> None:
    one, _ = read_tables(file)
    seen = one.seen(0, seed=0)
    both = by_studies_of_their_own("qmc", one, seen, (2, 9), seed=0)
    [few] = by_studies_of_their_own("qmc", one, seen, (2,), seed=0)
    assert both[0] == few


@pytest.mark.parametrize("sampler", ["surface", "qmc", "tpe", "gp", "random"])
def test_a_sampler_with_many_trials_finds_the_best_rates(file: Path, sampler: str) -> None:
    one, _ = read_tables(file)
    [regrets] = regrets_of(Search(sampler, one, 0.0, 0, (300,)))
    assert (regrets < 0.03).all()  # a step from the best one at most


def test_the_last_line_is_what_was_measured(file: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, SCRIPT, "--table", file, "--trials", "3", "9", "--seeds", "2",
            "--only", "qmc", "--noise", "0", "0.01",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {"qmc", "noise"}
    assert set(last["noise"]) == {"0.01"}
    for found in (last["qmc"], last["noise"]["0.01"]["qmc"]):
        assert set(found) == {"3", "9"}
        assert 0 <= found["9"]["share_within_quarter_percent"] <= 1
        assert found["9"]["mean_regret_ratio"] <= found["3"]["mean_regret_ratio"]
