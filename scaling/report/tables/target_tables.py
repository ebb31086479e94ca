"""The words and tables on steps to targets, critical batch sizes and what a large batch costs."""

from scaling.analysis.cells import CellResult
from scaling.analysis.critical_batch.regimes import OVERHEAD
from scaling.analysis.critical_batch.target_curves import TargetCurve
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.gap_relations import GapRelation
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate
from scaling.analysis.wording import DASH, between, counted, number

Rows = tuple[tuple[str, ...], ...]


def steps_words(target: ToTarget) -> str:
    """Steps with their interval; what they are above where a run never reached the target."""
    if target.steps.value is None:
        return DASH if target.above is None else f"> {number(target.above)}"
    return with_interval(target.steps)


def with_interval(estimate: Estimate, digits: int = 3) -> str:
    """A value and, under it, its interval."""
    value = number(estimate.value, digits)
    return value if estimate.interval is None else f"{value}\n{between(estimate.interval, digits)}"


def _either(estimate: Estimate) -> str:
    """A value and its interval; says where the latter is missing."""
    if estimate.value is None:
        return DASH
    return f"{number(estimate.value)} {between(estimate.interval)}"


def targets_rows(findings: Findings) -> tuple[tuple[str, ...], Rows] | None:
    """Steps to each target, one row a target; None without at least two."""
    curves = findings.target_curves
    if len(curves) < 2:
        return None
    sizes = [f"B = {cell.global_batch_size:,}" for cell in findings.cells]
    rows = tuple(
        (
            number(curve.target),
            origin(curve),
            *map(steps_words, curve.cells),
            _either(Estimate(curve.fit.value, curve.fit.interval)),
        )
        for curve in curves
    )
    return ("target", "which", *sizes, "critical batch"), rows


def origin(curve: TargetCurve) -> str:
    """Where a target is from."""
    names = {"the study's": "the study's own", "earlier": "on the way"}
    return names.get(curve.origin, f"{curve.origin} lowest")


def regimes_rows(findings: Findings) -> tuple[tuple[str, ...], Rows] | None:
    """The regime at each batch size; None without a trade-off."""
    if not findings.regimes:
        return None
    rows = tuple(
        (
            f"{local.global_batch_size:,}",
            number(local.slope.value, 2),
            between(local.slope.interval, 2),
            local.regime or "not enough data",
        )
        for local in findings.regimes
    )
    return ("global_batch_size", "slope", "90% interval", "regime"), rows


def overhead_rows(findings: Findings) -> Rows:
    """The 20% overhead by its two definitions; nothing where neither has a value."""
    overhead = findings.overhead
    reference = overhead.reference_batch_size
    if reference is None or overhead.on_fit.value is None:
        return ()
    more = f"{OVERHEAD:.0%} more examples than at B = {reference:,}"
    return (
        (
            f"{OVERHEAD:.0%} overhead, fit",
            number(overhead.on_fit.value),
            between(overhead.on_fit.interval),
            f"{more}, on the fitted curve: {OVERHEAD:g} × critical batch + "
            f"{1 + OVERHEAD:g} × {reference:,} (Zhang et al. 2024)",
        ),
        (
            f"{OVERHEAD:.0%} overhead, points",
            number(overhead.on_curve.value),
            between(overhead.on_curve.interval),
            f"{more}, where the measured points first cross it, between two batch sizes",
        ),
    )


def noise_at_target_rows(findings: Findings) -> Rows:
    """The noise scale where the target was reached; nothing where it is not known."""
    size = findings.noise_scale.global_batch_size
    for cell, curve in zip(findings.cells, findings.noise_curves, strict=True):
        if size is not None and cell.global_batch_size == size and curve.at_target.value:
            return (
                (
                    "gradient noise scale at the target",
                    number(curve.at_target.value),
                    between(curve.at_target.interval),
                    f"the same, where the runs with a batch of {size:,} reached the target",
                ),
            )
    return ()


def noise_places(findings: Findings) -> str:
    """The noise scale at the target and at the end of the headline's cell, in a sentence."""
    size = findings.noise_scale.global_batch_size
    for cell, curve in zip(findings.cells, findings.noise_curves, strict=True):
        if size is not None and cell.global_batch_size == size:
            at_target = (
                f"{_either(curve.at_target)} at the target and " if curve.at_target.value else ""
            )
            return f"With a batch of {size:,}: {at_target}{_either(curve.at_end)} at the end."
    return ""


def tradeoff_target(findings: Findings) -> str:
    """Which target the trade-off is at; empty where it is not known."""
    if findings.tradeoff_target is None:
        return ""
    text = f"; target {number(findings.tradeoff_target)}"
    if not findings.sweep.has_target:
        text += ", the lowest loss that every cell reached: chosen after the fact"
    return text


def critical_notes(findings: Findings) -> list[str]:
    """What must be known to read the critical batch sizes: their disagreement, the fit's limits."""
    fit = findings.tradeoff
    notes = [agreement.words for agreement in findings.agreements]
    if fit.misfit_exceeds_seeds and fit.rms_misfit is not None:
        notes.append(
            f"The points miss the curve S = min_steps + min_examples / B by {fit.rms_misfit:.1%}, "
            "more than their seeds explain: steps do not bend just so, or cells are not equally "
            "well tuned. The interval allows for it. From the seeds alone, for the curve "
            f"that fits these batch sizes best, it would be {between(fit.of_seeds.critical)}."
        )
    if fit.value is not None and picked_on_search(findings):
        notes.append(
            "The steps are each cell's fastest of several search trials, picked and measured on "
            "the same data: min_steps and min_examples are biased downwards, by about as much as "
            "the best of as many draws of the noise lies below its mean."
        )
    if fit.value is not None and fit.num_trials == fit.num_batches:
        notes.append(
            "One run a batch size: the interval is from the scatter around the curve alone."
        )
    return notes


def picked_on_search(findings: Findings) -> bool:
    """True when steps are those of the best of several recipes on the same trials."""
    return any(
        cell.source == "search"
        and len({row.recipe_key for row in findings.sweep.rows_of(cell.cell, "search")}) > 1
        for cell in findings.cells
    )


def loss_parts_rows(findings: Findings) -> tuple[tuple[str, ...], Rows] | None:
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
            f"{counted(parts.total.count, 'paired seed')}" if parts.total.count else parts.note,
        )
        for parts in findings.loss_parts
    )
    columns = (
        "global_batch_size", "steps", f"loss − loss at {reference:,}", "due to fewer updates",
        "the rest", "from",
    )  # fmt: skip
    return columns, rows


def differences_words(findings: Findings) -> list[str]:
    """The gap of the largest batch over the reference batch's at each kind of equal progress."""
    lines: list[str] = []
    sized = [cell for cell in findings.cells if cell.global_batch_size is not None]
    if not findings.one_series or not sized:
        return lines
    largest = max(sized, key=lambda cell: cell.global_batch_size or 0)
    place = findings.cells.index(largest)
    names = {"steps": "equal steps", "examples": "equal examples", "train_loss": "equal train_loss"}
    for matched in findings.matched_gaps:
        difference = matched.differences[place] if matched.differences else ABSENT
        if difference.value is not None and difference.interval is not None:
            lines.append(
                f"At {names[matched.matched]}, the gap at {largest.global_batch_size:,} minus that "
                f"at {matched.reference_batch_size:,} is {_either(difference)} nats over "
                f"{counted(difference.count, 'paired seed')}: {_sign(difference)}."
            )
    return lines


def _sign(difference: Estimate) -> str:
    assert difference.interval
    low, high = difference.interval
    if low > 0:
        return "larger"
    return "smaller" if high < 0 else "the data do not tell it from zero"


def relations_words(findings: Findings) -> list[str]:
    """Rank correlations of the gap, or that there is not enough data for one."""
    names = {
        "sharpness": "sharpness",
        "hessian_top_eigenvalue": "the largest curvature",
        "grad_noise_scale": "the gradient noise scale",
    }
    return [
        f"The gap against {names[relation.against]}: {correlation_words(relation)}"
        for relation in findings.gap_relations
        if len(relation.points) > 1
    ]


def correlation_words(relation: GapRelation) -> str:
    """The rank correlation of a relation, or that there is not enough data for one."""
    over = f"over {counted(len(relation.points), 'cell')}"
    if relation.correlation.value is None:
        return f"not enough data {over} for a rank correlation (from eight cells on)."
    return f"rank correlation {_either(relation.correlation)} {over}."


def name(cell: CellResult) -> str:
    """A cell as a legend's entry."""
    only_batch = set(cell.cell) == {"global_batch_size"}
    return f"{cell.global_batch_size:,}" if only_batch else cell.label
