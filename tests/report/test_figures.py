"""What single figures draw."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from numpy.random import default_rng

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate
from scaling.analysis.trial_rows import Sweep, TrialRow, sweep_of
from scaling.records.study import StudyRecord
from scaling.report.charts.by_batch import loss_vs_batch
from scaling.report.charts.by_rate import loss_vs_lr
from scaling.report.charts.by_trial import _numeric_axis, loss_vs_choice, num_blank
from scaling.report.charts.figures import Figure, figures
from scaling.report.charts.style import log_ticks, visible_top
from scaling.report.words.numbers import between, counted, joined, number
from tests.analysis.synthetic import Truth, spec, study, trial
from tests.report.kinds import findings_of


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


@pytest.mark.parametrize(("low", "high"), [(12, 40), (1.0, 1.5), (0.2, 0.9), (90, 260)])
def test_a_short_logarithmic_axis_has_four_ticks(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert len(ticks) >= 4
    assert all(low <= tick <= high for tick in ticks)


def titles(spec: Any) -> set[str]:
    """Of all axes of a specification, with the type of their scale."""
    found: set[str] = set()
    for layer in spec.get("layer", []):
        found |= titles(layer)
    for channel in spec.get("encoding", {}).values():
        if isinstance(channel, dict) and channel.get("title") and "scale" in channel:
            found.add(f"{channel['title']}: {channel['scale'].get('type')}")
    return found


def test_logarithmic_axes_say_so_and_seconds_are_of_one_more_run() -> None:
    found = {figure.name: figure for figure in figures(findings_of("whole study"), {})}
    assert "Steps to target (log): log" in titles(found["steps_to_target"].spec)
    first = found["loss_and_time"]
    assert "Seconds of one more run (log): log" in titles(first.spec)
    assert "seconds of one more run, which reaches the target with a chance of" in first.caption
    assert not any(
        title.endswith("): None") and "log)" in title
        for figure in found.values() if figure.spec for title in titles(figure.spec)
    )  # fmt: skip
    carried = {figure.name: figure for figure in figures(findings_of("ceiling on cost"), {})}
    assert "Seconds of one more run on 64 workers" in str(titles(carried["loss_and_time"].spec))


def test_an_interval_that_reaches_zero_is_cut_at_the_axis_and_said_to_be() -> None:
    found = findings_of("whole study")
    first, *others = found.cells
    wide = replace(first, target=replace(first.target, steps=Estimate(290.0, (-5.0, 600.0))))
    made = figures(replace(found, cells=(wide, *others)), {})
    steps = next(figure for figure in made if figure.name == "steps_to_target")
    assert "Intervals that reach zero" in steps.caption
    assert steps.spec is not None
    heights = steps.spec["layer"][-1]["encoding"]["y"]["scale"]["domain"]
    assert heights[0] > 20
    whole = figures(found, {})
    assert not any("Intervals that reach zero" in figure.caption for figure in whole)


def test_a_setting_from_zero_has_ticks_inside_of_its_values() -> None:
    axis = vars(_numeric_axis("warmup_ratio", [0.0, 0.02, 0.1]))["_kwds"]["axis"].to_dict()
    assert axis["values"] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])


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


def drawn(findings: Findings, name: str) -> Figure:
    (figure,) = (figure for figure in figures(findings, {}) if figure.name == name)
    return figure


def with_measurements(last: int, **changes: Any) -> Findings:
    """A study whose runs were evaluated so often."""
    record = study()
    trials = [
        replace(t, measurements=tuple(replace(m, **changes) for m in t.measurements[:last]))
        for t in record.trials
    ]
    return analyse(sweep_of(replace(record, trials=tuple(trials))))


def test_without_two_evaluations_of_a_run_there_are_no_learning_curves() -> None:
    start = sum(m.examples == 0 for m in study().trials[0].measurements)
    once = drawn(with_measurements(start + 1), "learning_curves")
    assert once.absent == "no run has two evaluations"
    lost = drawn(with_measurements(9, validation_loss=None), "learning_curves")
    assert lost.absent == "nothing was measured along the runs"


def losses(*found: tuple[int, float, tuple[float, float]]) -> Findings:
    """A study whose confirmed losses are planted with their intervals."""
    findings = analyse(sweep_of(study()))
    planted = {batch: Estimate(value, interval, 3) for batch, value, interval in found}
    cells = tuple(
        replace(cell, validation_loss=planted.get(cell.global_batch_size or 0, ABSENT))
        for cell in findings.cells
    )
    return replace(findings, cells=cells)


def test_an_interval_across_zero_is_drawn_as_it_is_on_a_linear_axis() -> None:
    findings = losses((16, 0.45, (0.0, 0.9)), (64, 0.05, (-0.02, 0.12)))
    layers = loss_vs_batch(findings).to_dict(validate=False)["layer"]
    assert [(v["low"], v["high"]) for v in values(layers[0])] == [(0.0, 0.9), (-0.02, 0.12)]
    assert layers[0]["encoding"]["y"].get("scale", {}).get("type") != "log"


def test_a_loss_of_zero_is_one() -> None:
    findings = losses((16, 0.0, (-0.1, 0.1)), (64, 0.1, (0.0, 0.2)))
    assert drawn(findings, "loss_vs_batch").spec is not None


def test_numbers_beside_blanks_are_by_size() -> None:
    few = choices_of(2, 10, None)
    spec = loss_vs_choice(few, "clip_norm", {}).to_dict(validate=False)
    assert spec["layer"][0]["encoding"]["x"]["sort"] == ["2", "10", "null"]
    assert num_blank(few, "clip_norm") == 0
    many = choices_of(*range(1, 12), None)
    spec = loss_vs_choice(many, "clip_norm", {}).to_dict(validate=False)
    assert spec["layer"][0]["encoding"]["x"]["type"] == "quantitative"
    assert num_blank(many, "clip_norm") == 1
    assert "1 trial without clip_norm is left out" in drawn(many, "loss_vs_clip_norm").caption


def choices_of(*norms: float | None) -> Findings:
    """A search of one cell over one further hyperparameter."""
    rows = tuple(
        TrialRow(
            f"{n}", "search", "done", {"global_batch_size": 8}, 8, f"{n}", peak_lr=1e-3,
            validation_loss=2 + n / 10, choices={"clip_norm": norm},
        )
        for n, norm in enumerate(norms)
    )  # fmt: skip
    return analyse(Sweep("norms", "?", rows, ({"global_batch_size": 8},)))


def encodings(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for layer in spec["layer"]:
        if "layer" in layer:
            yield from encodings(layer)
        else:
            yield layer["encoding"]


def test_no_series_is_told_by_its_colour_alone() -> None:
    for figure in figures(findings_of("two clip norms"), {}):
        found = list(encodings(figure.spec)) if figure.spec else []
        coloured = {e["color"]["field"] for e in found if len(domain(e.get("color"))) > 1}
        marked = {e[c].get("field") for e in found for c in ("shape", "strokeDash") if c in e}
        assert coloured <= marked, figure.name


def domain(channel: Any) -> list[str]:
    return channel.get("scale", {}).get("domain", []) if channel else []
