"""What a study leaves open, and what to run to know it."""

from collections.abc import Iterable, Iterator, Sequence

from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.report.words.numbers import cell_name, first_few, joined
from scaling.report.words.series import axes_words

JOINT_CAVEAT = "A joint search finds a recipe; it does not compare tuned batch sizes."


def unknown(findings: Findings) -> Iterator[str]:
    """What matters most of what is not known, in several ways, the longest first."""
    return iter(_most(findings))


def _most(findings: Findings) -> Iterable[str]:
    sweep, fit = findings.sweep, findings.tradeoff
    if sweep.is_joint:
        return [JOINT_CAVEAT]
    lost = [cell for cell in findings.cells if not _has_result(findings, cell)]
    if 2 * len(lost) >= len(findings.cells):
        return _without_result(findings, lost)
    if any(cell.undertuned for cell in findings.cells):
        return _undertuned(findings)
    if not any(cell.num_seeds > 1 for cell in findings.cells):
        return [
            "How much of a difference is noise is not known: repeat each cell's recipe with "
            "at least three seeds."
        ]
    if len(findings.cells) == 1:
        return [
            "How results change with the batch is not known: run at least three batch sizes, a "
            "factor of three or four apart."
        ]
    if findings.series:
        return _of_series(findings)
    if not findings.one_series:
        return [
            "How the rate moves with the batch is not known: compare cells that differ only in "
            "the batch."
        ]
    if not sweep.has_target:
        return [
            "How many steps a larger batch saves is not known without a target: set one that "
            "every batch size reaches."
            if fit.headline.interval is None
            else "How many steps a larger batch saves is known only at a loss chosen after the "
            "fact: set a target beforehand."
        ]
    if fit.headline.interval is None:
        return _far_batch(findings)
    if findings.lr_scaling.exponent.interval is None and any(c.curve for c in findings.cells):
        return [
            "How the rate moves is not known: search rates on both sides of the best one at three "
            "or more batch sizes."
        ]
    return [
        "Other models, data and budgets were not measured: repeat the study there, or predict "
        "larger sizes with a ladder."
    ]


def _has_result(findings: Findings, cell: CellResult) -> bool:
    """Whether a trial of a cell ended, with what is read of it."""
    return any(
        row.tuned_value is not None or row.steps_to_target is not None
        for row in findings.sweep.rows
        if row.cell == cell.cell and row.status == "done"
    )


def _without_result(findings: Findings, lost: Sequence[CellResult]) -> Iterator[str]:
    """What to run where most cells have no trial that ended with a result."""
    rows, cells = findings.sweep.rows, [cell.cell for cell in lost]
    more = "run more trials"
    if any(row.status == "diverged" and row.cell in cells for row in rows):
        more = "find a rate at which one does, below those tried"
    elif any(row.status == "failed" for row in rows):
        more = "the table of incidents has the causes"
    if len(lost) == len(findings.cells):
        yield f"Nothing is known yet: no trial ended with a finite result; {more}."
        return
    names = joined([cell.label for cell in lost], "and")
    yield f"Nothing is known of {names}: no trial ended there with a finite result; {more}."
    yield f"Most cells are not known: no trial ended there with a finite result; {more}."


def _far_batch(findings: Findings) -> Iterator[str]:
    """What to run to know the critical batch size."""
    start = "How far the batch can grow is not known"
    where = {"bend_above": "larger batch sizes", "bend_below": "smaller batch sizes"}
    gaps = [cell_name(cell) for cell in findings.cells if cell.target.first_gap is not None]
    if gaps and findings.tradeoff.missing not in where:
        yield f"{start}: evaluate more often early on at {joined(gaps, 'and')}."
        yield f"{start}: evaluate more often early on."
        return
    is_there = any(cell.target.steps.value == 0 for cell in findings.cells)
    if is_there and findings.tradeoff.missing not in where:
        yield f"{start}: set a stricter target, at which no run begins."
        return
    more = where.get(findings.tradeoff.missing or "", "more batch sizes that reach the target")
    yield f"{start}: run {more}."


def _of_series(findings: Findings) -> Iterator[str]:
    """What is open where cells differ in more than the batch size."""
    open_rates = [s for s in findings.series if s.lr_scaling.exponent.interval is None]
    open_bends = [s for s in findings.series if s.tradeoff.headline.interval is None]
    some = f"for every {axes_words(findings)}"
    if findings.sweep.has_target and open_bends:
        names = "; ".join(first_few([series.label for series in open_bends]))
        yield f"How far the batch can grow is not known with {names}."
        yield f"How far the batch can grow is not known {some}."
    elif open_rates:
        names = "; ".join(first_few([series.label for series in open_rates]))
        yield f"How the rate moves with the batch is not known with {names}."
        yield f"How the rate moves with the batch is not known {some}."
    else:
        yield "Other models, data and budgets were not measured: repeat the study there."


def _undertuned(findings: Findings) -> Iterator[str]:
    """Which cells need more search, and which search."""
    flagged = [cell for cell in findings.cells if cell.undertuned]
    reasons = {reason for cell in flagged for reason in cell.undertuned}
    is_edge = bool(reasons - {"best_still_falling", "regret_above_limit"})
    more = "a wider range of rates" if is_edge else "more search trials"
    if len(flagged) == len(findings.cells) and len(flagged) > 1:
        yield f"Every cell may be undertuned; {more} may change these comparisons."
        return
    names = "; ".join(first_few([cell.label for cell in flagged]))
    yield f"Possibly undertuned, so read with care: {names}; {more} would tell."
    yield f"Some cells may be undertuned, so read with care; {more} would tell."
