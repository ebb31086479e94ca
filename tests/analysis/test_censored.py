"""A seed that missed the target within its budget counts with what it is expected to take."""

import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from scaling.analysis.critical_batch.censored import with_expected_steps
from scaling.analysis.critical_batch.target_recipe import surface_of_steps, to_target_of
from scaling.analysis.critical_batch.targets import of_recipe, to_target
from scaling.analysis.findings import analyse
from scaling.analysis.next_run.one_more_run import steps_of_run, steps_spread
from scaling.analysis.statistics.uncertainty import mean_estimate
from scaling.analysis.trial_rows import Sweep, TrialRow, row_of, sweep_of
from scaling.records.measurement import Measurement
from scaling.records.outcome import left_to_target
from scaling.records.trial import Status
from scaling.report.comparison.sides import sweep_of_report
from scaling.report.document import write_report
from scaling.report.words.remarks import flags
from scaling.spec.evaluation import Target
from scaling.surface.loss_surface import LossSurface, Outcome
from scaling.surface.space import Axis, Space
from tests.analysis.recorded import fine_tuning
from tests.analysis.synthetic import study


def seeds(
    *steps: float | None,
    budget: float | None = 100.0,
    status: Status = "done",
    left: float | None = 0.03,
) -> list[TrialRow]:
    """Replicates of one recipe; a None is a seed that ran to its budget and missed the target."""
    return [
        TrialRow(
            str(seed), "confirm", "done" if reached else status, {"global_batch_size": 8}, 8,
            "recipe", seed=seed, steps=budget, examples=budget and 8 * budget, seconds=10.0,
            steps_to_target=reached, examples_to_target=reached and 8 * reached,
            seconds_to_target=reached and reached / 10, left_to_target=left,
        )
        for seed, reached in enumerate(steps)
    ]  # fmt: skip


def test_a_seed_that_missed_takes_more_than_its_budget() -> None:
    reached = of_recipe(seeds(80.0, None, 90.0))
    steps = [row.steps_to_target or 0.0 for row in reached.trials]
    assert (steps[0], steps[2]) == (80.0, 90.0)
    assert 100 < steps[1] < 130
    assert reached.num_reached == 2
    assert reached.steps.value == pytest.approx(fmean(steps))
    assert reached.examples.value == pytest.approx(8 * fmean(steps))
    assert reached.trials[1].seconds_to_target == pytest.approx(10.0 * steps[1] / 100)


def test_seeds_that_all_reached_it_stay_what_they_are() -> None:
    rows = seeds(80.0, 85.0, 90.0)
    assert with_expected_steps(rows) == tuple(rows)


@pytest.mark.parametrize(
    "rows",
    [
        seeds(80.0, None, None),
        seeds(80.0, None),
        seeds(80.0, None, 90.0, status="diverged"),
        seeds(80.0, None, 90.0, status="stopped"),
        seeds(80.0, None, 90.0, budget=None),
        seeds(80.0, None, 90.0, left=0.2),
        seeds(80.0, None, 90.0, left=None),
        seeds(80.0, None, 0.0),
    ],
    ids=[
        "most missed", "half missed", "diverged", "stopped early", "budget unknown",
        "ended far from it", "end unknown", "there before the first step",
    ],
)  # fmt: skip
def test_else_there_is_no_mean(rows: list[TrialRow]) -> None:
    assert with_expected_steps(rows) is None
    assert to_target(rows, ()).steps.value is None


def _intervals(chance_missed: float) -> tuple[float, float, float, float]:
    """Coverage and bias, in standard deviations, with the seeds that missed and without them."""
    rng = np.random.default_rng(0)
    truth, sd = math.log(100.0), 0.1
    bound = truth + sd * float(np.quantile(rng.standard_normal(100_000), 1 - chance_missed))
    covered: list[tuple[bool, bool]] = []
    centres: list[tuple[float, float]] = []
    for _ in range(1500):
        logs = truth + sd * rng.standard_normal(3)
        values = [math.exp(log) if log < bound else None for log in logs]
        counted = with_expected_steps(seeds(*values, budget=math.exp(bound)))
        if counted is None:
            continue
        ours = mean_estimate([math.log(row.steps_to_target or 0.0) for row in counted])
        others = mean_estimate([math.log(value) for value in values if value is not None])
        ends = [found.interval or (0.0, 0.0) for found in (ours, others)]
        covered.append((ends[0][0] < truth < ends[0][1], ends[1][0] < truth < ends[1][1]))
        centres.append((ours.value or 0.0, others.value or 0.0))
    shares = np.mean(covered, axis=0)
    biases = (np.mean(centres, axis=0) - truth) / sd
    return float(shares[0]), float(shares[1]), float(biases[0]), float(biases[1])


@pytest.mark.parametrize("chance_missed", [0.1, 0.25])
def test_the_mean_s_interval_covers(chance_missed: float) -> None:
    with_them, without_them, bias, flattered = _intervals(chance_missed)
    assert 0.88 < with_them < 0.95
    assert with_them > without_them
    assert abs(bias) < 0.2
    assert flattered < bias - 0.15


def test_new_seeds_count_more_than_the_luckiest_trial_of_a_search() -> None:
    """At a batch of 4 one search trial took 110 steps, and new seeds nearby 165 to 368 or more."""
    sweep = fine_tuning()
    surface = surface_of_steps(sweep)
    reached = to_target_of(sweep, 0, surface)
    assert {row.phase for row in reached.trials} == {"confirm"}
    assert reached.steps.value == pytest.approx(211, abs=1)
    assert reached.best_tuned == pytest.approx(110, abs=1)
    missed = to_target_of(sweep, 2, surface)  # 11, 12 and more than 25
    assert missed.num_reached == 2
    assert missed.steps.value is not None
    assert missed.steps.interval is not None
    assert 16 < missed.steps.value < 25
    assert missed.steps.interval[1] > 25
    said = flags(analyse(sweep))
    assert any("global_batch_size 64: 2 of 3 seeds reached the target. The" in it for it in said)


def _surface(*, with_bounds: bool) -> tuple[LossSurface, Space]:
    """Steps that fall from 400 to 12 with the batch, with misses at its lowest rates."""
    space = Space(
        tuple({"global_batch_size": size} for size in (4, 16, 64, 256)),
        (Axis("peak_lr", low=1e-4, high=1e-2, log=True),),
    )
    outcomes: list[Outcome] = []
    for cell, fewest in enumerate((400.0, 110.0, 32.0, 12.0)):
        for rate in (1.5e-4, 5e-4, 1e-3, 2e-3, 6e-3):
            steps = fewest * math.exp(0.2 * math.log(rate / 1e-3) ** 2)
            budget = 1.6 * fewest
            missed = steps > budget
            bound = budget if missed and with_bounds else None
            outcomes.append(
                Outcome(cell, {"peak_lr": rate}, None if missed else steps, at_least=bound)
            )
    return LossSurface(space, outcomes), space


def test_a_miss_at_a_large_batch_is_not_above_the_steps_of_a_small_one() -> None:
    surface, _ = _surface(with_bounds=True)
    for cell, fewest in enumerate((400.0, 110.0, 32.0, 12.0)):
        assert surface.expected(cell, {"peak_lr": 1e-3}) == pytest.approx(fewest, rel=0.1)
        assert 1.6 * fewest < surface.expected(cell, {"peak_lr": 1.5e-4}) < 5 * fewest
    # One of which nothing is known counts above its own cell's steps too.
    without, _ = _surface(with_bounds=False)
    assert without.expected(3, {"peak_lr": 1.5e-4}) < 5 * 12.0


def along(*losses: float) -> tuple[Measurement, ...]:
    return tuple(Measurement(n, 8 * n, None, n, validation_loss=v) for n, v in enumerate(losses))


def test_what_a_run_had_left_is_a_share_of_its_own_way() -> None:
    target = Target(metric="validation_loss", at_most=1.0)
    assert left_to_target(along(10.0, 1.5, 10**0.05), target) == pytest.approx(0.05)
    assert left_to_target(along(10.0, 10**-0.1), target) == pytest.approx(-0.1)
    stuck = left_to_target(along(0.70, 0.693), Target(metric="validation_loss", at_most=0.65))
    assert stuck is not None
    assert stuck > 0.8  # within 7% of the target, where it was from the start
    assert left_to_target(along(0.9, 0.8), target) is None
    assert left_to_target(along(3.0), target) is None


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"batch_ramp_at_examples": (50,)}])
def test_a_run_whose_longer_one_is_another_run_does_not_go_on(change: dict[str, Any]) -> None:
    record = study()
    trial = record.trials[0]
    assert row_of(trial, record.spec, {}).left_to_target is not None
    other = replace(trial.recipe.hyperparameters, **change)
    trial = replace(trial, recipe=replace(trial.recipe, hyperparameters=other))
    assert row_of(trial, record.spec, {}).left_to_target is None


def test_what_was_left_is_read_back_from_a_report_s_folder(tmp_path: Path) -> None:
    sweep = sweep_of(study())
    write_report(study(), tmp_path)
    read = sweep_of_report(tmp_path)
    assert [row.left_to_target for row in read.rows] == [row.left_to_target for row in sweep.rows]
    assert any(row.left_to_target is not None for row in read.rows)


def test_a_miss_takes_more_than_its_own_run_and_a_divergence_than_the_longest() -> None:
    """Of a table whose runs are of several lengths, as with a budget in seconds."""
    rows = [
        replace(
            row, trial_id=f"{n} {row.trial_id}", recipe_key=f"{n}", peak_lr=rate, steps=steps,
            status=status, choices={"peak_lr": rate}, phase="search",
        )
        for n, (rate, reached, steps, status) in enumerate(
            [
                (1e-4, None, 100.0, "done"), (3e-4, 300.0, 1000.0, "done"),
                (1e-3, 200.0, 1000.0, "done"), (2e-3, 220.0, 1000.0, "done"),
                (4e-3, 260.0, 1000.0, "done"), (7e-3, 350.0, 1000.0, "done"),
                (1e-2, 450.0, 1000.0, "done"), (1e-1, None, 5.0, "diverged"),
            ]
        )
        for row in seeds(reached)
    ]  # fmt: skip
    cells = ({"global_batch_size": 8},)
    surface = surface_of_steps(Sweep("?", "?", tuple(rows), cells, has_target=True, target=1.0))
    assert surface is not None
    first, last = surface.expected(0, rows[0]), surface.expected(0, rows[-1])
    assert first is not None
    assert last is not None
    assert 100 < first < 900
    assert last > 900


def test_new_seeds_that_missed_the_target_are_not_passed_over_for_a_lucky_trial() -> None:
    """All seeds after the search missed it at a batch of 4, some at the rate of its best trial."""
    sweep = fine_tuning()
    luckiest = min(
        (row for row in sweep.rows_of(sweep.cells[0], "search") if row.steps_to_target),
        key=lambda row: row.steps_to_target or 0.0,
    )
    rows = tuple(
        row
        if row.global_batch_size != 4 or row.phase == "search"
        else replace(
            row, steps_to_target=None, examples_to_target=None, seconds_to_target=None,
            peak_lr=luckiest.peak_lr if row.phase == "confirm_target" else row.peak_lr,
            choices={"peak_lr": luckiest.peak_lr} if row.phase == "confirm_target" else row.choices,
        )
        for row in sweep.rows
    )  # fmt: skip
    sweep = replace(sweep, rows=rows)
    reached = to_target_of(sweep, 0, surface_of_steps(sweep))
    assert {row.phase for row in reached.trials} == {"confirm_target"}
    assert (reached.steps.value, reached.above) == (None, 400)


def test_early_ends_by_divergence_bound_no_steps() -> None:
    """Three trials of the smallest batch diverged at step 5: they are not nearly there."""
    sweep = fine_tuning()
    rows = tuple(
        replace(row, status="diverged", steps=5.0, steps_to_target=None, validation_loss=None)
        if row.global_batch_size == 4
        else row
        for row in sweep.rows
    )
    sweep = replace(sweep, rows=rows)
    surface = surface_of_steps(sweep)
    assert surface is not None
    for row in sweep.rows_of(sweep.cells[0], "search"):
        expected = surface.expected(0, row)
        assert expected is not None
        assert expected > 90


def test_more_trials_than_a_surface_takes_are_not_read_by_their_lucky_seeds() -> None:
    rng = np.random.default_rng(0)
    rows: list[TrialRow] = []
    for place, (batch, fewest) in enumerate(((4, 400.0), (16, 110.0), (64, 32.0), (256, 12.0))):
        for rate in np.geomspace(2e-4, 5e-3, 6):
            for seed in range(12):
                noise = 0.3 * rng.standard_normal()
                steps = fewest * math.exp(0.2 * math.log(rate / 1e-3) ** 2 + noise)
                budget = 2 * fewest
                rows.append(
                    TrialRow(
                        f"{place} {rate} {seed}", "search", "done", {"global_batch_size": batch},
                        batch, f"{place} {rate}", peak_lr=rate, seed=seed, steps=budget,
                        validation_loss=1.0, choices={"peak_lr": rate},
                        steps_to_target=None if steps > budget else steps,
                    )
                )  # fmt: skip
    cells = tuple({"global_batch_size": batch} for batch in (4, 16, 64, 256))
    surface = surface_of_steps(Sweep("many", "?", tuple(rows), cells, has_target=True, target=1.0))
    assert surface is not None
    at_best = [row for row in rows if row.peak_lr == pytest.approx(7.2e-4, rel=0.1)]
    for row in at_best[::12]:
        place = int(row.trial_id[0])
        fewest = (400.0, 110.0, 32.0, 12.0)[place]
        assert surface.expected(place, row) == pytest.approx(fewest, rel=0.15)


def test_the_chance_is_by_the_seeds_own_scatter_where_one_missed_the_target() -> None:
    steady = of_recipe(seeds(80.0, 81.0, 79.0, 80.0, 82.0))
    late = of_recipe(seeds(40.0, None, 45.0))
    spread = steps_spread([steady, late])
    assert spread is not None
    assert spread.degrees == 4
    run = steps_of_run(late, spread)
    assert run is not None
    assert run.steps > 150
    assert run.degrees == 2
