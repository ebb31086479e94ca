"""What series of batch sizes say beside each other: other optimizers, say, in one study."""

from collections.abc import Iterator, Sequence

from scaling.analysis.contrasts import between_series
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import LrScaling
from scaling.analysis.series import Series
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.report.words.absent import no_exponent
from scaling.report.words.numbers import joined, number, with_ends

_MOST_NAMED = 3
_REFERENCES = {0.0: "0", 0.5: "½", 1.0: "1"}


def critical_batches_words(findings: Findings) -> Iterator[str]:
    """The critical batch size of each series, in several ways, the longest first."""
    start = "The critical batch size (steps–examples fit) is"
    known = [
        (series, series.tradeoff.headline)
        for series in findings.series
        if series.tradeoff.headline.interval is not None
    ]
    yield from _beside(findings, start, known, 3, " examples")


def exponents_words(findings: Findings) -> Iterator[str]:
    """How the best rate moves in each series, in several ways, the longest first."""
    start = "The best peak learning rate moves as the batch to the power"
    known = [
        (series, series.lr_scaling.exponent)
        for series in findings.series
        if series.lr_scaling.exponent.interval is not None
    ]
    yield from _beside(findings, start, known, 2, "")
    searched = [s for s in findings.series if any(cell.curve for cell in s.cells)]
    if searched and not known:
        yield (
            "Not enough data on how the best rate moves with the batch "
            f"({no_exponent(searched[0])}, with {searched[0].label})."
        )
        yield "Not enough data to say how the best rate moves with the batch."


def contrast_words(findings: Findings) -> Iterator[str]:
    """How far the critical batch sizes are apart: of two series, in several ways."""
    found = [
        (first, other, contrast)
        for first, other, contrast in between_series(findings)
        if contrast.measure == "critical_batch_size" and contrast.interval is not None
    ]
    if len(findings.series) != 2 or not found:
        return
    first, other, contrast = found[0]
    ratio = with_ends(Estimate(contrast.value, contrast.interval))
    said = "the data distinguish them" if contrast.apart else "the data do not distinguish them"
    yield (
        f"The critical batch size with {other.label} is {ratio} times that with {first.label}; "
        f"{said}."
    )
    yield f"The two critical batch sizes have a ratio of {ratio}; {said}."


def axes_words(findings: Findings) -> str:
    """The scientific axes beside the batch size."""
    return joined(list(findings.series[0].others), "and")


def excluded_words(scaling: LrScaling) -> str:
    """Which reference exponents there is evidence against: 0, ½ (fairly strong) and 1."""
    against = [
        f"{_REFERENCES[entry.exponent]}{'' if entry.strength == 'strong' else ' (fairly strong)'}"
        for entry in scaling.evidence
        if entry.strength != "not_strong"
    ]
    return joined(against, "and")


def _beside(
    findings: Findings, start: str, known: Sequence[tuple[Series, Estimate]], digits: int, unit: str
) -> Iterator[str]:
    """A sentence with the value of each series, or of the least and the largest one."""
    found = [(series, estimate) for series, estimate in known if estimate.value is not None]
    if not found:
        return
    named = [
        f"{with_ends(estimate, digits)}{unit if place == 0 else ''} with {series.label}"
        for place, (series, estimate) in enumerate(found)
    ]
    if len(found) <= _MOST_NAMED:
        yield f"{start} {joined(named, 'and')}."
    by_value = sorted(found, key=lambda pair: pair[1].value or 0.0)
    (least, low), (largest, high) = by_value[0], by_value[-1]
    if len(found) > 1:
        yield (
            f"{start} between {with_ends(low, digits)} (with {least.label}) and "
            f"{with_ends(high, digits)}{unit} (with {largest.label})."
        )
        ends = f"{number(low.value, digits)} and {number(high.value, digits)}"
        yield f"{start} between {ends}{unit}, depending on {axes_words(findings)}."
