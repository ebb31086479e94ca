"""Two studies on the same axes, and their differences with intervals.

Everything is B against A: a loss or a gap as the difference B − A, in nats per target, all else
as the ratio B / A.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import fmean, variance
from typing import Any, Literal

from scipy.special import stdtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.cell_results import CellResult
from scaling.analysis.conditions import OtherUnit, other_unit, same_data
from scaling.analysis.findings import Findings
from scaling.analysis.series import Series
from scaling.analysis.statistics.uncertainty import (
    LEVEL,
    Estimate,
    Interval,
    difference_interval,
    holm,
    root_mean_square,
    t_quantile,
)
from scaling.analysis.trial_rows import Sweep, TrialRow

Kind = Literal["difference", "ratio"]
Method = Literal["paired", "welch", "mover", "none"]
Side = Literal["A", "B"]


@dataclass(frozen=True)
class Contrast:
    """One number of study B against that of study A.

    Attributes:
        measure: What is compared, by its name in summary.json.
        cell: The cell, in words; empty for a number of the whole study.
        series: What tells the cell from others with the same batch, in words.
        global_batch_size: Of the cell; None for a number of the whole study.
        kind: `difference` is B − A, `ratio` is B / A.
        a: The value of A; None where a seed of it diverged, since a mean of the others flatters.
        b: The value of B; None likewise.
        value: B − A or B / A; None where one of the two is.
        interval: Of it; None where replicates do not give one.
        method: `paired` by seed; `welch` with its own spread in each study; `mover` from the two
            intervals; `none`.
        num_a: Replicates of A behind it.
        num_b: Replicates of B behind it.
        p_value: Two-sided, of no difference; None without an interval.
        holm: Whether it stands with Holm's correction over all contrasts that have an interval.
        diverged: The studies of which a seed diverged.
    """

    measure: str
    cell: str
    global_batch_size: int | None
    kind: Kind
    a: float | None
    b: float | None
    value: float | None
    interval: Interval | None = None
    method: Method = "none"
    num_a: int = 0
    num_b: int = 0
    p_value: float | None = None
    holm: bool = False
    series: str = ""
    diverged: tuple[Side, ...] = ()

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out that nothing differs."""
        if self.interval is None:
            return False
        nothing = 0.0 if self.kind == "difference" else 1.0
        return not self.interval[0] <= nothing <= self.interval[1]


@dataclass(frozen=True)
class Setup:
    """What must be known of two studies before their numbers may be set against each other.

    Attributes:
        other_unit: Why their losses are not in the same unit; None where they are.
        targets: Whether their targets are the same.
        same_data: Whether content and split of their data are the same, so that seeds pair.
    """

    other_unit: OtherUnit | None
    targets: bool
    same_data: bool

    @property
    def losses(self) -> bool:
        """Whether losses are compared; the gap and all that depends on a target follow them."""
        return self.other_unit is None


@dataclass(frozen=True)
class Comparison:
    """Two studies side by side.

    Attributes:
        shared: Pairs of cells with the same scientific values.
        only_a: Labels of cells that B lacks.
        only_b: Labels of cells that A lacks.
        contrasts: Cell by cell, then those of the whole study.
    """

    a: Findings
    b: Findings
    setup: Setup
    shared: tuple[tuple[CellResult, CellResult], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    contrasts: tuple[Contrast, ...]

    @property
    def num_intervals(self) -> int:
        """Contrasts that have an interval."""
        return sum(contrast.interval is not None for contrast in self.contrasts)

    @property
    def expected_by_chance(self) -> float:
        """How many of them would leave out zero if nothing differed."""
        return self.num_intervals * (1 - LEVEL)

    @property
    def num_apart(self) -> int:
        """How many do."""
        return sum(contrast.apart for contrast in self.contrasts)


def setup_of(a: Sweep, b: Sweep) -> Setup:
    """What of two studies may be set against each other."""
    ours, theirs = a.conditions, b.conditions
    known = (ours, theirs) if ours is not None and theirs is not None else None
    return Setup(
        other_unit=other_unit(*known) if known else None,
        targets=a.target is None
        or b.target is None
        or (a.target, a.target_metric.name) == (b.target, b.target_metric.name),
        same_data=known is not None and same_data(*known),
    )


def compare(a: Findings, b: Findings) -> Comparison:
    """Every number that both studies have, at every cell that both have."""
    setup = setup_of(a.sweep, b.sweep)
    of_b = {_key(cell): cell for cell in b.cells}
    of_a = {_key(cell): cell for cell in a.cells}
    shared = tuple((cell, of_b[key]) for key, cell in of_a.items() if key in of_b)
    contrasts = [c for one, other in shared for c in _of_cell(one, other, setup)]
    contrasts += _along_batches(a, b, at_one_target=setup.losses and setup.targets)
    return Comparison(
        a=a,
        b=b,
        setup=setup,
        shared=shared,
        only_a=tuple(cell.label for key, cell in of_a.items() if key not in of_b),
        only_b=tuple(cell.label for key, cell in of_b.items() if key not in of_a),
        contrasts=_with_holm(contrasts),
    )


def _key(cell: CellResult) -> tuple[Any, ...]:
    return tuple(sorted((name, repr(value)) for name, value in cell.cell.items()))


def _of_cell(a: CellResult, b: CellResult, setup: Setup) -> list[Contrast]:
    found: list[Contrast | None] = []
    if setup.losses:
        for measure in ("validation_loss", "test_loss"):
            found.append(_contrast(a, b, measure, "difference", setup, attrgetter(measure)))
        if a.held_out == b.held_out:
            gap = "generalization_gap"
            found.append(_contrast(a, b, gap, "difference", setup, _gap(a.held_out)))
    if setup.losses and setup.targets:
        for measure in ("steps_to_target", "examples_to_target", "seconds_to_target"):
            found.append(_contrast(a, b, measure, "ratio", setup, attrgetter(measure)))
    ours, theirs = (Estimate(cell.best_peak_lr, cell.best_peak_lr_bounds) for cell in (a, b))
    rates = _mover("best_peak_lr", ours, theirs, "ratio")
    if rates is not None:
        found.append(replace(rates, cell=a.label, global_batch_size=a.global_batch_size))
    return [replace(contrast, series=a.series) for contrast in found if contrast is not None]


def _gap(held_out: str) -> Callable[[TrialRow], float | None]:
    def gap(row: TrialRow) -> float | None:
        loss: float | None = getattr(row, held_out)
        return None if loss is None or row.train_loss is None else loss - row.train_loss

    return gap


def _contrast(
    a: CellResult,
    b: CellResult,
    measure: str,
    kind: Kind,
    setup: Setup,
    read: Callable[[TrialRow], float | None],
) -> Contrast | None:
    """Of one cell; None where a study has no number, or not of every replicate."""
    rows_a, rows_b = _rows(a, measure), _rows(b, measure)
    ours = [(row, value) for row in rows_a if (value := read(row)) is not None]
    others = [(row, value) for row in rows_b if (value := read(row)) is not None]
    if not ours or not others:
        return None
    if kind == "ratio" and (len(ours) < len(rows_a) or len(others) < len(rows_b)):
        return None
    values_a, values_b = [v for _, v in ours], [v for _, v in others]
    if kind == "ratio" and min(*values_a, *values_b) <= 0:
        return None  # a model that was at the target before its first step
    mean_a, mean_b = _mean(values_a, kind), _mean(values_b, kind)
    lost_a, lost_b = (any(r.status == "diverged" for r in rows) for rows in (rows_a, rows_b))
    if kind == "difference" and (lost_a or lost_b):
        return Contrast(
            measure, a.label, a.global_batch_size, kind,
            None if lost_a else mean_a, None if lost_b else mean_b, None,
            num_a=len(ours), num_b=len(others),
            diverged=("A",) * lost_a + ("B",) * lost_b,
        )  # fmt: skip
    base = Contrast(
        measure, a.label, a.global_batch_size, kind, mean_a, mean_b,
        mean_b - mean_a if kind == "difference" else mean_b / mean_a,
        num_a=len(ours), num_b=len(others),
    )  # fmt: skip
    if kind == "ratio" and len(set(values_a)) == len(set(values_b)) == 1:
        return base  # all at one evaluation: how far seeds scatter is not known
    seeds_a = {row.seed: _scaled(value, kind) for row, value in ours}
    seeds_b = {row.seed: _scaled(value, kind) for row, value in others}
    # A seed means the same in both with the same data, measured in a confirm phase.
    same_seeds = setup.same_data and a.source == b.source == "confirm"
    if same_seeds and seeds_a.keys() == seeds_b.keys() and len(seeds_a) == len(ours):
        return _paired(base, [seeds_b[seed] - seeds_a[seed] for seed in seeds_a])
    errors = (_shared_error(rows_a, measure), _shared_error(rows_b, measure))
    scaled_a, scaled_b = ([_scaled(v, kind) for v in values] for values in (values_a, values_b))
    return _welch(base, scaled_a, scaled_b, errors)


def _rows(cell: CellResult, measure: str) -> tuple[TrialRow, ...]:
    return cell.target.trials if measure.endswith("_to_target") else cell.replicates


def _mean(values: Sequence[float], kind: Kind) -> float:
    """Arithmetic for a difference; geometric for a ratio, as its interval is of logarithms."""
    mean = fmean(_scaled(value, kind) for value in values)
    return mean if kind == "difference" else math.exp(mean)


def _scaled(value: float, kind: Kind) -> float:
    return value if kind == "difference" else math.log(value)


def _shared_error(rows: Sequence[TrialRow], measure: str) -> float:
    """What all seeds of a study share because they are evaluated on the same sample."""
    if measure in ("validation_loss", "test_loss"):
        names = (f"{measure}_stderr",)
    elif measure == "generalization_gap":
        held_out = "test_loss" if any(row.test_loss is not None for row in rows) else None
        names = (f"{held_out or 'validation_loss'}_stderr", "train_loss_stderr")
    else:
        return 0.0
    errors = [math.hypot(*(getattr(row, name) or 0.0 for name in names)) for row in rows]
    return root_mean_square(errors) or 0.0


def _paired(base: Contrast, differences: Sequence[float]) -> Contrast:
    """Student's t seed by seed; the error of evaluating on one sample mostly cancels."""
    if len(differences) < 2:
        return base
    count = len(differences)
    return _with_t(base, fmean(differences), variance(differences) / count, count - 1, "paired")


def _welch(
    base: Contrast, a: Sequence[float], b: Sequence[float], errors: tuple[float, float]
) -> Contrast:
    """Source: Welch 1947, The generalization of Student's problem."""
    if len(a) < 2 or len(b) < 2:
        return base
    parts = [variance(values) / len(values) for values in (a, b)]
    total = sum(parts) + errors[0] ** 2 + errors[1] ** 2
    spread = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
    degrees = total**2 / spread if spread > 0 else 1e6
    return _with_t(base, fmean(b) - fmean(a), total, min(degrees, 1e6), "welch")


def _with_t(
    base: Contrast, centre: float, variance_of_mean: float, degrees: float, method: Method
) -> Contrast:
    error = math.sqrt(variance_of_mean)
    half = t_quantile(degrees) * error
    return _tested(base, centre, (centre - half, centre + half), error, degrees, method)


def _tested(
    base: Contrast, centre: float, ends: Interval, error: float, degrees: float, method: Method
) -> Contrast:
    """With an interval and a p-value; a ratio's centre and ends are logarithms."""
    if base.kind == "ratio":
        ends = math.exp(ends[0]), math.exp(ends[1])
    p_value = 1.0 if centre == 0 else 0.0
    if error > 0:
        p_value = 2 * float(stdtr(degrees, -abs(centre) / error))  # pyright: ignore -- untyped
    return replace(base, interval=ends, method=method, p_value=p_value)


def _mover(measure: str, a: Estimate, b: Estimate, kind: Kind) -> Contrast | None:
    """From two independent estimates with their intervals; ratios in logarithms.

    The p-value takes the side towards zero for 1.645 standard errors, an approximation.
    """
    if a.value is None or b.value is None or (kind == "ratio" and min(a.value, b.value) <= 0):
        return None
    value = b.value - a.value if kind == "difference" else b.value / a.value
    base = Contrast(measure, "", None, kind, a.value, b.value, value)
    if a.interval is None or b.interval is None:
        return base
    if kind == "ratio" and min(*a.interval, *b.interval) <= 0:
        return base
    at_a, *ends_a = (_scaled(number, kind) for number in (a.value, *a.interval))
    at_b, *ends_b = (_scaled(number, kind) for number in (b.value, *b.interval))
    centre = at_b - at_a
    low, high = difference_interval(at_a, (ends_a[0], ends_a[1]), at_b, (ends_b[0], ends_b[1]))
    if kind == "ratio" and max(low, high) > 700:
        return base
    error = (centre - low if centre > 0 else high - centre) / t_quantile(1e6)
    return _tested(base, centre, (low, high), error, 1e6, "mover")


def between_series(findings: Findings) -> tuple[tuple[Series, Series, Contrast], ...]:
    """How the exponent and the critical batch size of each series differ from the first one's.

    The intervals take the two for independent; shared seeds and examples make them wider than
    they need be.
    """
    return tuple(
        (findings.series[0], other, contrast)
        for other in findings.series[1:]
        for contrast in _along_batches(
            findings.series[0], other, at_one_target=findings.sweep.has_target
        )
    )


def _along_batches(
    a: Findings | Series, b: Findings | Series, *, at_one_target: bool
) -> list[Contrast]:
    """The exponents, and the critical batch sizes where both are at one target."""
    found = [_mover("lr_exponent", a.lr_scaling.exponent, b.lr_scaling.exponent, "difference")]
    if at_one_target:
        headlines = (a.tradeoff.headline, b.tradeoff.headline)
        found.append(_mover("critical_batch_size", *headlines, "ratio"))
    return [contrast for contrast in found if contrast is not None]


def _with_holm(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """Flag what stands when the chance of any false one is held at 10%."""
    tested = [(place, c.p_value) for place, c in enumerate(contrasts) if c.p_value is not None]
    together = holm([p_value for _, p_value in tested])
    stands = {p for (p, _), joint in zip(tested, together, strict=True) if joint <= 1 - LEVEL}
    return tuple(replace(c, holm=place in stands) for place, c in enumerate(contrasts))
