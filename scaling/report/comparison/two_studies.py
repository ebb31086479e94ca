"""Writes a comparison of two studies: report.html, report.md, summary.json and figures/."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling.analysis.contrasts import Comparison, Contrast, compare
from scaling.analysis.statistics.uncertainty import LEVEL
from scaling.files.names import file_name
from scaling.files.own import require_report_folder, write_report_files
from scaling.files.user_path import user_path
from scaling.report.comparison.contrast_charts import compare_figures
from scaling.report.comparison.sides import differing_fields, read_side, renamings_of
from scaling.report.page.printable import printable
from scaling.report.page.rendering import figure_files, markdown, page, script_json
from scaling.report.plain import with_why
from scaling.report.tables import study_tables
from scaling.report.tables.table import Table
from scaling.report.words import why_null
from scaling.report.words.differences import comparability_notes, comparison_headline
from scaling.report.words.numbers import between, number

_METHODS = {
    "paired": "paired by seed",
    "welch": "unpaired, Welch",
    "mover": "from both intervals",
    "none": "no replicates",
}


def write_comparison(
    names: tuple[str, str],
    output: Path | None = None,
    *,
    tracking_uri: str | None = None,
    rename: Sequence[tuple[str, str]] = (),
) -> tuple[Path, dict[str, Any]]:
    """Compare two studies and write what comes out.

    Args:
        names: Of the studies in MLflow, or paths of reports' folders or of tables.
        output: Folder for the comparison; reports/A_vs_B where None.
        tracking_uri: See `scaling.sinks.resolve_tracking_uri`.
        rename: (their column, our column), for the tables that have the column.

    Returns:
        The folder, and the summary as written to summary.json (its keys: `summary_of`).

    Raises:
        LookupError: If the two are one study, or one of them does not exist.
        TrackingError: If MLflow's store cannot be read.
        TableError: If a table cannot be read.
        ForeignFolderError: If the folder holds other files; none is touched.
        OSError: If the folder cannot be written.
    """
    if names[0] == names[1] or _same_file(*names):
        raise LookupError(f"--compare needs two studies; {names[0]!r} was given twice")
    a, b = (
        read_side(name, tracking_uri, of_side)
        for name, of_side in zip(names, renamings_of(names, rename), strict=True)
    )
    folder = output or Path("reports") / file_name(f"{a.name}_vs_{b.name}")
    require_report_folder(folder)
    comparison = compare(a.findings, b.findings)
    fields = differing_fields(a, b)
    summary = summary_of(comparison, (a.name, b.name), fields)
    labels = (f"A: {a.name}", f"B: {b.name}")
    read = zip("AB", (a, b), strict=True)
    summary["notes"] += [printable(f"{letter}: {note}") for letter, s in read for note in s.notes]
    drawn = compare_figures(comparison, labels)
    shown = [figure for figure in drawn if figure.spec is not None]
    view = {
        "title": f"{a.name} and {b.name}",
        "labels": labels,
        "summary": summary,
        "contrasts": _contrasts_table(comparison),
        "fields": Table(("field", *labels), tuple(fields)) if fields else None,
        "sides": [(label, study_tables.cells_table(side.findings)) for label, side in zip(
            labels, (a, b), strict=True)],
        "figures": shown,
        "absent": [figure for figure in drawn if figure.spec is None],
        "specs": {figure.name: script_json(figure.spec) for figure in shown},
    }  # fmt: skip
    write_report_files(
        folder,
        {
            **figure_files(drawn),
            "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
            "report.md": markdown("compare.md", view),
            "report.html": page("compare.html", view, ()),
        },
    )
    return folder, summary


def _same_file(a: str, b: str) -> bool:
    first, second = user_path(a), user_path(b)
    return first.exists() and second.exists() and first.samefile(second)


def summary_of(
    comparison: Comparison, names: tuple[str, str], fields: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    """The comparison as plain data.

    Keys: `studies` (names of `a` and `b`), `headline`, `answer`, `interval_level`, `comparable`
    (`losses`, `targets`: in the same unit, to the same loss; `same_data`: seeds may pair), `notes`,
    `num_intervals`, `num_apart` (that leave out zero difference), `expected_apart_by_chance`,
    `num_apart_holm` (that also stand with Holm's correction), `contrasts` (one a shared cell
    and measure, those of the whole study last, as the fields of `analysis.contrasts.Contrast`),
    `only_a`, `only_b` (cells that the other lacks) and `differing_fields` (`field`, `a`, `b`).
    """
    setup, said = comparison.setup, comparison_headline(comparison, names)
    return {
        "studies": {"a": names[0], "b": names[1]},
        "headline": said,
        "answer": said,
        "interval_level": LEVEL,
        "comparable": {
            "losses": setup.losses, "targets": setup.targets, "same_data": setup.same_data,
        },
        "notes": comparability_notes(comparison, names),
        "num_intervals": comparison.num_intervals,
        "num_apart": comparison.num_apart,
        "expected_apart_by_chance": round(comparison.expected_by_chance, 6),
        "num_apart_holm": sum(contrast.holm for contrast in comparison.contrasts),
        "contrasts": [_plain(contrast) for contrast in comparison.contrasts],
        "only_a": list(comparison.only_a),
        "only_b": list(comparison.only_b),
        "differing_fields": [{"field": f, "a": a, "b": b} for f, a, b in fields],
    }  # fmt: skip


def _plain(contrast: Contrast) -> dict[str, Any]:
    interval = list(contrast.interval) if contrast.interval else None
    entry = asdict(contrast) | {"interval": interval, "apart": contrast.apart}
    return with_why(entry, why_null.of_contrast(contrast))


def _apart(contrast: Contrast) -> str:
    if contrast.diverged:
        return f"{' and '.join(contrast.diverged)} diverged"
    return "stands with Holm" if contrast.holm else "apart" if contrast.apart else "–"


def _contrasts_table(comparison: Comparison) -> Table | None:
    if not comparison.contrasts:
        return None
    rows = tuple(
        (
            contrast.cell or "whole study",
            contrast.measure,
            number(contrast.a, 4),
            number(contrast.b, 4),
            "B − A" if contrast.kind == "difference" else "B / A",
            number(contrast.value),
            between(contrast.interval),
            _METHODS[contrast.method],
            f"{contrast.num_a}, {contrast.num_b}" if contrast.num_a else "–",
            _apart(contrast),
        )
        for contrast in comparison.contrasts
    )
    columns = (
        "cell", "measure", "A", "B", "as", "value", "90% interval", "method", "seeds", "apart",
    )  # fmt: skip
    return Table(columns, rows)
