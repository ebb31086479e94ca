"""The tables on steps to targets, critical batch sizes and what a large batch costs."""

from scaling.analysis.critical_batch.branched_training import BranchedTraining
from scaling.analysis.critical_batch.overhead import OVERHEAD
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.report.tables.table import Rows, Table
from scaling.report.words.absent import (
    no_branches,
    no_free_exponent,
    no_overhead,
    no_parts,
    no_tradeoff,
)
from scaling.report.words.numbers import (
    DASH,
    beside,
    between,
    counted,
    either,
    number,
    with_interval,
    with_unit,
)
from scaling.report.words.remarks import branched_words, origin, tradeoff_target


def steps_words(target: ToTarget) -> str:
    """Steps with their interval; what they are above where a run never reached the target."""
    if target.steps.value is None:
        return DASH if target.above is None else f"> {number(target.above)}"
    return with_interval(target.steps)


def critical_batch_table(findings: Findings) -> Table | None:
    """The critical batch sizes by their definitions; None where cells are not batch sizes."""
    if not findings.one_series:
        return None
    fit, noise = findings.tradeoff, findings.noise_scale
    of_fit = "min_examples / min_steps of S = min_steps + min_examples / B (McCandlish et al. 2018)"
    of_fit += tradeoff_target(findings)
    of_noise = "not measured"
    if noise.global_batch_size is not None:
        of_noise = (
            f"tr Σ / |G|² at the last evaluation with a batch of {noise.global_batch_size:,} "
            "(McCandlish et al. 2018)"
        )
    rows = (
        *(_fits(fit, of_fit)[::-1] if fit.free.excludes_one else _fits(fit, of_fit)),
        *_overhead_rows(findings),
        ("gradient noise scale at the end", *_value_and_interval(noise.estimate), of_noise),
        *_noise_at_target_rows(findings),
        ("branched training", *_branched(findings.branched, findings.sweep.loss_unit)),
    )  # fmt: skip
    return Table(("by", "examples", "90% interval", "definition"), rows)


def _fits(fit: TradeoffFit, of_fit: str) -> Rows:
    """The trade-off with alpha = 1 and with alpha fitted."""
    free = fit.free
    of_free = f"where steps are twice their minimum, with α fitted: {beside(free.alpha, 1.0)}"
    return (
        (
            "steps–examples fit, α = 1", number(fit.value), between(fit.interval),
            f"{of_fit}; {no_tradeoff(fit)}" if fit.missing else of_fit,
        ),
        (
            "steps–examples fit, α free", *_value_and_interval(free.at_twice_min_steps),
            no_free_exponent(fit) or of_free + " in S = min_steps (1 + (B_c / B)^α)",
        ),
    )  # fmt: skip


def _value_and_interval(estimate: Estimate) -> tuple[str, str]:
    return number(estimate.value), between(estimate.interval)


def _overhead_rows(findings: Findings) -> Rows:
    """The 20% overhead by its two definitions; nothing where neither has a value."""
    overhead = findings.overhead
    reference = overhead.reference_batch_size
    if reference is None or (overhead.on_fit.value, overhead.on_curve.value) == (None, None):
        return ()
    no_fit = no_free_exponent(findings.tradeoff)
    more = f"{OVERHEAD:.0%} more examples than at B = {reference:,}"
    return (
        (
            f"{OVERHEAD:.0%} overhead, fit",
            *_value_and_interval(overhead.on_fit),
            no_overhead(overhead.fit_missing, overhead.largest_batch_size, no_fit)
            or f"{more}, on the curve with α fitted (Zhang et al. 2024)",
        ),
        (
            f"{OVERHEAD:.0%} overhead, points",
            *_value_and_interval(overhead.on_curve),
            f"{more}, where the measured points first cross it, between two batch sizes",
        ),
    )


def _noise_at_target_rows(findings: Findings) -> Rows:
    """The noise scale where the target was reached; nothing where it is not known."""
    size, curve = findings.noise_scale.global_batch_size, findings.noise_scale.curve
    if curve is None or not curve.at_target.value:
        return ()
    where = f"the same, where the runs with a batch of {size:,} reached the target"
    return (("gradient noise scale at the target", *_value_and_interval(curve.at_target), where),)


def _branched(branched: BranchedTraining, loss_unit: str) -> tuple[str, str, str]:
    """Value, interval and definition."""
    last = branched.last
    if last is None:
        return DASH, between(None), no_branches(branched.missing)
    points = counted(len(branched.points), "point")
    tolerance = with_unit(number(branched.tolerance), loss_unit)
    return (
        *branched_words(last),
        f"largest batch within {tolerance} of the base batch after the window, branched off at "
        f"{last.examples:,} examples (the last of {points}; Merrill et al. 2025)",
    )


def targets_table(findings: Findings) -> Table | None:
    """Steps to each target, one row a target; None without at least two."""
    curves = findings.target_curves
    if len(curves) < 2:
        return None
    sizes = [f"B = {cell.global_batch_size:,}" for cell in findings.cells]
    rows = tuple(
        (
            number(curve.target),
            origin(curve.origin),
            *map(steps_words, curve.cells),
            either(Estimate(curve.fit.value, curve.fit.interval)),
        )
        for curve in curves
    )
    return Table(("target", "which", *sizes, "critical batch"), rows)


def regimes_table(findings: Findings) -> Table:
    """What a larger batch still buys at each batch size; no rows without a trade-off."""
    rows = tuple(
        (
            f"{local.global_batch_size:,}",
            number(local.slope.value, 2),
            between(local.slope.interval, 2),
            local.regime or "not enough data",
        )
        for local in findings.regimes
    )
    return Table(("global_batch_size", "slope", "90% interval", "regime"), rows)


def loss_parts_table(findings: Findings) -> Table | None:
    """Held-out loss over the reference batch and its two parts; None where none is known."""
    if not any(parts.total.value is not None for parts in findings.loss_parts):
        return None
    reference = findings.loss_parts[0].reference_batch_size
    rows = tuple(
        (
            f"{parts.global_batch_size:,}",
            number(parts.num_steps),
            with_interval(parts.total),
            with_interval(parts.fewer_updates),
            with_interval(parts.at_equal_steps),
            no_parts(parts.missing) or counted(parts.total.count, "paired seed"),
        )
        for parts in findings.loss_parts
    )
    columns = (
        "global_batch_size", "steps", f"loss − loss at {reference:,}", "due to fewer updates",
        "the rest", "from",
    )  # fmt: skip
    return Table(columns, rows)
