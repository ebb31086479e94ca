"""Seeds in tables: unstable at one rate, stuck at the initial loss, or none."""

import json
import math
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.statistics.uncertainty import excess_variances, seed_variance
from scaling.report.foreign_tables.sweep_table import SweepTable, read_table
from scaling.report.summary import summarize
from scaling.report.words.headline import headline

BATCHES = (32, 64, 128, 256)
RATES = tuple(1e-4 * 2**step for step in range(9))
NOISE = 0.004
Loss = Callable[[int, float, int, float], float]


def read(folder: Path, twist: Loss, num_seeds: int = 3, *, seeds: bool = True) -> SweepTable:
    """Every batch × rate × seed, the planted loss changed by `twist`."""
    rng = random.Random(3)
    lines = ["global_batch_size,peak_lr,validation_loss" + ",seed" * seeds]
    for batch in BATCHES:
        for rate in RATES:
            for seed in range(num_seeds):
                loss = 2 + 0.05 * math.log(rate / best(batch)) ** 2 + rng.gauss(0, NOISE)
                line = f"{batch},{rate},{twist(batch, rate, seed, loss)}"
                lines.append(line + f",{seed}" * seeds)
    path = folder / "sweep.csv"
    path.write_text("\n".join(lines))
    return read_table(path)


def best(batch: int) -> float:
    return 0.002 * math.sqrt(batch / 64)


def assert_sharp(findings: Findings) -> None:
    """Every best rate has an interval of less than a factor of 1.5 with the truth in it."""
    for cell in findings.cells:
        low, high = cell.best_peak_lr_bounds or (0.0, math.inf)
        assert low < best(cell.global_batch_size or 0) * 1.05
        assert high > best(cell.global_batch_size or 0) / 1.05
        assert high / low < 1.5


@pytest.mark.parametrize(
    ("losses", "factor"), [((3.1, 5.6, 8.9), 2), ((2.0, 2.1, 6.0), 4), ((0, 9.0, 0), 2)]
)
def test_a_rate_that_is_unstable_in_some_seeds_leaves_the_intervals_as_they_are(
    losses: tuple[float, ...], factor: int, tmp_path: Path
) -> None:
    """In every cell, a step or two above the best rate: noise is local."""

    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        near = min(RATES, key=lambda one: abs(math.log(one / best(batch))))
        return losses[seed] or loss if rate == near * factor else loss

    findings = analyse(read(tmp_path, twist).sweep)
    assert_sharp(findings)
    low, high = findings.lr_scaling.exponent.interval or (0.0, 1.0)
    assert 0.4 < low < 0.51
    assert 0.49 < high < 0.6
    assert findings.sweep.loss_noise is not None
    assert math.sqrt(findings.sweep.loss_noise.variance) == pytest.approx(NOISE, rel=0.3)


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_a_seed_at_its_initial_loss_is_named_and_set_aside(num_seeds: int, tmp_path: Path) -> None:
    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        return 10.8 if (batch, rate, seed) == (128, RATES[5], 1) else loss

    table = read(tmp_path, twist, num_seeds)
    (note,) = (note for note in table.notes if "Set aside" in note)
    for words in ("1 run", "128 at 0.0032, seed 1", "10.8", "its recipe's other seeds"):
        assert words in note
    summary = summarize(analyse(table.sweep))
    assert summary["num_failed"] == 1
    assert summary["incidents"][0]["kind"] == "failed"
    (cell,) = (c for c in summary["cells"] if c["global_batch_size"] == 128)
    assert cell["validation_loss"] == pytest.approx(2.0, abs=0.02)
    assert_sharp(analyse(table.sweep))


def test_a_rate_that_does_not_learn_is_no_stuck_seed(tmp_path: Path) -> None:
    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        del batch
        return 10.8 if rate == RATES[0] and seed < 2 else loss

    table = read(tmp_path, twist)
    assert not [note for note in table.notes if "Set aside" in note]


def test_without_seeds_nothing_is_said_of_paired_ones(tmp_path: Path) -> None:
    def plain(batch: int, rate: float, seed: int, loss: float) -> float:
        del batch, rate, seed
        return loss

    table = read(tmp_path, plain, 1, seeds=False)
    reason = summarize(analyse(table.sweep))["recommendation"]["reason"]
    assert "do not distinguish" not in reason
    assert "Its recipe has no two seeds" in reason
    said = headline(analyse(table.sweep))
    assert "do not distinguish" not in said
    assert "without more seeds it is not known whether the difference is noise" in said


@pytest.mark.parametrize("new_seeds", [(1, 2, 3), (42, 2, 3)])
def test_one_recipe_repeated_at_the_rate_as_shown_tells_which_batches_tie(
    new_seeds: tuple[int, ...], tmp_path: Path
) -> None:
    """The sweep had 0.0020063 and the report shows 0.002; only that batch has seeds."""
    rng = random.Random(5)
    lines = ["global_batch_size,peak_lr,validation_loss,seed"]
    for batch, floor in ((32, 2.01), (64, 2.0), (256, 2.3)):
        for step in range(-3, 4):
            rate = 1.00315 * best(batch) * 2**step
            loss = floor + 0.05 * math.log(rate / best(batch)) ** 2 + rng.gauss(0, NOISE / 4)
            lucky = 0.002 * (batch == 64 and step == 0)
            lines.append(f"{batch},{rate},{loss - lucky},42")
    lines += [f"64,0.002,{2.002 + place * NOISE},{seed}" for place, seed in enumerate(new_seeds)]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    table = read_table(path)
    joined = [note for note in table.notes if "repeated at the same rate" in note]
    findings = analyse(table.sweep)
    (cell,) = (cell for cell in findings.cells if cell.global_batch_size == 64)
    if 42 in new_seeds:
        assert not joined
        return
    assert joined
    assert cell.num_seeds == 4
    assert "do not distinguish it from a batch of 32;" in headline(findings)


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("num_rates", [5, 9])
def test_a_clean_table_is_not_undertuned_and_one_at_its_edge_is(
    num_rates: int, num_seeds: int, tmp_path: Path
) -> None:
    rng = random.Random(num_rates)
    lines = ["global_batch_size,peak_lr,validation_loss,seed"]
    for batch, centre in ((32, 0.002), (128, 0.003), (512, 0.05)):
        for step in range(num_rates):
            rate = 0.002 * 3 ** (step - (num_rates - 1) / 2)
            for seed in range(num_seeds):
                loss = 2 + 0.05 * math.log(rate / centre) ** 2 + rng.gauss(0, 0.002)
                lines.append(f"{batch},{rate},{loss},{seed}")
    if num_rates == 9:
        lines = [line for line in lines if not line.startswith("512") or "0.1" not in line]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    clean, other, edge = analyse(read_table(path).sweep).cells
    assert clean.undertuned == other.undertuned == ()
    if num_rates == 5:
        assert edge.undertuned


def test_variances_of_most_groups() -> None:
    groups = [{0: 1.0, 1: 1.0 + gap} for gap in (0.01, 0.02, 0.015, 0.012, 0.018)]
    wild = [{0: 1.0, 1: 4.0}, {0: 2.0, 1: 9.0}]
    assert [excess > 0 for excess in excess_variances(groups + wild)] == [False] * 5 + [True] * 2
    with_wild, without = seed_variance(groups + wild), seed_variance(groups)
    assert with_wild == without
    assert excess_variances([{0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}]) == [0.0, 0.0]
    assert json.dumps(excess_variances(groups[:1])) == "[0.0]"


def test_losses_rounded_so_far_that_most_seeds_agree_leave_no_rate_unstable(tmp_path: Path) -> None:
    """In the middle two seeds differ by the last decimal; elsewhere they are the same."""
    lines = ["global_batch_size,peak_lr,validation_loss,seed"]
    for batch in BATCHES:
        for rate in (0.0005, 0.001, 0.002, 0.004, 0.008):
            away = math.log(rate / best(batch))
            for seed in (0, 1):
                differs = 0.01 * seed if abs(away) < 0.4 else 0.0
                lines.append(f"{batch},{rate},{2 + 0.05 * away**2 + differs:.2f},{seed}")
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    for cell in analyse(read_table(path).sweep).cells:
        assert cell.curve is not None
        assert cell.curve.diverged == ()


def test_rounding_is_the_least_that_seeds_vary_by() -> None:
    same = [{0: 2.0, 1: 2.0}, {0: 2.1, 1: 2.1}, {0: 2.3, 1: 2.3}]
    assert excess_variances([*same, {0: 2.4, 1: 2.5}]) == [0.0] * 4
    assert excess_variances([*same, {0: 2.4, 1: 9.0}])[3] > 100
    found = seed_variance([*same, {0: 2.4, 1: 9.0}])
    assert found is not None
    assert found.variance == pytest.approx(0.1**2 / 12)
    alike = seed_variance(same)
    assert alike is not None
    assert alike.variance == 0


def test_a_rate_stuck_in_half_its_seeds_at_every_batch_diverged(tmp_path: Path) -> None:
    """The other seed of it has the lowest loss of all, and is not recommended."""

    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        del batch
        return (10.8 if seed else 1.9) if rate == RATES[7] else loss

    table = read(tmp_path, twist, 2)
    (note,) = (note for note in table.notes if "stuck at one rate" in note)
    assert "diverged" in note
    assert "4 runs" in note
    summary = summarize(analyse(table.sweep))
    assert summary["num_failed"] == 0
    assert summary["recommendation"]["peak_lr"] < RATES[7]
    for cell in summary["cells"]:
        assert cell["recipe_peak_lr"] != RATES[7]
    assert summary["num_diverged"] == 4


def test_the_other_of_two_seeds_is_no_result_by_itself(tmp_path: Path) -> None:
    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        return (10.8 if seed else 1.9) if (batch, rate) == (128, RATES[7]) else loss

    summary = summarize(analyse(read(tmp_path, twist, 2).sweep))
    assert summary["num_failed"] == 1
    (cell,) = (c for c in summary["cells"] if c["global_batch_size"] == 128)
    assert cell["recipe_peak_lr"] != RATES[7]


def test_at_the_one_rate_of_a_table_stuck_seeds_failed(tmp_path: Path) -> None:
    lines = ["global_batch_size,peak_lr,validation_loss,seed"]
    for batch in BATCHES:
        stuck = {32: 0, 128: 1}.get(batch)
        lines += [f"{batch},0.001,{10.8 if s == stuck else 2 + s / 500},{s}" for s in range(4)]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    summary = summarize(analyse(read_table(path).sweep))
    assert summary["num_failed"] == 2
    assert all(cell["validation_loss"] < 2.1 for cell in summary["cells"])


def test_of_two_rates_with_one_seed_the_nearer_joins_the_repeated_recipe(tmp_path: Path) -> None:
    lines = ["global_batch_size,peak_lr,validation_loss,seed"]
    lines += ["64,0.0003122,2.01,0", "64,0.0003098,2.02,0"]
    lines += [f"64,0.00031,2.0{seed},{seed}" for seed in (1, 2, 3)]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    rows = read_table(path).sweep.rows
    assert [row.recipe_key == rows[2].recipe_key for row in rows] == [False, True, True, True, True]


def test_a_stuck_loss_below_zero_is_shown_with_its_sign(tmp_path: Path) -> None:
    def twist(batch: int, rate: float, seed: int, loss: float) -> float:
        stuck = batch == 64 and seed == 0 and abs(math.log(rate / best(64))) < 0.4
        return 1.0 if stuck else loss - 5

    notes = " ".join(read(tmp_path, twist).notes)
    assert "beside -3.0" in notes


def test_recipes_that_differ_in_their_warmup_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = ["global_batch_size,peak_lr,warmup_steps,seed,validation_loss"]
    for seed, (batch, rate, warmup, _) in enumerate(product((16, 64), RATES, (0, 200), range(2))):
        loss = 2 + 0.05 * math.log(rate / best(batch)) ** 2 + 0.1 * (not warmup)
        lines.append(f"{batch},{rate},{warmup},{seed},{loss + rng.gauss(0, NOISE)}")
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    noise = read_table(path).sweep.loss_noise
    assert noise is not None
    assert math.sqrt(noise.variance) == pytest.approx(NOISE, rel=0.4)
