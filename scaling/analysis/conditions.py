"""Under what conditions a study's losses were measured: which data, in which unit, how long."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scaling.records.study import StudyRecord
from scaling.spec.fields import given_fields

_PER_TOKEN = ("causal_lm", "seq2seq")
OtherUnit = Literal[
    "task", "unknown_texts", "texts", "tokenizer", "targets_per_example", "learnt_subwords"
]
"""What of two studies' losses is not the same: the task, the evaluated texts (or their content was
not recorded), the tokenizer, how many targets the same texts have, subwords of other texts."""


@dataclass(frozen=True)
class Conditions:
    """What two studies must share before their losses may be set against each other.

    Attributes:
        source: Where the data come from, as in the study file; None without data.
        data_sha256: Content hash of the split data: the same for the same rows in another file
            or format, another one for other rows under the same path. None where unknown.
        tokenizer: Its name, with the size of a trained vocabulary; None where there is none.
        targets_per_example: Mean over the training split; None where unknown.
        num_train: Training examples; None where they are drawn without end.
        budget: Of a trial, as in the study file.
    """

    task: str
    source: str | None = None
    data_sha256: str | None = None
    tokenizer: str | None = None
    targets_per_example: float | None = None
    num_train: int | None = None
    num_evaluated: Mapping[str, int] = field(default_factory=dict[str, int])
    budget: Mapping[str, Any] = field(default_factory=dict[str, Any])


def conditions_of(study: StudyRecord) -> Conditions:
    """Those of a recorded study."""
    workload, known = study.spec.workload.model_dump(mode="json"), study.environment
    evaluated = {
        name.removeprefix("num_evaluated_"): int(count)
        for name, count in known.items()
        if name.startswith("num_evaluated_") and count is not None
    }
    return Conditions(
        task=workload["task"],
        source=data.origin if (data := study.spec.workload.data) else None,
        data_sha256=known.get("data_sha256"),
        tokenizer=_tokenizer(workload),
        targets_per_example=known.get("targets_per_example"),
        num_train=known.get("num_train"),
        num_evaluated=evaluated,
        budget={n: v for n, v in given_fields(study.spec.budget).items() if v is not None},
    )


def _tokenizer(workload: Mapping[str, Any]) -> str | None:
    data: Mapping[str, Any] = workload.get("data") or {}
    model: Mapping[str, Any] = workload.get("model") or {}
    if not data:
        return None
    name = data.get("tokenizer") or model.get("pretrained") or "characters"
    return f"{name} of {data['vocab_size']}" if name == "subwords" else str(name)


def same_data(a: Conditions, b: Conditions) -> bool:
    """Whether content, split and evaluated examples are the same, so that seeds pair."""
    return a.data_sha256 is not None and (a.data_sha256, a.num_train, a.num_evaluated) == (
        b.data_sha256, b.num_train, b.num_evaluated,
    )  # fmt: skip


def other_unit(a: Conditions, b: Conditions) -> OtherUnit | None:
    """Why a nat per target is not the same in both; None where nothing says so.

    Held-out texts are the same where the data's hashes are. Those of a `builtin:` source are too:
    which of its texts are held out depends on the texts alone, not on how many are trained on.
    """
    if a.task != b.task:
        return "task"
    if a.source is None and b.source is None:
        return None
    same_hash = a.data_sha256 is not None and a.data_sha256 == b.data_sha256
    unknown = a.data_sha256 is None or b.data_sha256 is None
    shipped = a.source == b.source and (a.source or "").startswith("builtin:")
    if not same_hash and not shipped:
        return "unknown_texts" if unknown else "texts"
    if a.task not in _PER_TOKEN:
        return None
    if a.tokenizer != b.tokenizer:
        return "tokenizer"
    counts = (a.targets_per_example, b.targets_per_example)
    if same_hash and None not in counts and counts[0] != counts[1]:
        return "targets_per_example"
    if (a.tokenizer or "").startswith("subwords") and not same_hash:
        return "learnt_subwords"
    return None
