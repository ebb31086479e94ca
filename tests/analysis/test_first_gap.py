"""A target that lies between the first two evaluations is known no better than that gap."""

from dataclasses import replace

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from scaling.records.outcome import crossing
from scaling.report.words.remarks import flags
from scaling.spec.evaluation import Target
from tests.analysis.synthetic import study


def run(*points: tuple[int, float]) -> list[Measurement]:
    return [Measurement(step, step * 8, None, step / 10, validation_loss=y) for step, y in points]


@pytest.mark.parametrize(
    ("points", "gap"),
    [
        ([(0, 3.0), (250, 0.9), (500, 0.5)], (0, 250)),
        ([(0, 3.0), (250, 1.2), (500, 0.9)], None),
        ([(0, 0.9), (250, 0.5)], None),  # at the target from the start
        ([(40, 3.0), (50, 0.9)], (40, 50)),
    ],
)
def test_only_a_target_before_the_second_evaluation_lies_in_the_first_gap(
    points: list[tuple[int, float]], gap: tuple[int, int] | None
) -> None:
    reached = crossing(run(*points), Target(at_most=1.0))
    assert reached is not None
    assert reached.first_gap == gap


def rarely_evaluated(batch: int) -> Findings:
    """The planted study, of which one batch size misses its second evaluation, on the way."""
    record = study()
    trials = tuple(
        replace(t, measurements=(t.measurements[0], *t.measurements[2:]))
        if t.cell["global_batch_size"] == batch and len(t.measurements) > 2
        else t
        for t in record.trials
    )
    return analyse(sweep_of(replace(record, trials=trials)))


def test_the_interval_is_as_wide_as_the_gap_and_the_trade_off_leaves_the_cell_out() -> None:
    whole, rare = analyse(sweep_of(study())), rarely_evaluated(1024)
    *others, last = rare.cells
    low, high = last.target.steps.interval or (None, None)
    assert low == 0
    assert high is not None
    assert high >= max(row.steps_to_target or 0 for row in last.target.trials)
    assert whole.tradeoff.num_batches == 4
    assert rare.tradeoff.num_batches == 3
    for cell, known in zip(others, whole.cells, strict=False):
        assert cell.target.steps == known.target.steps
    assert any("reached the target between its first two evaluations" in f for f in flags(rare))
    assert not any("first two evaluations" in flag for flag in flags(whole))
    assert rare.overhead.largest_batch_size == 256
