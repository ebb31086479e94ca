"""Two studies to compare, from MLflow, a folder or a table, and what sets them apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from scaling.analysis.conditions import Conditions
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import Sweep, TrialRow, sweep_of
from scaling.files.json_text import MAX_BYTES, is_shallow, parse_mapping
from scaling.files.own import read_bounded
from scaling.files.user_path import user_path
from scaling.records.metrics import Metric, Unit
from scaling.records.objective import VALIDATION_LOSS, Objective
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.foreign_tables.table_text import read_text
from scaling.report.tables.trials_parquet import OWN
from scaling.report.words.differences import budget_words
from scaling.spec.study import StudySpec
from scaling.surface.loss_surface import Limit

TABLES = (".csv", ".tsv", ".gz", ".parquet")
_MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError)
_WAY_ON = "write the table's report with --from-csv, and compare its folder"


@dataclass(frozen=True)
class Side:
    """One of the two studies.

    Attributes:
        spec: None where it is from a table or a report's folder, which do not hold it.
        environment: As recorded; empty where it is not known.
        notes: How a table was read.
    """

    name: str
    findings: Findings
    spec: StudySpec | None = None
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()

    @property
    def conditions(self) -> Conditions | None:
        """What its losses were measured under; None where that is not known."""
        return self.findings.sweep.conditions


def read_side(name: str, tracking_uri: str | None, rename: Sequence[tuple[str, str]] = ()) -> Side:
    """A study by its name in MLflow, or by the path of a report's folder or of a table.

    Raises:
        LookupError: If there is no such study.
        TrackingError: If MLflow's store cannot be read.
        TableError: If the folder or the table cannot be read.
    """
    path = user_path(name)
    if _is_report(path):
        sweep = sweep_of_report(path)
        return Side(sweep.name, analyse(sweep))
    if _is_table(path):
        try:
            table = read_table(path, rename=rename)
        except TableError as error:
            if not error.offers:
                raise
            raise TableError(f"{error}; a comparison takes --rename alone: {_WAY_ON}") from error
        notes = table.notes
        if table.has_other_ways:
            notes += (f"A comparison takes --rename alone: for other options {_WAY_ON}.",)
        return Side(table.sweep.name, analyse(table.sweep), notes=notes)
    from scaling.sinks.mlflow.load import load_study

    study = load_study(name, tracking_uri)
    return Side(name, analyse(sweep_of(study)), study.spec, study.environment)


def _is_report(path: Path) -> bool:
    return path.is_dir() and (path / "trials.parquet").exists()


def _is_table(path: Path) -> bool:
    return not _is_report(path) and (path.suffix.lower() in TABLES or path.is_file())


def renamings_of(
    names: tuple[str, str], rename: Sequence[tuple[str, str]]
) -> list[list[tuple[str, str]]]:
    """The renamings of each side: those of its own columns, and those that neither table has.

    Raises:
        TableError: If a table cannot be read, or there is none.
    """
    headers: list[list[str]] = []
    for name in names if rename else ():
        if _is_table(user_path(name)):
            with read_text(user_path(name)) as text:
                headers.append(text.header)
        else:
            headers.append([])
    if rename and not any(headers):
        raise TableError("--rename names columns of a table, and neither side is one")

    def has(header: Sequence[str], theirs: str) -> bool:
        parts = [part.strip() for part in theirs.split("*")]
        return theirs in header or all(part in header or part.isdigit() for part in parts)

    known = {theirs for theirs, _ in rename for header in headers if has(header, theirs)}
    return [
        [pair for pair in rename if has(header, pair[0]) or pair[0] not in known]
        for header in headers
    ] or [[], []]


def sweep_of_report(folder: Path) -> Sweep:
    """A report's own trials; runs, curves and the study's file are not in the folder.

    Raises:
        TableError: If it is not the folder of a report, or does not say what it was tuned for.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        summary = parse_mapping(read_bounded(folder / "summary.json", MAX_BYTES))
        records = pq.read_table(folder / "trials.parquet").to_pylist()
        tuned = _tuned(folder, summary, records)
        metrics = {name: _metric(known) for name, known in summary.get("metrics", {}).items()}
        searched = _searched(records)
        rows = tuple(_row(record, searched, tuned["tuned_for"], metrics) for record in records)
        name, question = summary["study"], summary["question"]
        target = summary["critical_batch_size"]["steps_examples"]["target"]
        _require_words(name, question, target)
        known = summary.get("conditions")
        known = {n: value for n, value in (known or {}).items() if n != "why"}
        conditions = Conditions(**known) if known else None
        if conditions is not None:
            budget_words(conditions.budget)  # of numbers, or it is not ours
        order = [repr(_cell_of(entry)) for entry in summary["cells"]]
    except TableError:
        raise
    except (*_MALFORMED, pa.ArrowException) as error:
        raise TableError(f"{folder}: is not the folder of a report: {error!r}") from error
    places = {cell: place for place, cell in enumerate(order)}
    cells = [dict(cell) for cell in dict.fromkeys(tuple(r.cell.items()) for r in rows)]
    cells.sort(key=lambda cell: places.get(repr(cell), len(places)))
    return Sweep(
        name, question, rows, tuple(cells), target=target, conditions=conditions, metrics=metrics,
        **tuned,
    )  # fmt: skip


_OBJECTIVE, _METRIC = TypeAdapter(Objective), TypeAdapter(Metric)
_UNIT, _LIMIT = TypeAdapter[Unit](Unit), TypeAdapter(Limit)


def _tuned(
    folder: Path, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What its recipes are compared by.

    Raises:
        TableError: Where an older version left it out, and it may be something else than the loss.
    """
    if "tuned_for" in summary:
        return {
            "objective": str(summary["objective"]),
            "tuned_for": _OBJECTIVE.validate_python(summary["tuned_for"]),
            "has_target": summary["has_target"] is True,
            "target_metric": _OBJECTIVE.validate_python(summary["target_metric"]),
            "loss_unit": _UNIT.validate_python(summary["loss_unit"]),
            "small_regret": _LIMIT.validate_python(summary["small_regret"])
            if "small_regret" in summary
            else Sweep.small_regret,
        }
    searched = [r for r in records if r["phase"] == "search" and r["objective"] is not None]
    if any(r["objective"] != r["validation_loss"] for r in searched):
        raise TableError(
            f"{folder}: an older version wrote this report and left out what it was tuned for; "
            "write the report again"
        )
    reached = any(record["steps_to_target"] is not None for record in records)
    return {"tuned_for": VALIDATION_LOSS, "has_target": reached}


def _metric(known: Mapping[str, Any]) -> Metric:
    said = {name: known[name] for name in ("label", "unit", "direction")}
    return _METRIC.validate_python({"help": "", **said})


def _cell_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry.get("cell", {"global_batch_size": entry["global_batch_size"]})


def _require_words(name: Any, question: Any, target: Any) -> None:
    """Raises ValueError where they are of another kind than a report writes."""
    if not (isinstance(name, str) and isinstance(question, str)):
        raise ValueError("summary.json: study and question must be text")
    if target is not None and not isinstance(target, int | float):
        raise ValueError("summary.json: the target must be a number")


def _searched(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the hyperparameters that the search's trials chose."""
    drawn = (parse_mapping(record["choices"]) for record in records if record["phase"] == "search")
    return list(dict.fromkeys(name for choices in drawn for name in choices))


def _row(
    record: Mapping[str, Any], searched: Sequence[str], tuned_for: Objective,
    metrics: Mapping[str, Metric],
) -> TrialRow:  # fmt: skip
    later = ("recipe_key", "left_to_target", "first_gap", "search_round", "surface_round")
    own = {name: record[name] for name in OWN if name not in later}  # reports of before have none
    cell = parse_mapping(record["cell"])
    # A transferred run chose its rate alone; the rest of its recipe stands in columns.
    choices = {n: record[n] for n in searched if n in record} | parse_mapping(record["choices"])
    key, left = record.get("recipe_key") or record["trial_id"], record.get("left_to_target")
    if not all(is_shallow(value, 1) for value in (cell, choices)):
        raise ValueError("a cell or choice is no value")
    gap = record.get("first_gap")
    return TrialRow(
        **own, cell=cell, choices=choices, recipe_key=key, left_to_target=left,
        first_gap=None if gap is None else (float(gap[0]), float(gap[1])),
        search_round=record.get("search_round") or 0, surface_round=record.get("surface_round"),
        tuned_for=tuned_for,
        metrics={n: float(record[n]) for n in metrics if record.get(n) is not None},
    )  # fmt: skip


def differing_fields(a: Side, b: Side) -> list[tuple[str, str, str]]:
    """(dotted field, in A, in B) of what the two study files, or their machines, do not share."""
    ours, theirs = _flat(a), _flat(b)
    return [
        (name, ours.get(name, "–"), theirs.get(name, "–"))
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]


def _flat(side: Side) -> dict[str, str]:
    """Of a report's folder what its summary says of the study file."""
    flat: dict[str, str] = {}
    if side.spec is not None:
        _flatten("", side.spec.model_dump(mode="json", exclude={"name", "question", "storage"}),
                 flat)  # fmt: skip
    elif side.conditions is not None:
        _flatten("budget", dict(side.conditions.budget), flat)
        flat["workload.task"] = side.conditions.task
    if side.conditions is not None:
        measured = {"source": None, "task": None, "budget": None}
        _flatten("conditions", asdict(side.conditions) | measured, flat)
    for name in ("commit", "processor", "device"):
        if side.environment.get(name):
            flat[f"environment.{name}"] = str(side.environment[name])
    return flat


def _flatten(path: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            _flatten(f"{path}.{name}" if path else str(name), inner, flat)
    elif value is not None:
        flat[path] = json.dumps(value) if isinstance(value, list | dict) else str(value)
