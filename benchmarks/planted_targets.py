"""Studies with planted steps, critical batch sizes and gaps, for `interval_coverage`.

The noisy quadratic is simulated in law: the mean square of each dimension over the chains is a
Markov chain of its own. Its truth is the fit to the exact recursion over the same batch sizes,
which no hyperbola meets exactly.
"""

import csv
import math
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from coverage_case import Case, Flag, Reading
from numpy.typing import NDArray

from scaling.analysis.critical_batch.tradeoff import TradeoffFit, fit_tradeoff
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.records.outcome import crossing
from scaling.records.recipe import Hyperparameters, Layout, Recipe
from scaling.report.foreign_tables.sweep_table import read_table
from scaling.spec.evaluation import Target

Array = NDArray[np.float64]
Rng = np.random.Generator
BATCHES = (16, 64, 256, 1024, 4096, 32, 512)
"""The first four to seven make a study."""
MIN_STEPS, MIN_EXAMPLES = 60.0, 12000.0
GAP = 0.15
QUADRATIC = {16: 0.101, 64: 0.369, 256: 1.10, 1024: 1.63, 4096: 1.82, 16384: 1.92}
"""Best rates of the noisy quadratic (Zhang et al. 2019) by the exact recursion."""
CURVATURE = 1 / np.arange(1, 101)
TARGET = 0.01
NUM_CHAINS = 400


def cases() -> list[Case]:
    """Every case of this file."""
    return [
        Case("noisy quadratic, 5 seeds", _quadratic, _read_quadratic),
        *(
            Case(
                f"trade-off, {seeds} seeds, {trials} trials a cell",
                lambda rng, number, s=seeds, t=trials: _tradeoff(rng, number, s, t),
                lambda summary, number: _read_tradeoff(summary, number, with_steps=False),
            )
            for seeds in (3, 5)
            for trials in (6, 12)
        ),
        *(
            Case(
                f"trade-off, {seeds} seeds of a given recipe",
                lambda rng, number, s=seeds: _tradeoff(rng, number, s, 0),
                lambda summary, number: _read_tradeoff(summary, number, with_steps=True),
            )
            for seeds in (3, 5)
        ),
        *(
            Case(
                f"trade-off, csv, {seeds} rows a batch",
                lambda rng, number, s=seeds: _tradeoff_csv(rng, number, s),
                lambda summary, number, s=seeds: _read_tradeoff(summary, number, with_steps=s > 1),
            )
            for seeds in (1, 3, 5)
        ),
        *(
            Case(f"gap, {seeds} seeds", lambda rng, _, s=seeds: _gap(rng, s), _read_gap)
            for seeds in (3, 5)
        ),
        *(
            Case(
                f"gap, csv, {seeds} rows a batch",
                lambda rng, _, s=seeds: _gap_csv(rng, s),
                _read_gap,
            )
            for seeds in (1, 3, 5)
        ),
        *(
            Case(
                f"loss after fewer updates, {seeds} seeds",
                lambda rng, _, s=seeds: _updates(rng, s),
                _read_updates,
            )
            for seeds in (3, 5)
        ),
    ]


# Noisy quadratic


def _quadratic(rng: Rng, _: int) -> Sweep:
    """Five seeds at each batch size, started alike; evaluated as the shipped study is."""
    rows: list[TrialRow] = []
    starts = rng.chisquare(NUM_CHAINS, (5, len(CURVATURE))) / NUM_CHAINS
    for batch, rate in QUADRATIC.items():
        for seed, losses in enumerate(_losses(rng, batch, rate, starts)):
            rows.append(_quadratic_row(batch, rate, seed, losses))
    return _sweep(rows, tuple(QUADRATIC), target=TARGET)


def _losses(rng: Rng, batch: int, rate: float, squares: Array) -> Array:
    """Loss of the ensembles after each step, [num_seeds, num_steps + 1]."""
    decay, noise = 1 - rate * CURVATURE, rate * np.sqrt(CURVATURE / batch)
    losses: list[Array] = [0.5 * (CURVATURE * squares).sum(1)]
    while losses[-1].max() > 0.8 * TARGET and len(losses) < 1.5 * _exact_steps(batch, rate):
        along = rng.standard_normal(squares.shape)
        across = rng.chisquare(NUM_CHAINS - 1, squares.shape)
        # mean over chains of (decay · x + noise · ξ)²; ξ split along x and across it
        squares = (
            decay**2 * squares
            + 2 * decay * noise * np.sqrt(squares / NUM_CHAINS) * along
            + noise**2 * (along**2 + across) / NUM_CHAINS
        )
        losses.append(0.5 * (CURVATURE * squares).sum(1))
    return np.stack(losses, axis=1)


def _quadratic_row(batch: int, rate: float, seed: int, losses: Array) -> TrialRow:
    places = sorted({*range(20), *(round(20 * 1.015**k) for k in range(400))})
    measurements = tuple(
        Measurement(step, step * batch, step * batch, 0.01 * step, validation_loss=losses[step])
        for step in places
        if step < len(losses)
    )
    reached = crossing(measurements, Target(at_most=TARGET))
    return TrialRow(
        f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch, f"{batch}",
        peak_lr=rate, seed=seed, measurements=measurements, steps=len(losses) - 1,
        validation_loss=losses[-1], steps_to_target=reached.steps if reached else None,
        examples_to_target=reached.examples if reached else None,
        recipe=Recipe(
            seed,
            Hyperparameters(global_batch_size=batch, peak_lr=rate, num_steps=len(losses) - 1),
            Layout(micro_batch_size=batch),
        ),
    )  # fmt: skip


def _exact_steps(batch: int, rate: float) -> float:
    """Steps to the target by the exact recursion, between whole steps in log loss."""
    decay = (1 - rate * CURVATURE) ** 2
    floor = rate**2 * CURVATURE / batch / (1 - decay)

    def loss(step: int) -> float:
        return float(0.5 * (CURVATURE * (floor + decay**step * (1 - floor))).sum())

    low, high = 0, 2**20
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= TARGET else (middle, high)
    return low + math.log(loss(low) / TARGET) / math.log(loss(low) / loss(high))


def _read_quadratic(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
    truth = fit_tradeoff(list(QUADRATIC), [_exact_steps(b, r) for b, r in QUADRATIC.items()])
    assert truth.value
    assert truth.min_steps
    assert truth.min_examples
    fit, seeds = summary["critical_batch_size"]["steps_examples"], _of_many_seeds()
    return [
        Reading("critical batch", fit["interval"], truth.value),
        Reading("critical batch, seeds alone", fit["seeds_interval"], seeds.value or 0),
        Reading("min_steps, seeds alone", fit["min_steps_seeds_interval"], seeds.min_steps or 0),
        Reading(
            "min_examples, seeds alone",
            fit["min_examples_seeds_interval"],
            seeds.min_examples or 0,
        ),
        Reading("min_steps", fit["min_steps_interval"], truth.min_steps),
        Reading("min_examples", fit["min_examples_interval"], truth.min_examples),
        Flag("misfit said", fit["misfit_exceeds_seeds"]),
        *(
            Reading("steps_to_target", cell["steps_to_target_interval"], _exact_steps(b, r))
            for cell, (b, r) in zip(summary["cells"], QUADRATIC.items(), strict=True)
        ),
    ]


@cache
def _of_many_seeds() -> TradeoffFit:
    """What 1,000 seeds give: noisy losses cross a target a little early."""
    rng = np.random.default_rng(1)
    rows = [row for _ in range(200) for row in _quadratic(rng, 0).rows]
    reached = [(row.global_batch_size, row.steps_to_target) for row in rows if row.steps_to_target]
    return fit_tradeoff([b for b, _ in reached if b], [s for b, s in reached if b])


# Planted trade-off


def _batches(number: int) -> tuple[int, ...]:
    return tuple(sorted(BATCHES[: 4 + number % 4]))


def _noise(number: int) -> float:
    """Standard deviation of log steps over seeds."""
    return (0.02, 0.05, 0.1)[number // 4 % 3]


def _steps(batch: int) -> float:
    return MIN_STEPS + MIN_EXAMPLES / batch


def _tradeoff(rng: Rng, number: int, num_seeds: int, num_trials: int) -> Sweep:
    """A search over rates (a parabola of log steps), its best recipe confirmed with new seeds.

    The search misses the best rate by a little, which no seed shows; without trials none is lost.
    """
    rows: list[TrialRow] = []
    noise = _noise(number)
    for batch in _batches(number):
        shares = (np.arange(num_trials) + rng.random(num_trials)) / num_trials
        places = 4 * (shares - 0.5)
        search = [_row("search", batch, place, i, noise, rng) for i, place in enumerate(places)]
        best = min(search, key=lambda row: row.objective or 0.0, default=None)
        place = math.log(best.peak_lr or 1.0) if best else 0.0
        rows += search
        rows += [_row("confirm", batch, place, 100 + i, noise, rng) for i in range(num_seeds)]
    return _sweep(rows, _batches(number), target=1.0)


def _row(phase: str, batch: int, place: float, seed: int, noise: float, rng: Rng) -> TrialRow:
    steps = _steps(batch) * math.exp(0.05 * place**2 + noise * rng.standard_normal())
    return TrialRow(
        f"{phase}-{batch}-{seed}", phase, "done", {"global_batch_size": batch}, batch,  # type: ignore[arg-type]
        f"{phase}-{batch}" if phase == "confirm" else f"{phase}-{batch}-{seed}",
        peak_lr=math.exp(place), seed=seed, objective=steps, steps=2 * steps,
        steps_to_target=steps, examples_to_target=steps * batch, validation_loss=0.9,
        choices={"peak_lr": math.exp(place)},
    )  # fmt: skip


def _tradeoff_csv(rng: Rng, number: int, num_seeds: int) -> Sweep:
    lines: list[dict[str, float]] = []
    for batch in _batches(number):
        for seed in range(num_seeds):
            steps = _steps(batch) * math.exp(_noise(number) * rng.standard_normal())
            line = {"global_batch_size": batch, "steps_to_target": steps}
            lines.append(line | ({"seed": seed} if num_seeds > 1 else {}))
    return _from_csv(lines)


def _from_csv(lines: list[dict[str, float]]) -> Sweep:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        return read_table(path).sweep


def _read_tradeoff(
    summary: dict[str, Any], number: int, *, with_steps: bool
) -> list[Reading | Flag]:
    critical = MIN_EXAMPLES / MIN_STEPS
    fit = summary["critical_batch_size"]["steps_examples"]
    overhead = summary["critical_batch_size"]["overhead_20"]
    readings: list[Reading | Flag] = [
        Reading("critical batch", fit["interval"], critical),
        Reading("min_steps", fit["min_steps_interval"], MIN_STEPS),
        Reading("min_examples", fit["min_examples_interval"], MIN_EXAMPLES),
        Reading(
            "20% overhead",
            overhead["on_fit"]["interval"],
            0.2 * critical + 1.2 * overhead["reference_batch_size"],
        ),
        Flag("misfit said", bool(fit["misfit_exceeds_seeds"])),
        *(
            Flag("regime named and wrong", _is_wrong(local, critical))
            for local in fit["regimes"]
        ),
    ]  # fmt: skip
    if with_steps:
        mean = math.exp(_noise(number) ** 2 / 2)
        readings += [
            Reading(
                "steps_to_target",
                cell["steps_to_target_interval"],
                mean * _steps(cell["global_batch_size"]),
            )
            for cell in summary["cells"]
        ]
    return readings


def _is_wrong(local: dict[str, Any], critical: float) -> bool:
    slope = critical / (critical + local["global_batch_size"])
    truth = (
        "perfect scaling" if slope > 0.9
        else "maximal data parallelism" if slope < 0.1
        else "diminishing returns"
    )  # fmt: skip
    return local["regime"] not in (None, "undecided", truth)


# Planted gap


def _gap(rng: Rng, num_seeds: int) -> Sweep:
    """All seeds are evaluated on the same samples of both splits, whose error is recorded."""
    rows: list[TrialRow] = []
    for batch in BATCHES[:4]:
        sampled = 0.01 * rng.standard_normal(), 0.008 * rng.standard_normal()
        for seed in range(num_seeds):
            train = 0.6 + sampled[1] + 0.01 * rng.standard_normal()
            test = 0.6 + GAP + sampled[0] + 0.012 * rng.standard_normal()
            rows.append(
                TrialRow(
                    f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch,
                    f"{batch}", seed=seed, peak_lr=1e-3, validation_loss=test,
                    validation_loss_stderr=0.01 * math.exp(0.05 * rng.standard_normal()),
                    train_loss=train, test_loss=test, test_loss_stderr=0.01,
                    train_loss_stderr=0.008 * math.exp(0.05 * rng.standard_normal()),
                )
            )  # fmt: skip
    return _sweep(rows, BATCHES[:4])


def _gap_csv(rng: Rng, num_seeds: int) -> Sweep:
    """A table has no standard errors, so every row is evaluated on samples of its own."""
    lines: list[dict[str, float]] = []
    for batch in BATCHES[:4]:
        for seed in range(num_seeds):
            train = 0.6 + math.hypot(0.01, 0.008) * rng.standard_normal()
            line = {
                "global_batch_size": batch, "steps_to_target": _steps(batch), "train_loss": train,
                "validation_loss": 0.6 + GAP + math.hypot(0.012, 0.01) * rng.standard_normal(),
            }  # fmt: skip
            lines.append(line | ({"seed": seed} if num_seeds > 1 else {}))
    return _from_csv(lines)


def _read_gap(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
    return [
        Reading("generalization_gap", cell["generalization_gap_interval"], GAP)
        for cell in summary["cells"]
    ]


# Planted cost of fewer updates: loss = 0.5 + 2 / (steps + 1) + 0.0001 × batch, the same examples


def _updates(rng: Rng, num_seeds: int) -> Sweep:
    rows: list[TrialRow] = []
    for batch in BATCHES[:4]:
        for seed in range(num_seeds):
            shift = 0.01 * rng.standard_normal()
            measurements = tuple(
                Measurement(
                    step, step * batch, step * batch, 0.01 * step, train_loss=0.5,
                    validation_loss=_planted_loss(step, batch) + shift
                    + 0.003 * rng.standard_normal(),
                )
                for step in range(0, 16384 // batch + 1, 2)
            )  # fmt: skip
            rows.append(
                TrialRow(
                    f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch,
                    f"{batch}", seed=seed, measurements=measurements,
                    validation_loss=measurements[-1].validation_loss,
                )
            )  # fmt: skip
    return _sweep(rows, BATCHES[:4])


def _planted_loss(steps: float, batch: int) -> float:
    return 0.5 + 2 / (steps + 1) + 1e-4 * batch


def _read_updates(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
    readings: list[Reading | Flag] = []
    for parts in summary["loss_parts"]:
        batch = parts["global_batch_size"]
        end, equal, base = (
            _planted_loss(16384 // batch, batch),
            _planted_loss(16384 // batch, 16),
            _planted_loss(1024, 16),
        )
        readings += [
            Reading("total", parts["total"]["interval"], end - base),
            Reading("at_equal_steps", parts["at_equal_steps"]["interval"], end - equal),
            Reading("fewer_updates", parts["fewer_updates"]["interval"], equal - base),
        ]
    return readings


def _sweep(rows: list[TrialRow], batches: Sequence[int], target: float | None = None) -> Sweep:
    return Sweep(
        "planted", "?", tuple(rows), tuple({"global_batch_size": size} for size in batches),
        has_target=target is not None, target=target,
    )  # fmt: skip
