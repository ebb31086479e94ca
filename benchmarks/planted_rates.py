"""Sweeps of learning rate against batch with a planted law, and what to read of their summary."""

import csv
import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from coverage_case import Case, Flag, Reading

from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.report.foreign_tables.sweep_table import read_table
from scaling.search.surface import SurfaceSearch
from scaling.spec.phases import Phase
from scaling.surface.loss_surface import Outcome
from scaling.surface.space import Axis, Space

BATCHES = (16, 64, 256, 1024)
SURGE_BATCHES = (8, 32, 128, 512, 2048, 8192)
NOISE_BATCH = 200.0
PLANTED_GAP = 0.2
LOWEST_LR, HIGHEST_LR = 5e-5, 1e-1
MIDDLE_LR = 2e-3
SHAPES = ("quadratic", "steeper above", "cliff", "diverging")
STEEP_WITH_CLIFF = "steeper above, cliff"
NO_COMMON_SHAPE = "no common shape"
"""As real runs often are: losses that level off far below the best rate, and above it a cliff at
one rate for all batches, so that no cell's basin is another's."""
DESIGNS = ("quasi-random", "grid", "random")


@dataclass(frozen=True)
class Plan:
    """How a planted sweep is run.

    Attributes:
        exponent: Of the best rate; None for a surge that turns at NOISE_BATCH.
        num_seeds: Runs of every recipe.
        num_rates: Rates a cell.
        nuisances: Loss that each further hyperparameter costs at most; its best value is drawn
            as often as any other.
        shift: How far the middle of the rates lies above the best rates' (log).
        design: How rates are spread; None takes another one each study.
        shape: Of the loss against the rate; None takes another one each study.
        noise: Standard deviation of a loss over seeds; None draws one from .002 to .06 a study.
        curvature: Of the loss against log rate, below the optimum; None draws one.
        stays_from: Batch size from which on the best rate stays; None for a power throughout.
        noise_above: How fast the noise grows with the loss above the best one, a nat.
        heavy_tails: Whether noise is Student's t on three degrees, of the same scale.
        unequal_ranges: Whether each batch size's rates end elsewhere.
        missing_share: Share of the rates that were not run.
        num_searched: Trials of all batch sizes that the surface chooses, in place of num_rates.
        has_replicates: Whether the recipes that a search recommends are then run with three new
            seeds, and that of the second batch size at every other one by three rules. A seed
            adds to all its losses as much as noise does.
        luck: Standard deviation of what a seed adds at each rate of a cell, over that of noise; it
            is alike at rates that differ by less than a factor of two.
        rise: By how much each batch size's least loss is above that of the batch size before.
        narrowing: Curvature at the largest batch size over that at the smallest.
    """

    exponent: float | None = 0.5
    num_seeds: int = 3
    num_rates: int = 12
    nuisances: tuple[float, ...] = ()
    shift: float = 0.0
    design: str | None = None
    shape: str | None = None
    noise: float | None = None
    curvature: float | None = None
    batches: tuple[int, ...] = BATCHES
    stays_from: float | None = None
    noise_above: float = 0.0
    heavy_tails: bool = False
    unequal_ranges: bool = False
    missing_share: float = 0.0
    num_searched: int | None = None
    has_replicates: bool = False
    luck: float = 0.0
    rise: float = 0.0
    narrowing: float = 1.0

    def least(self, batch: int) -> float:
        """The loss at the planted best rate."""
        return 2.0 + self.rise * self.batches.index(batch)

    def bend(self, batch: int) -> float:
        """Curvature over that of the middle batch size."""
        return self.narrowing ** (self.batches.index(batch) / (len(self.batches) - 1) - 0.5)

    def best_log_lr(self, batch: int) -> float:
        """Logarithm of the planted best rate."""
        if self.stays_from is not None:
            middle = float(np.mean(np.log(self.batches)))
            rise = (self.exponent or 0.0) * (math.log(min(batch, self.stays_from)) - middle)
            return math.log(MIDDLE_LR) + rise
        if self.exponent is None:
            return math.log(MIDDLE_LR) - math.log(math.cosh(math.log(batch / NOISE_BATCH) / 2))
        middle = float(np.mean(np.log(self.batches)))
        return math.log(MIDDLE_LR) + self.exponent * (math.log(batch) - middle)

    def shape_of(self, number: int) -> str:
        """The shape in one study."""
        return self.shape or SHAPES[number % len(SHAPES)]


@dataclass(frozen=True)
class _World:
    """What is the same in a whole study."""

    plan: Plan
    shape: str
    design: str
    noise: float
    curvature: float


def planted_sweep(plan: Plan, rng: np.random.Generator, number: int) -> Sweep:
    """One study of a plan."""
    world = _World(
        plan,
        plan.shape_of(number),
        plan.design or DESIGNS[number // len(SHAPES) % len(DESIGNS)],
        plan.noise if plan.noise is not None else float(np.exp(rng.uniform(-6.2, -2.8))),
        plan.curvature if plan.curvature is not None else float(rng.uniform(0.05, 0.15)),
    )
    if plan.num_searched is not None:
        rows = _searched(world, rng, number)
    else:
        rows = [row for batch in plan.batches for row in _cell(world, batch, rng)]
    cells = tuple({"global_batch_size": batch} for batch in plan.batches)
    return Sweep("planted", "Does the interval cover?", tuple(rows), cells)


def _cell(world: _World, batch: int, rng: np.random.Generator) -> list[TrialRow]:
    rows: list[TrialRow] = []
    for place, rate in enumerate(_rates(world, rng)):
        if rng.random() < world.plan.missing_share:
            continue
        distance = rate - world.plan.best_log_lr(batch)
        excess, diverged = _excess(world, batch, rate, distance)
        # A setting costs what its distance from the best one, squared, is of the worst one's.
        settings = rng.random(len(world.plan.nuisances))
        excess += float(np.dot(world.plan.nuisances, settings**2))
        for seed in range(world.plan.num_seeds):
            loss = world.plan.least(batch) + excess + _noise(world, excess, rng)
            rows.append(
                TrialRow(
                    trial_id=f"{batch}-{place}-{seed}",
                    phase="search",
                    status="diverged" if diverged else "done",
                    cell={"global_batch_size": batch},
                    global_batch_size=batch,
                    recipe_key=f"{batch} {place}",
                    peak_lr=math.exp(rate),
                    seed=seed,
                    objective=None if diverged else loss,
                    validation_loss=None if diverged else loss,
                    choices={"peak_lr": math.exp(rate)}
                    | {f"nuisance_{i}": float(s) for i, s in enumerate(settings)},
                )
            )
    return rows


def _noise(world: _World, excess: float, rng: np.random.Generator) -> float:
    scale = world.noise + world.plan.noise_above * min(excess, 1.0)
    if world.plan.heavy_tails:
        return scale * float(rng.standard_t(3)) / math.sqrt(3)
    return scale * float(rng.standard_normal())


def _searched(world: _World, rng: np.random.Generator, number: int) -> list[TrialRow]:
    """One run of every recipe that the surface asks for."""
    plan = world.plan
    cells = tuple({"global_batch_size": batch} for batch in plan.batches)
    rates = Axis("peak_lr", low=LOWEST_LR, high=HIGHEST_LR, log=True)
    search = SurfaceSearch(Space(cells, (rates,)), plan.num_searched or 0, 4, number)
    outcomes: list[Outcome] = []
    rows: list[TrialRow] = []
    lucks = defaultdict(lambda: _luck(rng))

    def run(cell: int, rate: float, phase: Phase, seed: int, shift: float) -> TrialRow:
        batch, log_rate = plan.batches[cell], math.log(rate)
        excess, diverged = _excess(world, batch, log_rate, log_rate - plan.best_log_lr(batch))
        loss = None
        if not diverged:
            loss = plan.least(batch) + excess + shift + _noise(world, excess, rng)
            if plan.luck:
                loss += plan.luck * world.noise * lucks[cell, seed](log_rate)
        return TrialRow(
            trial_id=f"{len(rows)}", phase=phase, status="diverged" if diverged else "done",
            cell=cells[cell], global_batch_size=batch, recipe_key=f"{len(rows)}", peak_lr=rate,
            seed=seed, rule="none" if phase == "transfer" else None, objective=loss,
            validation_loss=loss, choices={"peak_lr": rate},
            surface_round=0 if phase == "search" else None,
        )  # fmt: skip

    while proposals := search.next_round(outcomes):
        for cell, point in proposals:
            rows.append(run(cell, point["peak_lr"], "search", 0, 0.0))
            outcomes.append(Outcome(cell, point, rows[-1].validation_loss))
    if plan.has_replicates:
        recommended = [best.point["peak_lr"] for best in search.best(outcomes)]
        for seed in (1, 2, 3):
            shift = world.noise * float(rng.standard_normal())
            for cell, rate in enumerate(recommended):
                rows.append(run(cell, rate, "confirm", seed, shift))
                kappa = plan.batches[cell] / plan.batches[1]
                for rate in [recommended[1] * kappa**p for p in (0, 0.5, 1) if cell != 1]:
                    rows.append(run(cell, rate, "transfer", seed, shift))
    return rows


def _luck(rng: np.random.Generator) -> Callable[[float], float]:
    """A smooth random function of a log rate with unit variance, by random Fourier features."""
    frequencies, phases = rng.standard_normal(32) / math.log(2), rng.uniform(0, 2 * math.pi, 32)
    return lambda rate: float(np.cos(frequencies * rate + phases).sum()) / 4


def _rates(world: _World, rng: np.random.Generator) -> list[float]:
    """Logarithms of a cell's rates."""
    count = world.plan.num_rates
    low = math.log(LOWEST_LR) + world.plan.shift
    high = math.log(HIGHEST_LR) + world.plan.shift
    if world.plan.unequal_ranges:
        low, high = low + float(rng.uniform(0, 2)), high - float(rng.uniform(0, 1.5))
    shares = {
        "grid": np.arange(count) / (count - 1),
        "random": rng.random(count),
        "quasi-random": (np.arange(count) + rng.random(count)) / count,
    }[world.design]
    return [low + (high - low) * float(share) for share in shares]


def _excess(world: _World, batch: int, rate: float, distance: float) -> tuple[float, bool]:
    """Loss above the best one at a log rate and its distance from the best, and if it diverges."""
    bowl = world.curvature * world.plan.bend(batch) * distance**2
    if world.shape == NO_COMMON_SHAPE:
        if distance < 0:
            return 2 * (1 - math.exp(-bowl)), False
        cliff = world.plan.best_log_lr(max(world.plan.batches)) + 0.3
        return 0.3 * bowl + 3 * max(0.0, rate - cliff) ** 2, False
    if world.shape == STEEP_WITH_CLIFF:
        cliff = 3.0 if distance > 1.5 else 0.0
        return (3 * bowl if distance > 0 else bowl) + cliff, False
    if world.shape == "steeper above":
        return (3 * bowl if distance > 0 else bowl), False
    if world.shape == "cliff" and distance > 1.5:
        return bowl + 3.0, False
    return bowl, world.shape == "diverging" and distance > 1.5


def through_table(plan: Plan, rng: np.random.Generator, number: int) -> Sweep:
    """The same study, written as a CSV table and read from it."""
    planted = planted_sweep(plan, rng, number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "planted.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("global_batch_size", "peak_lr", "validation_loss", "seed", "diverged"))
            for index, row in enumerate(planted.rows):
                seed = row.seed if plan.num_seeds > 1 else index
                lost = row.status == "diverged"
                loss = "" if lost else row.validation_loss
                writer.writerow((row.global_batch_size, row.peak_lr, loss, seed, lost))
        return read_table(path).sweep


def rate_cases() -> list[Case]:
    """Exponents, the surge and the best rates: at 3 and 5 seeds, at 6 and 12 rates."""
    cases: list[Case] = []
    for num_rates in (6, 12):
        for num_seeds in (3, 5):
            for exponent in (0.0, 0.5, 1.0):
                plan = Plan(exponent, num_seeds, num_rates)
                name = f"exponent {exponent:g}, {num_rates} rates, {num_seeds} seeds"
                cases.append(_law_case(name, plan))
        for exponent in (0.0, 0.5, 1.0):
            plan = Plan(exponent, 1, num_rates)
            cases.append(_law_case(f"exponent {exponent:g}, {num_rates} rates, 1 seed", plan))
        plan = Plan(0.5, 1, num_rates, nuisances=(0.1, 0.05))
        cases.append(_law_case(f"exponent 0.5, {num_rates} trials, 2 nuisances", plan))
        plan = Plan(0.5, 3, num_rates)
        cases.append(
            _law_case(f"exponent 0.5, {num_rates} rates, 3 seeds, table", plan, table=True)
        )
        plan = Plan(0.5, 1, num_rates)
        cases.append(_law_case(f"exponent 0.5, {num_rates} rows a cell, table", plan, table=True))
        for shape in SHAPES:
            plan = Plan(0.5, 1, num_rates, shape=shape)
            cases.append(_law_case(f"exponent 0.5, {num_rates} rates, 1 seed, {shape}", plan))
        for num_seeds in (1, 3, 5):
            plan = Plan(0.5, num_seeds, num_rates, shape=NO_COMMON_SHAPE)
            cases.append(
                _law_case(f"{NO_COMMON_SHAPE}, {num_rates} rates, {num_seeds} seeds", plan)
            )
        harder = Plan(0.5, 1, num_rates)
        for name, plan in (
            ("steeper above with a cliff", replace(harder, shape=STEEP_WITH_CLIFF)),
            ("noise that grows above", replace(harder, noise_above=0.2)),
            ("heavy tails", replace(harder, heavy_tails=True)),
            ("unequal ranges", replace(harder, unequal_ranges=True)),
            ("a quarter missing", replace(harder, missing_share=0.25)),
            ("basins that narrow", replace(harder, narrowing=8)),
            ("a best rate that falls", replace(harder, exponent=-0.3)),
            ("unequal least losses", replace(harder, rise=0.5)),
            ("unequal least losses, diverging", replace(harder, rise=0.5, shape="diverging")),
        ):
            cases.append(_law_case(f"{name}, {num_rates} rates, 1 seed", plan))
        turning = Plan(1.0, 1, num_rates, batches=SURGE_BATCHES, stays_from=NOISE_BATCH)
        cases.append(_law_case(f"rises, then stays, {num_rates} rates, 1 seed", turning))
        for shape in (*SHAPES, STEEP_WITH_CLIFF, NO_COMMON_SHAPE):
            plan = Plan(0.5, 1, shape=shape, num_searched=4 * num_rates)
            name = f"surface, {4 * num_rates} trials, {shape}"
            cases.append(_law_case(name, plan))
            plan = replace(plan, has_replicates=True)
            cases.append(_law_case(f"{name}, with replicates", plan))
        searched = Plan(0.5, 1, num_searched=4 * num_rates)
        for name, plan in (
            ("lucky seeds", replace(searched, luck=2.0)),
            ("lucky seeds, with replicates", replace(searched, luck=2.0, has_replicates=True)),
            ("unequal least losses", replace(searched, rise=0.5)),
            ("basins that narrow", replace(searched, narrowing=8)),
            ("a best rate that falls", replace(searched, exponent=-0.3)),
        ):
            cases.append(_law_case(f"surface, {4 * num_rates} trials, {name}", plan))
        for num_seeds in (3, 5):
            plan = Plan(None, num_seeds, num_rates, batches=SURGE_BATCHES)
            cases.append(_law_case(f"surge, {num_rates} rates, {num_seeds} seeds", plan))
    return cases


def _law_case(name: str, plan: Plan, *, table: bool = False) -> Case:
    draw = through_table if table else planted_sweep

    def read(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
        law = summary["lr_scaling"]
        readings: list[Reading | Flag] = [
            Reading(
                "best_peak_lr",
                cell["best_peak_lr_interval"],
                math.exp(plan.best_log_lr(cell["global_batch_size"])),
            )
            for cell in summary["cells"]
        ]
        surge = law["surge"]
        if plan.stays_from is not None:
            turns = law["turns"]
            readings.append(Reading("turns at a batch of", turns["interval"], plan.stays_from))
            readings.append(Flag("turns", (turns["probability"] or 0.0) > 0.5))
            return readings
        if plan.exponent is None:
            readings.append(
                Reading("surge noise_batch", surge["noise_batch_interval"], NOISE_BATCH)
            )
            readings.append(Flag("surge preferred", surge["preferred"]))
            return readings
        readings.append(Reading("exponent", law["interval"], plan.exponent))
        for entry in law["evidence"]:
            if entry["exponent"] == plan.exponent:
                strong = entry["likelihood_ratio"] >= 8
                readings.append(Flag("evidence of 8 against the truth", strong))
        return readings

    return Case(name, lambda rng, number: draw(plan, rng, number), read)


def _gap_case(num_seeds: int) -> Case:
    """A gap of .2 nats, the same at every batch, from confirm seeds."""

    def sweep(rng: np.random.Generator, number: int) -> Sweep:
        searched = planted_sweep(Plan(0.5, 1), rng, number)
        confirmed = [
            TrialRow(
                trial_id=f"confirm-{batch}-{seed}",
                phase="confirm",
                status="done",
                cell={"global_batch_size": batch},
                global_batch_size=batch,
                recipe_key=f"confirm {batch}",
                peak_lr=MIDDLE_LR,
                seed=1000 + seed,
                validation_loss=loss,
                test_loss=loss,
                train_loss=loss - PLANTED_GAP + 0.02 * float(rng.standard_normal()),
            )
            for batch in BATCHES
            for seed in range(num_seeds)
            for loss in [2.0 + 0.02 * float(rng.standard_normal())]
        ]
        return replace(searched, rows=(*searched.rows, *confirmed))

    def read(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
        intervals = [cell["generalization_gap_interval"] for cell in summary["cells"]]
        return [Reading("generalization_gap", interval, PLANTED_GAP) for interval in intervals]

    return Case(f"gap, {num_seeds} seeds", sweep, read)


def flag_cases() -> list[Case]:
    """Cells that were searched enough, and cells that were not, in several ways."""
    clean = Plan(0.0, 1, noise=0.005, curvature=0.1)
    plans = {
        "clean: rate alone": clean,
        "clean: 1 nuisance": replace(clean, nuisances=(0.05,)),
        "clean: 2 nuisances": replace(clean, nuisances=(0.05, 0.03)),
        "clean: 3 nuisances": replace(clean, nuisances=(0.05, 0.03, 0.02)),
        "clean: 3 nuisances, noisy": replace(clean, nuisances=(0.05, 0.03, 0.02), noise=0.02),
        "undertuned: optimum beyond the rates": replace(clean, shape="quadratic", shift=-6.0),
        "undertuned: optimum below the rates": replace(clean, shape="quadratic", shift=6.0),
        "undertuned: beyond, 3 nuisances": replace(
            clean, shape="quadratic", shift=-6.0, nuisances=(0.05, 0.03, 0.02)
        ),
        "undertuned: 4 strong nuisances": replace(clean, nuisances=(0.8, 0.8, 0.8, 0.8)),
        "undertuned: 6 nuisances": replace(clean, nuisances=(0.5,) * 6),
    }
    return [
        _flag_case(f"{name}, {count} trials", replace(plan, num_rates=count))
        for name, plan in plans.items()
        for count in (12, 6)
    ]


def _flag_case(name: str, plan: Plan) -> Case:
    def read(summary: dict[str, Any], _: int) -> list[Reading | Flag]:
        return [Flag("undertuned", cell["undertuned"]) for cell in summary["cells"]]

    return Case(name, lambda rng, number: planted_sweep(plan, rng, number), read)


def cases() -> Sequence[Case]:
    """All of this module."""
    return [*rate_cases(), _gap_case(3), _gap_case(5), *flag_cases()]
