"""What holds for the summary and the sentences of every kind of study and table."""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.contrasts import compare
from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.report.charts.figures import figures
from scaling.report.comparison.two_studies import summary_of as summary_of_two
from scaling.report.document import _view
from scaling.report.page.setting import Setting
from scaling.report.summary import summarize
from scaling.report.words.headline import headline
from scaling.report.words.learning_rate import best_rate_words
from tests.analysis.synthetic import Truth, spec, study
from tests.report.kinds import KINDS, findings_of, grid

MOST_WORDS = 30
OUTWORN = (
    "carrying the recipe costs", "bends at", "strong evidence against 1", "miss the fitted curve",
    "holds by itself", "is a column", "was not asked for", "basin", "lopsided", "too few",
    "beaten in both", "had not ended and left out", "leave out no difference", "in the hands",
    "on the front", "fitted over this", "law that turns", "best of n trials", "so somewhat",
    "told apart", "twice their least", "as it was run", "sooner",
)  # fmt: skip
"""What `words.md`'s left column says, which the field has terms for."""
_OF_THE_STUDY = "cell"
"""A cell's values are the study file's: null is one of them there, and nothing is missing."""


READ_ANYWAY = {
    "whole study", "one seed", "no target", "target never reached", "two clip norms", "score",
    "at the target before the first step", "half at the target before the first step", "nothing",
    "joint search", "searched by the surface", "branched", "diverged branches",
    "baseline not beaten", "deadline that nothing meets", "table of steps",
    "table of two batch sizes", "table of steps without a bend",
}  # fmt: skip
"""Kinds whose findings other tests of this file need too."""


EVERY_KIND = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in READ_ANYWAY else [pytest.mark.slow, pytest.mark.ci])
        for kind in KINDS
    ],
)
"""Those in `make test`, all of them in `make test-ci`."""


@functools.cache
def summary_of(kind: str) -> dict[str, Any]:
    """The summary of a kind, made once."""
    return summarize(findings_of(kind))


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


@EVERY_KIND
def test_every_null_says_why(kind: str) -> None:
    summary = summary_of(kind)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(without_why(summary)) == []
    assert list(reasons_of_nothing(summary)) == []


def sentences(headline: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", headline)


def assert_short(headline: str) -> None:
    found = sentences(headline)
    assert 3 <= len(found) <= 8
    assert max(len(sentence.split()) for sentence in found) <= 30
    assert len(set(found)) == len(found)
    assert all(s[0].isupper() or s[0].isdigit() for s in found)
    assert all(s[-1] == "." and "–." not in s for s in found)


@EVERY_KIND
def test_the_headline_is_three_to_eight_short_sentences(kind: str) -> None:
    assert_short(summary_of(kind)["headline"])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("whole study", "moves as the batch to the power 0.50 [0.48, 0.51]; the data rule out a "
         "constant rate and linear scaling."),
        ("whole study", "Run a batch of 256 at a peak learning rate of 0.008, with 10 warmup"),
        ("whole study", "gap 0.200 [0.192, 0.208] to 0.200"),
        ("whole study", "nats and a chance of 90% to reach the target."),
        ("whole study", "At unequal examples, from batch 16 to 1,024: final loss "),
        ("no target", "The data do not distinguish it from batches of 16 and 256; the best one is "
         "chosen."),
        ("table of two batch sizes", "repeat each cell's recipe with at least three seeds."),
        ("whole study", "The answers rest on 87 trials, of which 6 diverged."),
        ("two clip norms", "The lowest validation loss at the end of the budget is 0.498 "
         "[0.492, 0.505] nats"),
        ("one seed", "The next least training time to the target is 1.29 seconds, at a batch of "),
        ("table of losses", "The next lowest validation loss is 2.00"),
        ("table of steps", "The next fewest steps to the target are 58.0, at a batch of 512;"),
        ("score", "The next highest accuracy is 0.391, at a batch of 128;"),
        ("no target", " nats, the lowest that every batch reached."),
        ("at the target before the first step", "No recipe is recommended: every run that reached "
         "the target began at it; set a stricter one. Reaching a validation loss of 1.00 nats "
         "takes 0 steps at a batch of 16 and 0 at 1,024."),
        ("at the target before the first step", "How far the batch can grow is not known: set a "
         "stricter target, at which no run begins."),
        ("target never reached", "no batch size always reached a validation loss of 0.0100 nats."),
        ("nothing", "No recipe is recommended: no cell reached the target with every replicate."),
        ("joint search", "it does not compare tuned batch sizes."),
        ("two clip norms", "Run global_batch_size"),
        ("baseline not beaten", "No trial beats always guessing the class frequencies"),
        ("deadline that nothing meets", "Nearest to the limits: a batch of"),
        ("score", "The highest accuracy is 0.781, at a batch of 64."),
        ("table of steps without a bend", "not determined (above 760,565 examples): steps still"),
        ("branched", "By branched training the critical batch size in examples is "),
        ("one seed a branch", "128 (no interval) after 640 examples and 512 (no interval) after "),
        ("searched by the surface", "Every cell may be undertuned"),
    ],
)  # fmt: skip
def test_the_headline_says(kind: str, says: str) -> None:
    assert says in summary_of(kind)["headline"]


def test_a_reason_with_a_colon_stands_in_brackets() -> None:
    words = next(best_rate_words(findings_of("table too noisy")))
    assert words.startswith("Not enough data on how the best rate moves with the batch (")
    assert words.endswith(").")


@EVERY_KIND
def test_a_loss_or_gap_on_the_first_screen_has_its_unit(kind: str) -> None:
    """Where it is known: a table's column and a planted likelihood are in nats."""
    findings = findings_of(kind)
    if findings.sweep.loss_unit != "nats":
        return
    for sentence in sentences(headline(findings)):
        if re.search(r"\b(loss|gap|costs|regret|next lowest)\b[^%]*?\d\.\d", sentence):
            assert re.search("nats|of the loss|accuracy", sentence), sentence


@pytest.mark.parametrize("name", ["a. b" * 20, "one two " * 20 + "three", "x. Y"])
def test_what_a_user_named_does_not_lengthen_the_headline(name: str, tmp_path: Path) -> None:
    findings = grid(tmp_path, f",{name}", ",0.{0}1", maximize=name)
    assert_short(headline(findings))
    long = replace(findings.cells[0], cell={"global_batch_size": 32, "model": name})
    others = replace(findings, one_series=False, cells=(long, *findings.cells[1:]))
    assert_short(headline(others))


A_AND_B = {
    "one gap is larger": (study(), study(Truth(gap=0.3), name="other")),
    "the same": (study(), study(name="other")),
    "one seed each": (study(num_seeds=1), study(num_seeds=1, name="other")),
    "no cell in common": (study(), StudyRecord(spec(name="nothing"), ())),
    "another target": (study(), study(target=None, name="other")),
}


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("kind", A_AND_B)
@pytest.mark.parametrize("name", ["b", "b. c " * 20])
def test_two_studies_have_a_headline_and_reasons(kind: str, name: str) -> None:
    a, b = (analyse(sweep_of(record)) for record in A_AND_B[kind])
    summary = summary_of_two(compare(a, b), ("a", name), [])
    assert_short(summary["headline"])
    assert list(without_why(summary)) == []
    assert list(reasons_of_nothing(summary)) == []


@pytest.mark.parametrize("which", ["at", "half at"])
def test_a_model_that_starts_at_the_target_has_its_figures(which: str) -> None:
    findings = findings_of(f"{which} the target before the first step")
    assert any(figure.spec is not None for figure in figures(findings, {}))


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
        ("table of two batch sizes", "lr_scaling.turns.probability", "a plateau needs four"),
        ("table of steps without a bend", "critical_batch_size.steps_examples.value",
         "the critical batch size is larger"),
        ("score", "cells.0.validation_loss", "accuracy is maximized in place of a loss"),
        ("nothing", "recommendation.peak_lr", "Not enough data"),
    ],
)  # fmt: skip
def test_the_reason_is_the_right_one(kind: str, path: str, reason: str) -> None:
    *parents, name = path.split(".")
    entry: Any = summary_of(kind)
    for part in parents:
        entry = entry[int(part) if part.isdigit() else part]
    assert entry[name] is None
    assert reason in entry["why"][name]


def texts(view: dict[str, Any]) -> Iterator[str]:
    """All that a report says in sentences, its tables' cells and a user's own words aside."""
    for _, lines in view["first_screen"]:
        yield from (line.text for line in lines)
    yield view["reason"]
    yield from view["carried"]
    yield from view["flags"]
    yield view["sources"]
    yield view["trials"].note
    shown = [view["beside"]] if view["beside"] else []
    for part in view["sections"]:
        yield part.note
        shown += part.figures
        yield from (f"No figure “{f.title}”: {f.absent}." for f in part.absent)
        for table in part.tables:
            yield table.note
            yield from table.remarks
    yield from (figure.caption for figure in shown)
    yield from (meaning for _, meaning in view["terms"])


def sentences_of(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9“|−(])", text.strip()) if s]


@EVERY_KIND
def test_sentences_are_short_and_said_once_in_the_field_s_terms(kind: str) -> None:
    findings = findings_of(kind)
    view = _view(findings, summary_of(kind), figures(findings, {}), Setting())
    said = Counter(s for text in texts(view) for s in sentences_of(text))
    assert [s for s in said if len(s.split()) > MOST_WORDS] == []
    assert [s for s, count in said.items() if count > 1] == []
    titles = [c for part in view["sections"] for table in part.tables for c in table.columns]
    assert [(s, old) for s in [*said, *titles] for old in OUTWORN if old in s] == []


def test_a_long_sentence_and_one_that_stands_twice_are_seen() -> None:
    text = "A loss fell. " + "Word " * 31 + "end. A loss fell."
    assert Counter(sentences_of(text))["A loss fell."] == 2
    assert max(len(s.split()) for s in sentences_of(text)) > MOST_WORDS
