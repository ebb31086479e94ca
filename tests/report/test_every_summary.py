"""What holds for the summary of every kind of study and table."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scaling.report.summary import summarize
from tests.report.kinds import KINDS

_OF_THE_STUDY = "cell"
"""A cell's values are the study file's: null is one of them there, and nothing is missing."""


@pytest.fixture(scope="module")
def summary_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """The summary of a kind, made when it is first asked for."""

    @functools.cache
    def made(kind: str) -> dict[str, Any]:
        return summarize(KINDS[kind](tmp_path_factory.mktemp("kind")))

    return made


def without_why(value: Any, path: str = "") -> Iterator[str]:
    """Where a field is null and the object that it stands in does not say why."""
    match value:
        case dict():
            reasons = value.get("why", {})
            for name, entry in value.items():
                if entry is None and not reasons.get(name):
                    yield f"{path}.{name}"
                if name not in ("why", _OF_THE_STUDY):
                    yield from without_why(entry, f"{path}.{name}")
        case list():
            for place, entry in enumerate(value):
                yield from without_why(entry, f"{path}[{place}]")


def reasons_of_nothing(value: Any, path: str = "") -> Iterator[str]:
    """Where a reason is given for a field that is not null, or a reason is no words."""
    match value:
        case dict():
            for name, reason in value.get("why", {}).items():
                if value[name] is not None or not isinstance(reason, str) or not reason.strip():
                    yield f"{path}.{name}"
            for name, entry in value.items():
                yield from reasons_of_nothing(entry, f"{path}.{name}")
        case list():
            for place, entry in enumerate(value):
                yield from reasons_of_nothing(entry, f"{path}[{place}]")


@pytest.mark.parametrize("kind", KINDS)
def test_every_null_says_why(kind: str, summary_of: Callable[[str], dict[str, Any]]) -> None:
    summary = summary_of(kind)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(without_why(summary)) == []
    assert list(reasons_of_nothing(summary)) == []


def test_a_null_without_its_reason_is_seen() -> None:
    told = {"a": None, "why": {"a": "not measured"}}
    assert list(without_why({"x": [told, {"b": None}], "cell": {"clip_norm": None}})) == [".x[1].b"]
    assert list(reasons_of_nothing({"a": 1, "why": {"a": "not measured"}})) == [".a"]


@pytest.mark.parametrize(
    ("kind", "path", "reason"),
    [
        ("no target", "cells.0.steps_to_target", "there is no target"),
        ("no target", "critical_batch_size.noise_scale.at_target.value", "there is no target"),
        ("target never reached", "cells.0.steps_to_target", "not every replicate reached"),
        ("whole study", "lr_scaling.surge.noise_batch", "not enough data: 4 of at least 5"),
        ("whole study", "matched_gaps.matched_steps.cells.1.difference", "this is the reference"),
        ("whole study", "recommendation.pareto_front.0.expected_cost", "no price is set"),
        ("whole study", "gap_relations.sharpness.rank_correlation", "4 of at least 8 cells"),
        ("one seed", "cells.0.generalization_gap_interval", "one seed"),
        ("one seed", "lr_scaling.regret.sqrt.0.interval", "one paired seed"),
        ("whole study", "lr_scaling.regret.linear.2.regret", "diverged"),
        ("two clip norms", "critical_batch_size.noise_scale.value", "cells differ in more"),
        ("diverged branches", "critical_batch_size.branched.at.0.differences.2.difference",
         "a seed diverged"),
        ("table of steps", "conditions", "a table does not say"),
        ("table of steps", "lr_scaling.turns.probability", "no loss surface"),
        ("table of two batch sizes", "lr_scaling.turns.probability", "a turn needs four"),
        ("table of steps without a bend", "critical_batch_size.steps_examples.value",
         "the bend lies beyond"),
        ("score", "cells.0.validation_loss", "accuracy is maximized in place of a loss"),
        ("nothing", "recommendation.peak_lr", "Not enough data"),
    ],
)  # fmt: skip
def test_the_reason_is_the_right_one(
    kind: str, path: str, reason: str, summary_of: Callable[[str], dict[str, Any]]
) -> None:
    *parents, name = path.split(".")
    entry: Any = summary_of(kind)
    for part in parents:
        entry = entry[int(part) if part.isdigit() else part]
    assert entry[name] is None
    assert reason in entry["why"][name]
