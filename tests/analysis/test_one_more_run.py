"""The recommended run: which batch, how many steps, and what to expect of it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scaling.analysis.critical_batch.targets import of_recipe
from scaling.analysis.findings import analyse
from scaling.analysis.next_run.one_more_run import steps_of_run, steps_spread
from scaling.analysis.next_run.recommendation import LowestCell, Recommendation
from scaling.analysis.next_run.throughput import Pace
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.report.summary import summarize
from scaling.report.tables.next_run_options import kind_of
from scaling.report.words.reasons import reason_words
from scaling.report.words.why_null import of_steps
from tests.analysis.recorded import default_study

BATCHES = (8, 32, 128, 512)
STEP = {8: 0.005, 32: 0.01, 128: 0.03, 512: 0.12}  # seconds on an idle machine


def steps_to_target(batch: int) -> float:
    return 30 + 3000 / batch  # 405, 124, 53, 36 steps: 2.03, 1.24, 1.60, 4.30 seconds


def planted(rng: np.random.Generator, noise: float, busy: dict[tuple[str, int], float]) -> Sweep:
    """Six search trials and three confirm runs of each batch; `busy` slows those of a phase."""
    rows: list[TrialRow] = []
    for batch in BATCHES:
        for phase, seeds in (("search", range(6)), ("confirm", range(10, 13))):
            for seed in seeds:
                reached = steps_to_target(batch) * math.exp(noise * rng.standard_normal())
                step = STEP[batch] * busy.get((phase, batch), 1.0) * (1 + 0.01 * rng.random())
                rows.append(_row(phase, batch, seed, reached, step))
    cells = tuple({"global_batch_size": batch} for batch in BATCHES)
    return Sweep("planted", "?", tuple(rows), cells, has_target=True, target=1.4)


def _row(phase: str, batch: int, seed: int, reached: float, step: float) -> TrialRow:
    """Its loss falls by 0.01 a hundredth of the way to the target, and goes on so."""
    num_steps = math.ceil(2 * reached)
    measurements = tuple(
        Measurement(s, s * batch, None, s * step, validation_loss=2.4 - s / reached)
        for s in range(0, num_steps + 1, 2)
    )
    return TrialRow(
        f"{phase}-{batch}-{seed}", phase, "done", {"global_batch_size": batch}, batch,  # type: ignore[arg-type]
        phase, seed=seed, peak_lr=1e-3, objective=1.0, validation_loss=0.4, steps=num_steps,
        examples=num_steps * batch, seconds=num_steps * step, steps_to_target=reached,
        examples_to_target=reached * batch, seconds_to_target=reached * step,
        measurements=measurements,
    )  # fmt: skip


def recommended(sweep: Sweep) -> Recommendation:
    return analyse(sweep).recommendation


def test_a_busy_machine_does_not_move_the_recommended_batch() -> None:
    """By the confirm runs alone 128 would be sooner: 1.60 seconds against 3.72."""
    sweep = planted(np.random.default_rng(0), 0.02, {("confirm", 32): 3.0})
    found = recommended(sweep)
    assert found.global_batch_size == 32
    assert found.option is not None
    seconds = found.option.seconds
    assert seconds.interval is not None
    assert found.option.idle_seconds.value == pytest.approx(1.24, rel=0.05)
    # One more run may meet a busy machine too.
    assert seconds.interval[0] == pytest.approx(0.01 * (found.option.steps.value or 0), rel=0.02)
    assert seconds.interval[1] > 2.8 * seconds.interval[0]


def test_the_default_study_s_trials_tie_and_the_smaller_batch_is_taken() -> None:
    """32 and 128 take 1.31 and 1.51 s on an idle machine; the one of 32 was timed while busy."""
    found = recommended(default_study())
    assert found.global_batch_size == 32
    reason = found.reason
    assert isinstance(reason, LowestCell)
    assert [cell.global_batch_size for cell in reason.tied] == [128]
    assert found.option is not None
    assert found.option.pace is not None
    assert found.option.pace.contention == pytest.approx(2.2, abs=0.1)
    words = summarize(analyse(default_study()))["recommendation"]["reason"]
    assert "do not distinguish it from global_batch_size 128" in words
    assert "the smallest batch among ties is chosen" in words
    assert "for the best outside the tie (global_batch_size" in words
    assert "The machine was busy: a step usually took 2.2 times" in words


def test_noise_does_not_move_the_choice_between_batches_that_tie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 32 and of 128 examples that take the target equally long, with 8% of noise."""
    monkeypatch.setitem(STEP, 128, 0.01 * steps_to_target(32) / steps_to_target(128))
    all_found = [recommended(planted(np.random.default_rng(seed), 0.08, {})) for seed in range(6)]
    assert {found.global_batch_size for found in all_found} == {32}
    soonest: set[int | None] = set()
    for found in all_found:
        assert isinstance(found.reason, LowestCell)
        soonest.add(first := found.reason.ranked[0].global_batch_size)
        start = "The least training time" if first == 32 else "Among the least training times"
        said = reason_words(found.reason)
        assert said.startswith(f"{start} to the target")
        assert (". The best is" in said) == (first == 128)
        ties = [o for o in found.candidates if any(o.cell is cell for cell in found.reason.tied)]
        assert {kind_of(option, found) for option in ties} <= {"tied with it"}
    assert soonest == {32, 128}


@pytest.mark.slow
def test_the_steps_are_enough_for_nine_runs_of_ten() -> None:
    """Not for their mean: the runs of 80 studies, each with a tenth of noise and three seeds."""
    rng = np.random.default_rng(1)
    reached = within = 0
    for _ in range(80):
        option = recommended(planted(rng, 0.1, {})).option
        assert option is not None
        assert option.chance_of_target == 0.9
        assert option.steps.interval is not None
        steps = steps_to_target(option.cell.global_batch_size or 0)
        one_more = steps * math.exp(0.1 * rng.standard_normal())
        reached += one_more <= (option.steps.value or 0)
        within += option.steps.interval[0] <= one_more <= option.steps.interval[1]
    assert 0.80 * 80 <= reached <= 0.98 * 80  # a standard error of 3.4 points around 90%
    assert 0.80 * 80 <= within <= 0.98 * 80


def test_steps_time_and_loss_are_of_one_run() -> None:
    summary = summarize(analyse(planted(np.random.default_rng(2), 0.03, {})))
    found = summary["recommendation"]
    steps = found["expected_steps"]
    assert steps == int(steps)
    assert found["mean_steps_to_target"] < steps < found["expected_steps_interval"][1]
    # Losses fall in a line through the target at 1.4, so after more steps they are just below.
    expected = 2.4 - steps / found["mean_steps_to_target"]
    assert found["expected_loss"] == pytest.approx(expected, abs=0.01)
    low, high = found["expected_loss_interval"]
    assert low < found["expected_loss"] < 1.4 <= high + 0.05
    assert found["expected_seconds"] == pytest.approx(steps * STEP[32], rel=0.02)


def test_without_replicates_the_chance_is_not_known_and_why_is_said() -> None:
    sweep = planted(np.random.default_rng(3), 0.02, {})
    first = tuple(row for row in sweep.rows if row.phase == "search" or row.seed == 10)
    found = summarize(analyse(replace(sweep, rows=first)))["recommendation"]
    assert found["chance_of_target"] is None
    assert found["expected_steps_interval"] is None
    assert found["why"]["chance_of_target"].startswith("no replicates")
    assert found["global_batch_size"] == 32


def test_seeds_that_reach_the_target_at_one_evaluation_do_not_say_how_far_they_scatter() -> None:
    rows = tuple(_row("confirm", 32, seed, 400.0, 0.01) for seed in range(3))
    target = of_recipe(rows)
    assert (target.steps.value, target.steps.interval) == (400, None)
    assert of_steps(target)["steps_to_target_interval"].startswith("all seeds agree")
    assert steps_spread([target]) is None
    found = steps_of_run(target, None)
    assert found is not None
    assert (found.steps, found.mean.interval, found.one_more) == (400, None, None)


def test_the_pace_of_an_idle_machine_by_hand() -> None:
    # Of ten trials the tenth percentile lies a tenth of the way between the first two.
    pace = Pace(tuple(float(second) for second in range(1, 11)))
    assert pace.idle.value == pytest.approx(1.9)
    # More than two of ten are below it with a chance of 7%, more than one with 26%.
    assert pace.idle.interval == (1.0, 3.0)
    assert pace.usual.value == 5.5
    assert Pace((2.0,)).idle.interval is None


def test_steps_counted_in_fifties_are_no_certainty() -> None:
    """Every 50 steps an evaluation: the seeds of three batch sizes in five reach it at the same."""
    rows = [
        _row("confirm", batch, seed, steps + 50 * seed * (batch in (128, 512)), 0.01)
        for batch, steps in {32: 1050, 64: 600, 128: 350, 256: 250, 512: 200}.items()
        for seed in range(3)
    ]
    cells = tuple({"global_batch_size": batch} for batch in (32, 64, 128, 256, 512))
    found = recommended(Sweep("coarse", "?", tuple(rows), cells, has_target=True, target=1.4))
    assert found.option is not None
    low, high = found.option.mean_steps.interval or (0.0, 0.0)
    assert 1.05 < high / low < 2
    assert (found.option.steps.value or 0) > 1.1 * (found.option.mean_steps.value or 0)
