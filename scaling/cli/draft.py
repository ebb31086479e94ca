"""From a table of data to a study file that runs: what `scaling init` writes."""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from scaling.files.names import file_name
from scaling.spec.checks.data import file_suffix
from scaling.tasks.data.columns import UnfitRowError
from scaling.tasks.data.conll import sentences
from scaling.tasks.data.file_tables import file_table
from scaling.tasks.data.squad import squad_questions
from scaling.tasks.errors import DataError

_MOST_LOOKED_AT = 5000
_FEWEST_ROWS = 40
"""Rows from which three splits have a few each."""
_MOST_CLASSES = 50
_LABEL = re.compile(r"label|class|category|target|sentiment|intent|topic|tag|lang", re.IGNORECASE)
_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"),
)  # fmt: skip
_TEXT_WORDS = ("question", "context", "answers")
_CONLL_LINES = 0.9
"""Share of a text file's lines that are blank or have the same few columns, of CoNLL's."""
TASKS = (
    "text_classification", "token_classification", "question_answering", "seq2seq", "causal_lm",
)  # fmt: skip


class NoDraftError(ValueError):
    """No study can be drafted of the data; says why in one line, and what to do."""


@dataclass(frozen=True)
class Draft:
    """What the data are taken for.

    Attributes:
        task: One of the families.
        columns: Fields of `workload.data` that name columns.
        why: What it was taken for that by, as comments of the study file.
        problem_type: Of text_classification, where it is not the default.
        num_rows: Of the training file; of a large one those that were looked at.
        num_characters: Of a typical text.
    """

    task: str
    columns: Mapping[str, str]
    why: tuple[str, ...]
    num_rows: int
    num_characters: float
    problem_type: str | None = None


def study_name(data: Path) -> str:
    """The study's name, after its data file."""
    stem = data.name.split(".", 1)[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
    return file_name(name) if name else "my_study"


def drafted(data: Path, task: str | None = None) -> Draft:
    """Look at a data file.

    Args:
        data: csv, tsv, json, jsonl, parquet or txt, perhaps with .gz.
        task: The family, where it is not to be guessed.

    Raises:
        NoDraftError: If no family reads such data, or not so few of them.
        DataError: If the file cannot be read.
    """
    if not data.is_file():
        raise NoDraftError(f"--data: {data}: there is no such file")
    if _is_conll(data):
        return _of_conll(data, task)
    is_text = data.name.lower().removesuffix(".gz").endswith(".txt")
    table = file_table(str(data), path="--data", columns=() if is_text else _header(data))
    records = list(islice(_records(table.records), _MOST_LOOKED_AT))
    if is_text and task not in (None, "causal_lm"):
        raise _unfit(task, "causal_lm")
    if is_text:
        lines = [record["text"] for record in records if record["text"].strip()]
        _require_rows(len(lines))
        return Draft(
            "causal_lm", {}, ("A line of the file is a document.",), len(lines), _size(lines)
        )
    _require_rows(len(records))
    columns = {name: [record.get(name) for record in records] for name in _names(records)}
    found = _of_columns(columns, task)
    if task not in (None, found.task):
        raise _unfit(task, found.task)
    texts = [str(value) for value in columns[next(iter(found.columns.values()))]]
    return replace(found, num_rows=len(records), num_characters=_size(texts))


def _records(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
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


def _size(texts: Sequence[str]) -> float:
    return fmean(map(len, texts)) if texts else 0.0


def _require_rows(count: int) -> None:
    if count < _FEWEST_ROWS:
        raise NoDraftError(
            f"--data has {count} row{'s' * (count != 1)}; a study needs at least {_FEWEST_ROWS}, "
            "to train on some, pick recipes on others and report on the rest"
        )


def _names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _header(data: Path) -> tuple[str, ...]:
    """The names in the first line of a delimited file, by the delimiter that makes most of them."""
    if not re.search(r"\.(csv|tsv)$", data.name.lower()):
        return ()
    with data.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()
    splits = [next(csv.reader([first], delimiter=mark), []) for mark in "\t;,"]
    names = tuple(max(splits, key=len))
    if any(_is_number(name) or len(name) > 60 for name in names):
        raise NoDraftError(
            f"--data: the first line of {data.name} looks like a row and not like names "
            f"({', '.join(names)[:80]}); put a line of names before it, as in text,label"
        )
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
    return Draft("token_classification", {}, (why,), len(found), _size(found))


def _of_columns(columns: Mapping[str, Sequence[Any]], task: str | None) -> Draft:
    """Which family, and which columns it reads."""
    lists = [name for name, values in columns.items() if _share(values, list) > 0.9]
    lower = {name.lower(): name for name in columns}
    if all(word in lower for word in _TEXT_WORDS) and task in (None, "question_answering"):
        named = {f"{word}_column": lower[word] for word in ("context", "question", "answers")}
        return _draft("question_answering", named, "Columns context, question and answers.")
    of_mappings = [name for name in lists if isinstance(next(iter(_first(columns[name])), 0), dict)]
    if of_mappings:
        name = of_mappings[0]
        given = _first(columns[name])[0].keys()
        if not {"role", "content"} <= given and not {"from", "value"} <= given:
            raise NoDraftError(
                f"--data: column {name!r} has lists of mappings, which are read as chats, with "
                "role and content or from and value, or as answers, with text and answer_start"
            )
        why = f"Column {name} has chats; the loss counts what the assistant says."
        return _draft("causal_lm", {"messages_column": name}, why)
    if len(lists) == 2 and task in (None, "token_classification"):
        tokens, tags = sorted(lists, key=lambda name: -len(_distinct(columns[name])))
        named = {"tokens_column": tokens, "tags_column": tags}
        return _draft("token_classification", named, "Two columns of lists: words and their tags.")
    texts = [name for name in columns if _is_text(columns[name])]
    if len(lists) == 1 and texts and task in (None, "text_classification"):
        text = max(texts, key=lambda name: _size([str(value) for value in columns[name]]))
        named = {"text_column": text, "label_column": lists[0]}
        why = f"{lists[0]} lists classes, {len(_distinct(columns[lists[0]]))} in all."
        several = _draft("text_classification", named, why)
        return replace(several, problem_type="multi_label_classification")
    return _of_texts(columns, lower, task)


def _of_texts(
    columns: Mapping[str, Sequence[Any]], lower: Mapping[str, str], task: str | None
) -> Draft:
    texts = sorted(
        (name for name, values in columns.items() if _is_text(values)),
        key=lambda name: -_size([str(value) for value in columns[name]]),
    )
    if not texts:
        raise NoDraftError(
            f"--data: no column has texts (columns: {', '.join(columns)}); for other data write a "
            "task of your own, workload.task: custom"
        )
    for source, target in (
        ("prompt", "answer"),
        ("prompt", "completion"),
        ("instruction", "output"),
    ):
        if source in lower and target in lower and task in (None, "causal_lm"):
            named = {"prompt_column": lower[source], "answer_column": lower[target]}
            return _draft("causal_lm", named, f"The loss counts {lower[target]} alone.")
    label = None if task in ("seq2seq", "causal_lm") else _label(columns, texts[0])
    if label is not None:
        first, second = _pair(lower) or (texts[0], None)
        named = {"text_column": first, "label_column": label}
        named |= {} if second is None else {"text_pair_column": second}
        is_number = _is_score(_distinct(columns[label]))
        what = f"{label} has numbers" if is_number else (
            f"{label} has {len(_distinct(columns[label]))} classes"
        )  # fmt: skip
        which = f"{first} is the longest text" if second is None else f"{first} and {second} a pair"
        others = [name for name in texts if name not in (first, second, label)]
        why = [f"{what}; {which}."] + ([f"Not read: {', '.join(others)}."] if others else [])
        found = _draft("text_classification", named, *why)
        return replace(found, problem_type="regression") if is_number else found
    if task == "text_classification":
        raise NoDraftError(
            f"--task text_classification: no column has classes, 2 to {_MOST_CLASSES} values that "
            f"repeat (columns: {', '.join(columns)})"
        )
    if len(texts) == 2 and task in (None, "seq2seq"):
        source, target = sorted(texts, key=list(columns).index)
        named = {"source_column": source, "target_column": target}
        return _draft("seq2seq", named, f"Two texts: {target} is written from {source}.")
    return _draft("causal_lm", {"text_column": texts[0]}, "One column of texts.")


def _draft(task: str, columns: Mapping[str, str], *why: str) -> Draft:
    return Draft(task, columns, why, 0, 0.0)


def _label(columns: Mapping[str, Sequence[Any]], text: str) -> str | None:
    """The column of classes, or of numbers with fractions; None where there is none.

    Raises:
        NoDraftError: If the column that is named like one has a single class.
    """
    named = [name for name in columns if name != text and _LABEL.search(name)]
    for name in named:
        distinct = _distinct(columns[name])
        if len(distinct) == 1:
            raise NoDraftError(f"--data: column {name!r} has one class, {next(iter(distinct))!r}")
        if _is_score(distinct):
            return name
    others = [name for name in columns if name not in (text, *named)]
    for name in (*named, *reversed(others)):
        distinct = _distinct(columns[name])
        num_rows = sum(value is not None for value in columns[name])
        if 2 <= len(distinct) <= min(_MOST_CLASSES, num_rows // 5):
            return name
    return None


def _pair(lower: Mapping[str, str]) -> tuple[str, str] | None:
    """Two columns that are named as the two texts of a pair."""
    for first, second in _PAIRS:
        if first in lower and second in lower:
            return lower[first], lower[second]
    return None


def _is_score(distinct: set[str]) -> bool:
    """Whether values are numbers of which some have a fraction."""
    return all(map(_is_number, distinct)) and not all(map(_is_whole, distinct))


def _is_text(values: Sequence[Any]) -> bool:
    known = [value for value in values if isinstance(value, str) and value.strip()]
    if len(known) < 0.5 * len(values) or all(map(_is_number, known)):
        return False
    return len(set(known)) > max(_MOST_CLASSES, len(known) // 20) or _size(known) > 40


def _distinct(values: Sequence[Any]) -> set[str]:
    found: set[str] = set()
    for value in values:
        entries: Sequence[Any] = value if isinstance(value, list) else [value]
        found |= {str(entry).strip() for entry in entries if entry is not None}
    return found - {""}


def _share(values: Sequence[Any], kind: type) -> float:
    return sum(isinstance(value, kind) for value in values) / len(values)


def _first(values: Sequence[Any]) -> Sequence[Any]:
    return next((value for value in values if isinstance(value, list) and value), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_whole(text: str) -> bool:
    return float(text).is_integer()


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
    """The study file, commented.

    Args:
        draft: What the data are.
        data: The data file.
        name: The study's.
        file: The study file's own name, for its comments.
        model: A pretrained model by name or folder; None for a small one from scratch.
    """
    num_train = max(draft.num_rows * 8 // 10, 1)
    batches = [size for size in (8, 32, 128, 512) if size * 4 <= num_train] or [2, 8]
    batches = batches if len(batches) > 1 else [batches[0] // 2, batches[0]]
    batches = batches[:2] if model else batches[:4]
    examples = min(max(3 * num_train, 1000), 1500 if model else 8000)
    low, high = ("1.0e-5", "5.0e-4") if model else ("3.0e-4", "3.0e-2")
    lines = "".join(f"    {field}: {_quoted(column)}\n" for field, column in draft.columns.items())
    is_question = draft.task == "question_answering"
    is_chat = "messages_column" in draft.columns
    is_short = draft.num_characters < 48
    by_characters = is_short or draft.task == "causal_lm"
    return _TEMPLATE.format(
        why=" ".join(draft.why), file=file, name=name, question=_QUESTION, task=draft.task,
        model=f" {{pretrained: {_quoted(model)}}}" if model else "\n" + _from_scratch(draft.task),
        problem=f"  problem_type: {draft.problem_type}\n" if draft.problem_type else "",
        stride="  stride: 24 # tokens that two windows of a long context share\n" * is_question,
        data=_quoted(os.path.relpath(data)), columns=lines,
        tokenizer=_quoted(model) if model else "characters" if by_characters else "subwords",
        max_length=96 if is_question else 256 if is_chat else 48 if is_short else 64,
        batches=batches, base=batches[len(batches) // 2 - 1 if len(batches) > 2 else 0],
        low=low, high=high, examples=examples, min_steps=30 if model else 50,
        every=max(examples // 4, 1), num_trials=6 * len(batches),
    )  # fmt: skip


def _from_scratch(task: str) -> str:
    architecture = _ARCHITECTURES.get(task, "bert")
    return _MODEL.format(architecture=architecture) + _NO_DROPOUT * (architecture == "bert")


def _quoted(text: str) -> str:
    """A word of YAML, quoted where it has to be."""
    return (
        text if re.fullmatch(r"[A-Za-z_][\w./-]*", text) else '"' + text.replace('"', '\\"') + '"'
    )


def require_runs(path: Path) -> None:
    """Read a study file, its data and its model as a study's start does; nothing is started.

    Raises:
        NoDraftError: If it would be refused, in one line.
    """
    from scaling.command.start_checks import require_tasks
    from scaling.spec.issues import StudyFileError
    from scaling.spec.read import read_study

    try:
        require_tasks(read_study(path))
    except (StudyFileError, DataError) as error:
        raise NoDraftError(f"--data: {str(error).splitlines()[0]}") from error
