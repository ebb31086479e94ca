"""Which family reads a table, and which of its columns: what `scaling init` goes by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from scaling.tasks.data.columns import finite_number, is_empty

MOST_CLASSES = 50
"""Of a column whose name does not say that it has classes."""
_ROWS_OF_CLASS = 5
_NAMED_LABEL = {"label", "labels", "class", "classes", "category", "categories"}
_NAMED_SCORE = {"score", "scores", "rating", "ratings"}
_LABEL = _NAMED_LABEL | {
    f"{word}{ending}"
    for word in ("target", "sentiment", "intent", "topic", "tag", "lang", "language")
    for ending in ("", "s")
}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"),
    ("text1", "text2"), ("text_a", "text_b"), ("sentence_a", "sentence_b"),
)  # fmt: skip
_PROMPTS = (("prompt", "answer"), ("prompt", "completion"), ("instruction", "output"))
_SPLIT_NAMES = {"split", "set", "subset", "fold", "partition"}
_SPLITS = {
    "train", "training", "validation", "valid", "val", "dev", "development", "eval", "evaluation",
    "test", "testing", "holdout", "heldout",
}  # fmt: skip
_TEXT_WORDS = ("question", "context", "answers")
_SHORT = 40
"""Characters of a typical name of a class, at most."""


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
        num_joined: Characters of a prompt with its answer, or of a chat, of nearly all rows at
            most; 0 of other data.
        left_out: Fields of `workload.data` by which rows without a text or a label are left out.
    """

    task: str
    columns: Mapping[str, str]
    why: tuple[str, ...]
    num_rows: int
    num_characters: float
    num_joined: int = 0
    problem_type: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])


def of_columns(columns: Mapping[str, Sequence[Any]], task: str | None) -> Draft:
    """Which family, and which columns it reads.

    Args:
        columns: Values of each column, in order.
        task: The family, where it is not to be guessed.

    Raises:
        NoDraftError: If no family reads such columns.
    """
    splits = [name for name, values in columns.items() if _names_splits(name, values)]
    if len(splits) == len(columns):
        splits = []
    rest = {name: values for name, values in columns.items() if name not in splits}
    found = _of_rest(rest, task)
    why = list(found.why)
    if others := [name for name in rest if name not in found.columns.values()]:
        why.append(f"Not read: {', '.join(others)}.")
    if splits:
        to_keep = "to keep these splits, give each its own file"
        why.append(f"Not read: {', '.join(splits)}; {to_keep}.")
    return replace(found, why=tuple(why))


def _of_rest(columns: Mapping[str, Sequence[Any]], task: str | None) -> Draft:
    lists = [name for name, values in columns.items() if _share(values, list) > 0.9]
    lower = {name.lower(): name for name in columns}
    if all(word in lower for word in _TEXT_WORDS) and task in (None, "question_answering"):
        named = {f"{word}_column": lower[word] for word in ("context", "question", "answers")}
        return _draft("question_answering", named, "Columns context, question and answers.")
    if {"chosen", "rejected"} <= lower.keys():
        raise NoDraftError(
            "--data: columns chosen and rejected are preferences, which no task reads; keep a "
            "prompt and its answer, as in prompt,answer"
        )
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
    if len(lists) > 1 and task in (None, "token_classification"):
        tokens, tags = _words_and_tags({name: columns[name] for name in lists})
        named = {"tokens_column": tokens, "tags_column": tags}
        return _draft(
            "token_classification", named, f"Lists: words in {tokens}, their tags in {tags}."
        )
    texts = [name for name in columns if _is_text(columns[name])]
    if len(lists) == 1 and texts and task in (None, "text_classification"):
        text = max(texts, key=lambda name: mean_length([str(value) for value in columns[name]]))
        named = {"text_column": text, "label_column": lists[0]}
        why = f"{lists[0]} lists classes, {len(distinct_values(columns[lists[0]]))} in all."
        several = _draft("text_classification", named, why)
        return replace(several, problem_type="multi_label_classification")
    return _of_texts(columns, lower, task)


def _words_and_tags(lists: Mapping[str, Sequence[Any]]) -> tuple[str, str]:
    """The list of words and that of tags: of two by their values, of more by their names."""
    if len(lists) == 2:
        words, tags = sorted(lists, key=lambda name: -len(distinct_values(lists[name])))
        return words, tags
    words = [name for name in lists if _words(name) & {"token", "tokens", "word", "words"}]
    tags = [name for name in lists if "ner" in _words(name)]
    tags = tags or [name for name in lists if name not in words and _words(name) & {"tag", "tags"}]
    if len(words) != 1 or len(tags) != 1:
        raise NoDraftError(
            f"--data: {len(lists)} columns have lists ({', '.join(lists)}); keep two of them, "
            "tokens and tags"
        )
    return words[0], tags[0]


def _of_texts(
    columns: Mapping[str, Sequence[Any]], lower: Mapping[str, str], task: str | None
) -> Draft:
    texts = sorted(
        (name for name, values in columns.items() if _is_text(values)),
        key=lambda name: -mean_length([str(value) for value in columns[name]]),
    )
    if not texts:
        for name, values in columns.items():
            if _share(values, Mapping) > 0.9:
                parts = next(value for value in values if isinstance(value, Mapping))
                raise NoDraftError(
                    f"--data: column {name!r} has mappings ({', '.join(parts)}); write each part "
                    "as a column"
                )
        raise NoDraftError(
            f"--data: no column has texts (columns: {', '.join(columns)}); for other data write a "
            "task of your own, workload.task: custom"
        )
    for source, target in _PROMPTS:
        if source in lower and target in lower and task in (None, "causal_lm"):
            if source == "instruction" and not all(
                map(is_empty, columns.get(lower.get("input", ""), ()))
            ):
                raise NoDraftError(
                    "--data: instruction and input are two parts of a prompt; join them in one "
                    "column, as in prompt,answer"
                )
            named = {"prompt_column": lower[source], "answer_column": lower[target]}
            return _draft("causal_lm", named, f"The loss counts {lower[target]} alone.")
    label = None if task in ("seq2seq", "causal_lm") else _label(columns, texts)
    if label is not None:
        first, second = _pair(lower) or (texts[0], None)
        named = {"text_column": first, "label_column": label}
        named |= {} if second is None else {"text_pair_column": second}
        distinct = distinct_values(columns[label])
        is_number = _is_score(label, columns[label])
        what = f"{label} has {'numbers' if is_number else f'{len(distinct)} classes'}"
        which = f"{first} is the longest text" if second is None else f"{first} and {second} a pair"
        found = _draft("text_classification", named, f"{what}; {which}.")
        return replace(found, problem_type="regression") if is_number else found
    if task == "text_classification":
        raise NoDraftError(
            f"--task text_classification: no column has classes, 2 to {MOST_CLASSES} values that "
            f"repeat (columns: {', '.join(columns)})"
        )
    if len(texts) == 2 and task in (None, "seq2seq"):
        source, target = sorted(texts, key=list(columns).index)
        named = {"source_column": source, "target_column": target}
        return _draft("seq2seq", named, f"Two texts: {target} is written from {source}.")
    return _draft("causal_lm", {"text_column": texts[0]}, "One column of texts.")


def _draft(task: str, columns: Mapping[str, str], *why: str) -> Draft:
    return Draft(task, columns, why, 0, 0.0)


def _label(columns: Mapping[str, Sequence[Any]], texts: Sequence[str]) -> str | None:
    """The column of classes, or of numbers with fractions; None where there is none.

    Raises:
        NoDraftError: If the column that is named like one has too many classes, or it has a single
            class and no other column has classes, nor are there two texts.
    """
    named = [name for name in columns if name != texts[0] and _words(name) & _LABEL]
    named.sort(key=lambda name: not _words(name) & _NAMED_LABEL)
    scores = [n for n in columns if n not in (texts[0], *named) and _words(n) & _NAMED_SCORE]
    others = [name for name in columns if name not in (texts[0], *named, *scores)]
    is_scored = len(texts) == 1 or _pair({name.lower(): name for name in texts}) is not None
    for name in (*named, *reversed(others), *(scores if is_scored else ())):
        distinct = distinct_values(columns[name])
        if name in (*named, *scores) and _is_score(name, columns[name]):
            return name
        num_rows = _num_known(columns[name])
        most = num_rows // _ROWS_OF_CLASS
        if 2 <= len(distinct) <= (most if name in named else min(MOST_CLASSES, most)):
            return name
        is_label = _words(name) & _NAMED_LABEL
        if is_label and len(distinct) > most and mean_length([*distinct]) < _SHORT:
            raise NoDraftError(
                f"--data: column {name!r} has {len(distinct):,} classes in {num_rows:,} rows; "
                f"needs {_ROWS_OF_CLASS} rows a class on average, or another --task (causal_lm, "
                "seq2seq)"
            )
    for name in named:
        distinct = distinct_values(columns[name])
        if _words(name) & _NAMED_LABEL and len(distinct) == 1 and len(texts) != 2:
            raise NoDraftError(f"--data: column {name!r} has one class, {next(iter(distinct))!r}")
    return None


def _names_splits(name: str, values: Sequence[Any]) -> bool:
    """Whether a column says which rows are to train on, and which to test."""
    distinct = {value.lower() for value in distinct_values(values)}
    words = _words(name)
    if distinct and distinct <= _SPLITS:
        return bool(words & _SPLIT_NAMES) or (len(distinct) > 1 and not words & _LABEL)
    return bool(words & {"split", "fold"}) and all(map(str.isdigit, distinct))


def _words(name: str) -> set[str]:
    """The words of a column's name, as in review_label or reviewLabel."""
    return {word.lower() for word in _WORD.findall(name)}


def _pair(lower: Mapping[str, str]) -> tuple[str, str] | None:
    """Two columns that are named as the two texts of a pair."""
    found = ((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower)
    return next(found, None)


def _num_known(values: Sequence[Any]) -> int:
    return sum(not is_empty(value) for value in values)


def _is_score(name: str, values: Sequence[Any]) -> bool:
    """Whether values are numbers, some with a fraction, or of a score too many to be classes."""
    distinct = distinct_values(values)
    if len(distinct) < 2 or not all(map(is_number, distinct)):
        return False
    is_of_many = len(distinct) > _num_known(values) // _ROWS_OF_CLASS
    is_whole = all(float(text).is_integer() for text in distinct)
    return not is_whole or (is_of_many and bool(_words(name) & _NAMED_SCORE))


def _is_text(values: Sequence[Any]) -> bool:
    known = [value for value in values if isinstance(value, str) and value.strip()]
    if len(known) < 0.5 * len(values) or all(map(is_number, known)):
        return False
    most_classes = max(min(MOST_CLASSES, len(known) // 2), len(known) // 20)
    return len(set(known)) > most_classes or mean_length(known) > _SHORT


def distinct_values(values: Sequence[Any]) -> set[str]:
    """The values of a column as text, those in lists apart, without empty ones."""
    found: set[str] = set()
    for value in values:
        entries: Sequence[Any] = value if isinstance(value, list) else [value]
        found |= {str(entry).strip() for entry in entries if not is_empty(entry)}
    return found


def _share(values: Sequence[Any], kind: type) -> float:
    return sum(isinstance(value, kind) for value in values) / len(values)


def _first(values: Sequence[Any]) -> Sequence[Any]:
    return next((value for value in values if isinstance(value, list) and value), [])


def is_number(text: str) -> bool:
    """Whether a text reads as a number, which NaN and infinity are not."""
    return finite_number(text) is not None


def mean_length(texts: Sequence[str]) -> float:
    """Characters of a text on average; 0 of none."""
    return fmean(map(len, texts)) if texts else 0.0
