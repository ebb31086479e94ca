"""What single figures draw."""

import math
from typing import Any

import pytest
from numpy.random import default_rng

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.report.charts.by_rate import loss_vs_lr
from scaling.report.charts.style import log_ticks, visible_top
from scaling.report.words.numbers import between, counted, joined, number
from tests.analysis.synthetic import Truth, spec, trial


def values(layer: dict[str, Any]) -> list[dict[str, Any]]:
    return layer["data"]["values"]


def test_a_cliff_stays_inside_of_the_axis_and_is_marked_at_its_edge() -> None:
    rng = default_rng(0)
    rates = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
    trials = [
        trial(Truth(), "search", 64, lr, number=index, rng=rng) for index, lr in enumerate(rates)
    ]
    trials += [
        trial(Truth(best_lr=1e-7), "search", 64, 3e-2, number=5, rng=rng),
        trial(Truth(), "search", 64, 6e-2, number=6, rng=rng, status="diverged"),
    ]
    record = StudyRecord(spec(transfer=None, confirm=None), tuple(trials))
    chart = loss_vs_lr(analyse(sweep_of(record)), {}).to_dict(validate=False)
    line, points = chart["layer"][:2]
    diverged, beyond = chart["layer"][-2:]
    top = points["encoding"]["y"]["scale"]["domain"][1]
    assert all(v["loss"] is None or v["loss"] <= top for v in values(line))
    assert [v["peak_lr"] for v in values(points)] == rates
    assert [v["peak_lr"] for v in values(diverged)] == [6e-2]
    assert [v["peak_lr"] for v in values(beyond)] == [3e-2]


def test_ticks_are_round_and_inside() -> None:
    assert log_ticks(12, 800) == [20, 50, 100, 200, 500]
    assert log_ticks(1e-4, 0.03) == pytest.approx([1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    assert log_ticks(1, 1e6) == pytest.approx([10.0**power for power in range(7)])


def test_visible_top() -> None:
    assert visible_top([1.0, 1.1, 1.2, 7.0]) == 1.2
    assert visible_top([1.0, 1.0]) == 1.0


def test_numbers_in_words() -> None:
    assert [number(x) for x in (None, 0, 0.0123, 1.2345, 44.0, 12800.4, 3.2e-5)] == [
        "–", "0.00", "0.0123", "1.23", "44", "12,800", "3.2e-05",
    ]  # fmt: skip
    assert between((0.5, math.pi)) == "[0.500, 3.14]"
    assert between((0.0, math.pi)) == "[0, 3.14]"
    assert between(None) == "no interval"
    assert counted(1, "batch size") == "1 batch size"
    assert joined(["a", "b", "c"], "and") == "a, b and c"
