"""Two studies to compare, from MLflow, a folder or a table, and what sets them apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaling.analysis.compare import Setup
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.rows import Sweep, TrialRow, sweep_of
from scaling.report.from_csv import TableError, read_table
from scaling.report.trials_table import OWN
from scaling.spec import StudySpec

_TABLES = (".csv", ".tsv", ".gz", ".parquet")
_PER_TOKEN = ("causal_lm", "seq2seq")


@dataclass(frozen=True)
class Side:
    """One of the two studies.

    Attributes:
        spec: None where it is from a table or a report's folder, which do not hold it.
        environment: As recorded; empty where it is not known.
    """

    name: str
    findings: Findings
    spec: StudySpec | None = None
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_side(name: str, tracking_uri: str | None, rename: Sequence[tuple[str, str]] = ()) -> Side:
    """A study by its name in MLflow, or by the path of a report's folder or of a table.

    Raises:
        LookupError: If there is no such study.
        TableError: If the folder or the table cannot be read.
    """
    path = Path(name)
    if path.is_dir() and (path / "trials.parquet").exists():
        return _from_folder(path)
    if path.suffix.lower() in _TABLES or path.is_file():
        sweep = read_table(path, rename=rename).sweep
        return Side(sweep.name, analyse(sweep))
    from scaling.tracking import TrackingError, load_study

    try:
        study = load_study(name, tracking_uri)
    except TrackingError as error:
        raise LookupError(str(error)) from error
    return Side(name, analyse(sweep_of(study)), study.spec, study.environment)


def _from_folder(folder: Path) -> Side:
    """A report's own trials; runs, curves and the study's file are not in the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        records = pq.read_table(folder / "trials.parquet").to_pylist()
        rows = tuple(_row(record) for record in records)
        name, question = summary["study"], summary["question"]
        target = summary["critical_batch_size"]["steps_examples"]["target"]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise TableError(f"{folder}: is not the folder of a report: {error!r}") from error
    cells = tuple(dict(cell) for cell in dict.fromkeys(tuple(r.cell.items()) for r in rows))
    reached = any(row.steps_to_target is not None for row in rows)
    sweep = Sweep(name, question, rows, cells, has_target=reached, target=target)
    return Side(name, analyse(sweep))


def _row(record: Mapping[str, Any]) -> TrialRow:
    own = {name: record[name] for name in OWN}
    cell, choices = json.loads(record["cell"]), json.loads(record["choices"])
    return TrialRow(**own, cell=cell, choices=choices, recipe_key=record["trial_id"])


def setup_of(a: Side, b: Side) -> Setup:
    """What of the two studies may be set against each other."""
    notes: list[str] = []
    unit = _other_unit(a, b)
    if unit:
        notes.append(f"Losses are not compared, nor gaps and what depends on a target: {unit}.")
    if a.spec is None or b.spec is None:
        notes.append(
            "Of a table or a report's folder the task, the tokenizer and the data are not "
            "known: losses are compared as if they were in the same unit and on the same "
            "examples. If they are not, the differences mean nothing."
        )
    names = {side.findings.sweep.loss_name for side in (a, b)}
    if len(names) > 1:
        notes.append(f"The losses have different names: {' and '.join(sorted(names))}.")
    ours, theirs = a.findings.sweep, b.findings.sweep
    same_target = ours.target is None or theirs.target is None or ours.target == theirs.target
    if ours.has_target and theirs.has_target and not same_target:
        notes.append(
            f"Steps, examples and seconds to target, and the critical batch size, are not "
            f"compared: the targets are {ours.target:g} and {theirs.target:g}."
        )
    same_data = _same_data(a, b)
    if same_data:
        notes.append("Same data and split: seeds that both studies confirmed with are paired.")
    elif a.environment and b.environment:
        notes.append("Their data or its split differ, so that nothing is paired by seed.")
    return Setup(not unit, same_target, same_data, tuple(notes))


def _other_unit(a: Side, b: Side) -> str:
    """Why a nat per target is not the same in both; empty where nothing says so."""
    if a.spec is None or b.spec is None:
        return ""
    one, other = a.spec.workload.model_dump(), b.spec.workload.model_dump()
    if one["task"] != other["task"]:
        return f"the tasks are {one['task']} and {other['task']}"
    data = [w.get("data") or {} for w in (one, other)]
    if any(data[0].get(key) != data[1].get(key) for key in ("source", "files", "subset")):
        return "they are evaluated on other texts"
    tokenizers = [_tokenizer(workload) for workload in (one, other)]
    if one["task"] in _PER_TOKEN and tokenizers[0] != tokenizers[1]:
        return f"their tokens are of other tokenizers, {tokenizers[0]} and {tokenizers[1]}"
    if tokenizers[0].startswith("subwords") and not _same_data(a, b):
        return "each has learnt its subwords from other texts"
    return ""


def _tokenizer(workload: Mapping[str, Any]) -> str:
    data, model = workload.get("data") or {}, workload.get("model") or {}
    name = data.get("tokenizer") or model.get("pretrained") or "characters"
    return f"{name} of {data['vocab_size']}" if name == "subwords" else str(name)


def _same_data(a: Side, b: Side) -> bool:
    """The content hash is of the split data; the counts tell how much of it was evaluated."""
    if not a.environment.get("data_sha256") or a.spec is None or b.spec is None:
        return False
    counts = {k for side in (a, b) for k in side.environment if k.startswith("num_evaluated_")}
    keys = {"data_sha256", "num_train", *counts}
    return all(a.environment.get(key) == b.environment.get(key) for key in keys)


def differing_fields(a: Side, b: Side) -> list[tuple[str, str, str]]:
    """(dotted field, in A, in B) of what the two study files, or their machines, do not share."""
    ours, theirs = _flat(a), _flat(b)
    return [
        (name, ours.get(name, "–"), theirs.get(name, "–"))
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]


def _flat(side: Side) -> dict[str, str]:
    flat: dict[str, str] = {}
    if side.spec is not None:
        _flatten("", side.spec.model_dump(mode="json", exclude={"name", "question", "storage"}),
                 flat)  # fmt: skip
    for name in ("commit", "processor", "device", "data_sha256"):
        if side.environment.get(name):
            flat[f"environment.{name}"] = str(side.environment[name])
    return flat


def _flatten(path: str, value: Any, flat: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            _flatten(f"{path}.{name}" if path else str(name), inner, flat)
    elif value is not None:
        flat[path] = json.dumps(value) if isinstance(value, list | dict) else str(value)
