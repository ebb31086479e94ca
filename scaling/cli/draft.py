"""From a table of data to a study file that runs: what `scaling init` writes."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import yaml

from scaling.cli.table_columns import (
    MOST_CLASSES,
    Draft,
    NoDraftError,
    distinct_values,
    is_number,
    mean_length,
    of_columns,
)
from scaling.files.names import file_name
from scaling.files.shown_path import shown_path
from scaling.spec.checks.data import file_suffix
from scaling.spec.data import DATA_SUFFIXES
from scaling.spec.workloads import FAMILIES, TextWorkload
from scaling.tasks.data.columns import CellReader, Labels, Table, UnfitRowError
from scaling.tasks.data.conll import sentences
from scaling.tasks.data.file_tables import file_table, widest_header
from scaling.tasks.data.squad import squad_questions
from scaling.tasks.errors import DataError

_MOST_LOOKED_AT = 5000
_FEWEST_ROWS = 40
"""Rows from which three splits have a few each."""
_WORDS_OF_NAME = 2
_NEARLY_ALL = 0.95
"""Share of the prompts and chats that have room for their answers."""
_MOST_CHARACTERS, _MOST_SUBWORDS = 2048, 1024
"""Tokens of a prompt with its answer, or of a chat."""
_CONLL_LINES = 0.9
"""Share of a text file's lines that are blank or have the same few columns, of CoNLL's."""
TASKS = tuple(
    name for name, family in FAMILIES.items() if issubclass(family, get_args(TextWorkload))
)
"""The families of texts."""


def study_name(data: Path) -> str:
    """The study's name, after its data file."""
    stem = data.name.split(".", 1)[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
    return file_name(name) if name else "my_study"


def drafted(data: Path, task: str | None = None) -> Draft:
    """Look at a data file.

    Args:
        data: A file with one of the endings in `DATA_SUFFIXES`; all but parquet perhaps with .gz.
        task: The family, where it is not to be guessed.

    Raises:
        NoDraftError: If no family reads such data, or not so few of them.
        DataError: If the file cannot be read.
    """
    _require_table(data)
    if _is_conll(data):
        return _of_conll(data, task)
    is_text = data.name.lower().removesuffix(".gz").endswith(".txt")
    header = () if is_text else _header(data)
    table = file_table(str(data), path="--data", encoding=None, columns=header)
    given = list(islice(filter(None, _mappings(table.records)), _MOST_LOOKED_AT))
    records = list(islice(_questions(given), _MOST_LOOKED_AT))
    if is_text and task not in (None, "causal_lm"):
        raise _unfit(task, "causal_lm")
    if is_text:
        lines = [record["text"] for record in records if record["text"].strip()]
        _require_rows(len(lines))
        why = "Each line of the file is a document."
        return Draft("causal_lm", {}, (why,), len(lines), mean_length(lines))
    names = dict.fromkeys(name for record in records for name in record)
    has_parts = any(isinstance(v, list | Mapping) for v in given[0].values()) if given else False
    if len(given) == 1 and has_parts and "question" not in names:
        raise NoDraftError(
            f"--data: {data.name} is one mapping ({', '.join(given[0])}); write a list of rows, "
            'as in [{"text": "…", "label": "…"}]'
        )
    _require_rows(len(records))
    columns: dict[str, Sequence[Any]] = {n: [r.get(n) for r in records] for n in names}
    _require_names(data, header, columns)
    found = of_columns(columns, task)
    if task not in (None, found.task):
        raise _unfit(task, found.task)
    texts = [str(value) for value in columns[next(iter(found.columns.values()))]]
    found = _without_missing(found, columns, table)
    if not {"prompt_column", "messages_column"}.isdisjoint(found.columns):
        read = [columns[name] for name in found.columns.values()]
        joined = sorted(sum(len(str(text)) for text in row) for row in zip(*read, strict=True))
        found = replace(found, num_joined=joined[int(_NEARLY_ALL * len(joined))])
    return replace(found, num_rows=len(records), num_characters=mean_length(texts))


def _require_table(data: Path) -> None:
    """Check that there is a file of a kind that is read."""
    if data.is_dir():
        raise NoDraftError(f"--data: {data} is a folder; name one file, as in {data / 'train.csv'}")
    if not data.is_file():
        raise NoDraftError(f"--data: {data}: there is no such file")
    if (suffix := file_suffix(data.name)) not in DATA_SUFFIXES:
        what = f"ends in {suffix}" if suffix else "has no ending"
        raise NoDraftError(
            f"--data: {data.name} {what}; allowed: {', '.join(DATA_SUFFIXES)} (all but parquet "
            "also with .gz)"
        )
    if not data.stat().st_size:
        raise NoDraftError(f"--data: {data.name} is empty")


def _require_names(data: Path, header: Sequence[str], columns: dict[str, Sequence[Any]]) -> None:
    """Check that the first line has names, and drop a column of row numbers, which has none."""
    for number, name in enumerate(header, start=1):
        if not name.strip():
            values = columns.pop(f"Unnamed: {number - 1}", ())
            if number > 1 and distinct_values(values):
                raise NoDraftError(
                    f"--data: column {number} of {data.name} has no name; give it one in the "
                    "first line"
                )
    classes = [distinct_values(columns.get(name, ())) for name in header]
    is_class = any(
        name.strip() in found and len(found) <= MOST_CLASSES
        for name, found in zip(header, classes, strict=True)
    )
    if is_class and any(len(name.split()) > _WORDS_OF_NAME for name in header):
        raise _no_names(data, header)


def _no_names(data: Path, header: Sequence[str]) -> NoDraftError:
    return NoDraftError(
        f"--data: the first line of {data.name} looks like a row and not like names "
        f"({', '.join(header)[:80]}); put a line of names before it, as in text,label"
    )


def _without_missing(found: Draft, columns: Mapping[str, Sequence[Any]], table: Table) -> Draft:
    """A draft that leaves rows without a text or a label out, where there are some."""
    labels = Labels(("label_column",), "label_names", None, "error", "keep")
    is_labelled = "label_column" in found.columns
    reader = CellReader.of(found.columns, labels if is_labelled else None, table)
    left_out: dict[str, str] = {}
    why: list[str] = []
    for named, column in found.columns.items():
        field = "missing_labels" if named == "label_column" else "missing_texts"
        count = sum(reader.is_missing(named, value) for value in columns[column])
        if count and named != "messages_column":
            left_out[field] = "drop"
            are = "row without {} is" if count == 1 else "rows without {} are"
            why.append(f"{count:,} {are.format(column)} left out.")
    lines = (" ".join(line.split()) for line in (*found.why, *why))  # names may have line breaks
    return replace(found, left_out=left_out, why=tuple(lines))


def _mappings(records: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise NoDraftError(
                f"--data: row {number} is {type(record).__name__}; must be a mapping from "
                'columns to cells, as in {"text": "…", "label": "…"}'
            )
        yield record


def _questions(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Records, and of SQuAD's own JSON the questions inside."""
    try:
        for record in records:
            yield from squad_questions(record, "question")
    except UnfitRowError as error:
        raise NoDraftError(f"--data: {error.message}") from None


def _unfit(task: str | None, found: str) -> NoDraftError:
    return NoDraftError(
        f"--task {task}: the data have no columns for it; they look like {found} "
        "(leave --task out, or write the study file by hand)"
    )


def _require_rows(count: int) -> None:
    if count < _FEWEST_ROWS:
        raise NoDraftError(
            f"--data has {count} row{'s' * (count != 1)}; a study needs at least {_FEWEST_ROWS}, "
            "to train on some, pick recipes on others and report on the rest"
        )


def _header(data: Path) -> tuple[str, ...]:
    """The names in the first line of a delimited file, by the delimiter that makes most of them."""
    if file_suffix(data.name) not in (".csv", ".tsv"):
        return ()
    names = widest_header(str(data), path="--data")
    if any(is_number(name) or len(name) > 60 for name in names):
        raise _no_names(data, names)
    return names


def _is_conll(data: Path) -> bool:
    """Whether the lines of a text file are words in columns, and blank between sentences."""
    suffix = file_suffix(data.name)
    if suffix in (".conll", ".conllu"):
        return True
    if suffix != ".txt" or data.name.lower().endswith(".gz"):
        return False
    with data.open(encoding="utf-8", errors="replace") as file:
        lines = [line.split() for line in islice(file, 200)]
    widths = Counter(len(parts) for parts in lines if parts)
    if not widths:
        raise NoDraftError(f"--data: {data.name} is empty")
    width, count = widths.most_common(1)[0]
    blank = sum(not parts for parts in lines)
    return 2 <= width <= 10 and blank > 0 and count + blank >= _CONLL_LINES * len(lines)


def _of_conll(data: Path, task: str | None) -> Draft:
    if task not in (None, "token_classification"):
        raise _unfit(task, "token_classification")
    table = file_table(str(data), path="--data", columns=(), text_records=sentences)
    found = [" ".join(record["tokens"]) for record in islice(table.records, _MOST_LOOKED_AT)]
    _require_rows(len(found))
    why = "A line is a word, whose tag is its last column (tags_column names another)."
    return Draft("token_classification", {}, (why,), len(found), mean_length(found))


_QUESTION = "Which learning rate does each batch size need, and what does a large batch cost?"
_MODEL = """    architecture: {architecture}
    hidden_size: 64
    intermediate_size: 128
    num_hidden_layers: 2
    num_attention_heads: 2"""
_NO_DROPOUT = "\n    config: {hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}"
_ARCHITECTURES = {"causal_lm": "llama", "seq2seq": "mbart"}
_TEMPLATE = """\
# {why}
# First look: scaling plan {file}     Then: scaling run {file}
name: {name}
question: {question}
seed: 0
workload:
  task: {task}
  model:{model}
{problem}{stride}  data:
    files: {{train: {data}}} # validation and test are set aside from it
{columns}    tokenizer: {tokenizer}
    max_length: {max_length} # tokens per example
scientific: {{global_batch_size: {batches}}} # what is compared; each is tuned as well as the others
nuisance: # what is searched at each batch size
  peak_lr: {{log_uniform: [{low}, {high}]}}
fixed: {{optimizer: adamw, weight_decay: 0.01, schedule: linear, warmup_ratio: 0.1, clip_norm: 1.0}}
budget: {{examples: {examples}, min_steps: {min_steps}}} # of one trial
evaluation: {{every_examples: {every}, num_examples: 400}}
search: {{num_trials: {num_trials}, stop: {{regret_at_most_ratio: 0.01}}}} # of all batch sizes
transfer: {{base_batch_size: {base}, rules: [none, sqrt, linear], num_seeds: 2}} # rules, tried
confirm: {{num_seeds: 3}} # new seeds for the recommended recipes
resources: {{num_workers: 1, cpus_per_worker: 1}} # of one trial; see scaling doctor
"""


def study_text(draft: Draft, data: Path, name: str, file: str, model: str | None) -> str:
    """The study file, commented."""
    num_train = max(draft.num_rows * 8 // 10, 1)
    # Three at least: with two, no exponent of the best rate is fitted.
    batches = [size for size in (8, 32, 128, 512) if size * 4 <= num_train][: 3 if model else 4]
    if len(batches) < 3:
        batches = [2, 8, 32] if 32 in batches else [2, 4, 8]
    examples = min(max(3 * num_train, 1000), 1500 if model else 8000)
    low, high = ("1.0e-5", "5.0e-4") if model else ("3.0e-4", "3.0e-2")
    fields = {**draft.columns, **draft.left_out}
    lines = "".join(f"    {field}: {_quoted(value)}\n" for field, value in fields.items())
    is_question = draft.task == "question_answering"
    is_written = draft.task == "seq2seq"
    # What is written is learned whole, and a text has more characters than subwords.
    is_long = "messages_column" in draft.columns or (is_written and not model)
    is_short = draft.num_characters < 48
    by_characters = is_short or is_written or draft.task == "causal_lm"
    joined = min(draft.num_joined // 2, _MOST_SUBWORDS) if model else draft.num_joined
    joined = min(joined + 2, _MOST_CHARACTERS) if joined else 0  # with a begin and an end
    return _TEMPLATE.format(
        why=" ".join(draft.why), file=shlex.quote(file), name=_quoted(name),
        question=_QUESTION, task=draft.task,
        model=f" {{pretrained: {_quoted(model)}}}" if model else "\n" + _from_scratch(draft.task),
        problem=f"  problem_type: {draft.problem_type}\n" if draft.problem_type else "",
        stride="  stride: 24 # tokens that two windows of a long context share\n" * is_question,
        data=_quoted(shown_path(data)), columns=lines,
        tokenizer=_quoted(model) if model else "characters" if by_characters else "subwords",
        max_length=max(joined, 96 if is_question else 256 if is_long else 48 if is_short else 64),
        batches=batches, base=batches[1],
        low=low, high=high, examples=examples, min_steps=30 if model else 50,
        every=max(examples // 4, 1), num_trials=6 * len(batches),
    )  # fmt: skip


def _from_scratch(task: str) -> str:
    architecture = _ARCHITECTURES.get(task, "bert")
    return _MODEL.format(architecture=architecture) + _NO_DROPOUT * (architecture == "bert")


def _quoted(text: str) -> str:
    """A text of YAML, quoted where it would be something else."""
    if re.fullmatch(r"[A-Za-z_][\w./-]*", text) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False)


def require_runs(path: Path) -> None:
    """Read a study file, its data and its model as a study's start does; nothing is started.

    Raises:
        NoDraftError: If it would be refused, in one line.
    """
    from scaling.plan.start_checks import require_tasks
    from scaling.spec.issues import StudyFileError
    from scaling.spec.read import read_study

    try:
        require_tasks(read_study(path))
    except (StudyFileError, DataError) as error:
        raise NoDraftError(f"--data: {str(error).splitlines()[0]}") from error
