"""SQuAD's own JSON, whose articles have paragraphs, and those questions."""

from collections.abc import Iterator, Mapping
from typing import Any

from scaling.tasks.data.columns import UnfitRowError


def squad_questions(record: Mapping[str, Any], question_column: str) -> Iterator[Mapping[str, Any]]:
    """The questions of a file, an article or a paragraph of SQuAD's own JSON, a record each.

    Any other record is a question already. One of version 2 that is impossible has no answer.

    Raises:
        UnfitRowError: If a part is no mapping, or an impossible question has answers.

    Source: Rajpurkar et al. 2016 (arXiv:1606.05250), 2018 (arXiv:1806.03822), the files of both.
    """
    if question_column in record:
        yield record
        return
    for inner in ("data", "paragraphs"):
        if isinstance(parts := record.get(inner), list):
            for number, part in enumerate(parts):
                yield from squad_questions(_mapping(part, f"{inner}[{number}]"), question_column)
            return
    if not isinstance(asked := record.get("qas"), list):
        yield record
        return
    for number, given in enumerate(asked):
        place = f"qas[{number}]"
        question = _mapping(given, place)
        answers = question.get("answers")
        if question.get("is_impossible") is True:
            if answers:
                raise UnfitRowError(
                    "answers_column", f"has {place}, which has answers and is_impossible: true"
                )
            answers = []
        yield {"context": record.get("context"), **question, "answers": answers}


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UnfitRowError(
            "answers_column", f"has {type(value).__name__} at {place}; allowed: a mapping, as in "
            "SQuAD's JSON",
        )  # fmt: skip
    return value
