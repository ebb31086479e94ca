"""Built-in data, read and split once in a process: that takes seconds, and rows do not change."""

from typing import Any

from scaling.tasks import (
    causal_lm,
    question_answering,
    seq2seq,
    text_classification,
    token_classification,
)
from scaling.tasks.data.splits import SplitRows, read_splits

_known: dict[str, SplitRows] = {}


def read_builtin_data_once() -> None:
    """From now on, every task of this process whose data are built in shares their rows."""
    families = (causal_lm, question_answering, seq2seq, text_classification, token_classification)
    for family in families:
        family.read_splits = _of(family.__name__)


def _of(family: str) -> Any:
    def read(data: Any, row_format: Any) -> SplitRows:
        if not (data.source or "").startswith("builtin:"):
            return read_splits(data, row_format)
        key = f"{family} {data.model_dump_json()} {row_format.labels}"
        if key not in _known:
            _known[key] = read_splits(data, row_format)
        return _known[key]

    return read
