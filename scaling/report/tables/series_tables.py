"""Tables of studies whose cells differ in more than the batch size, a row for each series."""

from scaling.analysis.contrasts import between_series
from scaling.analysis.findings import Findings
from scaling.report.tables.table import Table
from scaling.report.words.absent import no_exponent, no_tradeoff
from scaling.report.words.numbers import DASH, between, either, number
from scaling.report.words.series import excluded_words


def exponents_table(findings: Findings) -> Table | None:
    """How the best rate moves with the batch in each series."""
    if not any(cell.curve for series in findings.series for cell in series.cells):
        return None
    against = _against(findings, "lr_exponent")
    rows = tuple(
        (
            series.label,
            number(series.lr_scaling.exponent.value, 2),
            between(series.lr_scaling.exponent.interval, 2),
            no_exponent(series) or excluded_words(series.lr_scaling) or "none",
            against.get(series.label, DASH),
        )
        for series in findings.series
    )
    heads = ("exponent", "90% interval", "evidence against", "difference from the first row")
    return Table(("cells", *heads), rows)


def critical_batches_table(findings: Findings) -> Table | None:
    """The critical batch size of each series at one target; None without a target."""
    if not findings.series or not findings.sweep.has_target:
        return None
    against = _against(findings, "critical_batch_size")
    rows = tuple(
        (
            series.label,
            number(series.tradeoff.headline.value),
            between(series.tradeoff.headline.interval),
            either(series.tradeoff.free.alpha),
            no_tradeoff(series.tradeoff) or DASH,
            against.get(series.label, DASH),
        )
        for series in findings.series
    )
    heads = ("cells", "critical batch size", "90% interval", "α", "note", "ratio to the first row")
    return Table(heads, rows)


def _against(findings: Findings, measure: str) -> dict[str, str]:
    """Each series' number against the first one's, by the series."""
    return {
        other.label: f"{number(contrast.value)} {between(contrast.interval)}"
        for _, other, contrast in between_series(findings)
        if contrast.measure == measure
    }
