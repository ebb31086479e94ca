"""What is said of a critical batch size, and that no more is said than its interval supports."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.analysis.critical_batch.agreement import agreements
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.analysis.trial_rows import sweep_of
from scaling.report.words.captions import tradeoff_caption
from scaling.report.words.headline import first_screen
from scaling.report.words.numbers import between
from scaling.report.words.remarks import agreement_words, critical_notes
from scaling.report.words.unknown import unknown
from tests.analysis.synthetic import study
from tests.analysis.test_first_gap import rarely_evaluated
from tests.report.kinds import findings_of, table


def steps(folder: Path, *lines: str) -> Findings:
    seed = ",seed" * (lines[0].count(",") > 1)
    return table(folder, f"global_batch_size,steps_to_target{seed}", list(lines))


def on_batch(findings: Findings) -> list[str]:
    return [line.text for line in first_screen(findings) if line.topic == "batch"]


def cornered(folder: Path, *, seeds: tuple[int, ...] = ()) -> Findings:
    """Steps of α = 2, to which the hyperbola finds no bend."""
    sizes = (16, 32, 64, 128, 256, 512)
    mean = {size: 100 * (1 + (300 / size) ** 2) for size in sizes}
    lines = [f"{size},{mean[size] * (1 + seed / 100)},{seed}" for size in sizes for seed in seeds]
    return steps(folder, *(lines or [f"{size},{mean[size]}" for size in sizes]))


def test_the_headline_has_the_fit_that_the_tables_have(tmp_path: Path) -> None:
    found = cornered(tmp_path, seeds=(0, 1, 2))
    assert found.tradeoff.missing == "bend_above"
    assert found.tradeoff.headline.value == pytest.approx(300, rel=0.01)
    said = on_batch(found)[-1]
    assert said.startswith("Steps are twice their minimum at a batch of 300 [")
    assert "How far" not in next(unknown(found))
    notes = " ".join(critical_notes(found))
    assert "does not hold" not in notes  # the classical fit has no interval
    assert "no interval" not in notes


def test_a_value_without_an_interval_is_not_told_as_known(tmp_path: Path) -> None:
    found = steps(tmp_path, "16,1000", "32,501", "64,262")
    assert found.tradeoff.value is not None
    assert on_batch(found)[-1] == (
        "The critical batch size is not determined (above 286 examples): batch sizes are not "
        "enough, or scatter too much, for an interval."
    )
    assert tradeoff_caption(found.tradeoff).endswith("the critical batch size 927 (no interval).")
    seeded = steps(tmp_path, *(f"{b},{40960 // b + k},{k}" for b in (512, 1024) for k in (0, 40)))
    assert seeded.tradeoff.headline.interval is None
    assert next(unknown(seeded)).startswith("How far the batch can grow is not known: run ")
    assert critical_notes(found) == []


def test_two_single_runs_do_not_say_where_the_critical_batch_is(tmp_path: Path) -> None:
    said = on_batch(steps(tmp_path, "16,2560", "32,1280"))[-1]
    assert said.endswith("steps still fall as 1/B at 32, so the critical batch size may be larger.")


def findings_of_smooth(folder: Path) -> Findings:
    """Steps of the classical curve, with seeds that scatter by 1%."""
    folder.mkdir()
    sizes = (16, 32, 64, 128, 256, 512)
    return steps(
        folder,
        *(
            f"{size},{100 * (1 + 100 / size) * (1 + 0.01 * (-1) ** (seed + place))},{seed}"
            for place, size in enumerate(sizes)
            for seed in range(3)
        ),
    )


def test_a_long_sentence_on_the_exponent_has_a_shorter_one(tmp_path: Path) -> None:
    found = cornered(tmp_path)
    sweep = replace(found.sweep, has_target=False)
    said = on_batch(replace(found, sweep=sweep, tradeoff_target=1.234))[-1]
    assert said.endswith(" examples, at a loss of 1.23 nats, the lowest that every batch reached.")
    smooth = findings_of_smooth(tmp_path / "smooth")
    sweep = replace(smooth.sweep, has_target=False)
    said = on_batch(replace(smooth, sweep=sweep, tradeoff_target=1.234))[-1]
    assert " with α fitted, at a loss of 1.23 nats, the lowest that every batch reached." in said


def test_a_ratio_without_an_interval_tells_nothing() -> None:
    noisy = Estimate(100.0, (0.0, 239.0), 3)
    (pair,) = agreements({"steps_examples": Estimate(73.8, (60.0, 90.0)), "branched": noisy})
    assert pair.overlap is True
    assert pair.verdict == "unknown"
    assert agreement_words(pair).endswith("(no interval); not enough data to distinguish them.")
    (apart,) = agreements({"steps_examples": Estimate(300.0, (280.0, 320.0)), "branched": noisy})
    assert apart.verdict == "differ_apart"


@pytest.mark.parametrize(
    ("interval", "words"),
    [((120.0, math.inf), "[120, ∞)"), ((0.0, math.inf), "[0, ∞)"), ((0.0, 2.5), "[0, 2.50]")],
)
def test_an_open_end(interval: tuple[float, float], words: str) -> None:
    assert between(interval) == words


def test_a_point_of_branched_training_without_an_interval() -> None:
    found = findings_of("branched")
    point = replace(found.branched.points[0], value=256, surely_outside=None, is_bound=True)
    point = replace(point, examples=4000, is_upper_bound=False)
    said = on_batch(replace(found, branched=replace(found.branched, points=(point,))))
    assert said[-1].endswith("in examples is at least 256 after 4,000 examples.")


def test_batch_sizes_that_reached_the_target_too_soon_are_named() -> None:
    rare = rarely_evaluated(1024)
    two = replace(rare, cells=rare.cells[-2:])
    fit = replace(rare.tradeoff, missing="few_batch_sizes", value=None, interval=None)
    assert next(unknown(replace(two, tradeoff=fit))) == (
        "How far the batch can grow is not known: evaluate more often early on at 1,024."
    )


def test_what_a_study_without_a_target_is_told() -> None:
    found = findings_of("no target")
    assert found.tradeoff.headline.interval is not None
    assert next(unknown(found)).startswith("How many steps a larger batch saves is known only at ")
    one = study(target=None)
    only = tuple(t for t in one.trials if t.cell["global_batch_size"] == 64)
    alone = analyse(sweep_of(replace(one, trials=tuple(t for t in only if t.phase != "transfer"))))
    assert next(unknown(alone)).startswith("How results change with the batch is not known: run")
