"""Why a number of a table is null: too few points, best at an edge, a law that does not fit."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.learning_rate.curves import LrCurve
from scaling.analysis.learning_rate.exponent import LrScaling, NoExponent, why_no_interval
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.report.foreign_tables.sweep_table import read_table
from scaling.report.summary import summarize

Loss = Callable[[int, float], float]


def around(best: Callable[[int], float]) -> Loss:
    return lambda batch, rate: 2 + 0.05 * math.log(rate / best(batch)) ** 2


def summary(
    folder: Path, loss: Loss, noise: float = 0.004, num_rates: int = 9,
    batches: Sequence[int] = (32, 64, 128, 256),
) -> dict[str, Any]:  # fmt: skip
    rng = random.Random(5)
    lines = ["global_batch_size,peak_lr,validation_loss"]
    for batch in batches:
        for step in range(num_rates):
            rate = 1e-4 * 2**step
            lines.append(f"{batch},{rate},{loss(batch, rate) + rng.gauss(0, noise)}")
    path = folder / "sweep.csv"
    path.write_text("\n".join(lines))
    return summarize(analyse(read_table(path).sweep))


def sqrt(batch: int) -> float:
    return 0.002 * math.sqrt(batch / 64)


def test_a_clean_table_has_no_reasons(tmp_path: Path) -> None:
    found = summary(tmp_path, around(sqrt))
    low, high = found["lr_scaling"]["interval"]
    assert low < 0.5 < high
    assert "why" not in found["lr_scaling"]
    for cell in found["cells"]:
        assert cell["best_peak_lr_interval"] is not None
        assert "best_peak_lr_interval" not in cell["why"]
        assert cell["why"]["train_loss"] == "not measured"


@pytest.mark.parametrize(
    ("reason", "of_cell", "options"),
    [
        ("not enough points", None, {"loss": around(sqrt), "batches": (32, 256)}),
        ("not enough points", "not enough points", {"loss": around(sqrt), "num_rates": 1}),
        ("best at an edge", None, {"loss": around(lambda batch: 0.5 + batch * 0)}),
        ("too noisy", None, {"loss": around(sqrt), "noise": 2.0}),
    ],
)  # fmt: skip
def test_the_exponent_says_why_it_is_null(
    reason: str, of_cell: str | None, options: dict[str, Any], tmp_path: Path
) -> None:
    found = summary(tmp_path, **options)
    scaling = found["lr_scaling"]
    assert scaling["interval"] is None
    if options.get("num_rates") != 1:
        assert scaling["why"]["interval"].startswith(reason)
        assert "Not enough data" in found["headline"]
    if of_cell is not None:
        whys = [cell["why"]["best_peak_lr_interval"] for cell in found["cells"]]
        assert all(why.startswith(of_cell) for why in whys)


def test_best_rates_beyond_those_tried_give_no_exponent(tmp_path: Path) -> None:
    """Cut off at the highest rate tried they would all be the same."""
    found = summary(tmp_path, around(lambda batch: 0.5 * math.sqrt(batch)))
    assert found["lr_scaling"]["exponent"] is None
    assert found["lr_scaling"]["evidence"] == []
    assert all(cell["undertuned"] for cell in found["cells"])


@pytest.mark.parametrize(
    ("curve", "scatter", "reason"),
    [
        ({"has_common_shape": False}, 1.0, "law_does_not_fit"),
        ({}, 30.0, "law_does_not_fit"),
        ({}, 1.0, "too_noisy"),
        ({}, None, "few_points"),
        ({"edge": "high"}, 1.0, "best_at_edge"),
        ({"points": ((1e-3, 2.0), (2e-3, 1.9))}, 1.0, "few_points"),
    ],
)
def test_a_law_without_an_interval(
    curve: dict[str, Any], scatter: float | None, reason: NoExponent
) -> None:
    """Scatter that is not noise is a law that does not fit, and no lack of points."""
    rates = {"points": tuple((1e-4 * 2**step, 2.0) for step in range(7))}
    curves = [LrCurve(**(rates | curve)) for _ in range(4)]
    law = LrScaling(ABSENT, (32, 64, 128, 256), scatter=scatter)
    assert why_no_interval(law, curves) == reason


def test_one_sided_intervals_of_the_surface_are_an_edge() -> None:
    """However many rates a cell of sampled batch sizes has: one is enough for the surface."""
    high = [
        LrCurve(((rate, 2.0),), interval=(3e-3, math.inf), from_surface=True)
        for rate in (1e-4, 1e-3, 2e-3, 4e-3, 1e-2)
    ]
    law = LrScaling(ABSENT, (32, 64, 128, 256), from_surface=True)
    assert why_no_interval(law, high) == "best_at_edge"
    wide = [replace(curve, interval=(2e-4, math.inf)) for curve in high]
    assert why_no_interval(law, wide) == "too_noisy"


def test_long_lists_of_batch_sizes_are_cut(tmp_path: Path) -> None:
    sizes = range(32, 52)
    lines = ["global_batch_size,steps_to_target"]
    lines += [f"{size},{'' if size > 40 else 5000 // size}" for size in sizes]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    answer = summarize(analyse(read_table(path).sweep))["answer"]
    assert "(not always reached at 41, 42, 43, 44, 45 and 6 more)" in answer


@pytest.mark.parametrize("num_rates", [1, 2])
def test_steps_at_one_rate_each_do_not_speak_against_the_classical_curve(
    num_rates: int, tmp_path: Path
) -> None:
    lines = ["global_batch_size,peak_lr,validation_loss,steps_to_target"]
    for batch in (16, 32, 64, 128, 256, 512):
        for place in range(num_rates):
            steps = round((1 + place) * 1000 * (1 + (200 / batch) ** 0.6))
            lines.append(f"{batch},{0.001 * (1 + place)},2.{place},{steps}")
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    answer = summarize(analyse(read_table(path).sweep))["answer"]
    assert ("the classical curve (α = 1), which the data disfavor" in answer) == (num_rates > 1)
