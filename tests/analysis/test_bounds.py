"""No interval holds what its quantity cannot be, however far two seeds are apart."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.measured import of_seeds
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import MEASURED, Measurement
from scaling.records.metrics import Metric
from scaling.records.trial import TrialRecord
from scaling.tasks.scores import CLASS_METRICS, REGRESSION_METRICS, TEXT_METRICS, share
from tests.analysis.synthetic import study

APART = (0.01, 2.0)
"""What each of two seeds multiplies."""


def two_seeds(change: Callable[[Measurement, float], Measurement], **sections: Any) -> Findings:
    """The planted study with two confirm seeds, of which each is changed by its own factor."""
    record = study(num_seeds=2, **sections)

    def apart(trial: TrialRecord) -> TrialRecord:
        if trial.phase != "confirm":
            return trial
        factor = APART[trial.recipe.seed - 100]
        return replace(trial, measurements=tuple(change(m, factor) for m in trial.measurements))

    return analyse(sweep_of(replace(record, trials=tuple(map(apart, record.trials)))))


def losses(findings: Findings) -> Iterator[Estimate]:
    """Every loss that the report shows with an interval."""
    for cell in findings.cells:
        yield from (cell.validation_loss, cell.train_loss, cell.test_loss)
        yield cell.measured["step_loss"]
    for option in findings.recommendation.candidates:
        yield option.loss


def scaled(m: Measurement, factor: float) -> Measurement:
    return replace(
        m,
        validation_loss=(m.validation_loss or 0.0) * factor,
        test_loss=(m.test_loss or 0.0) * factor,
        train_loss=(m.train_loss or 0.0) * factor,
        step_loss=(m.validation_loss or 0.0) * factor,
    )


def test_a_loss_that_is_never_negative_has_no_interval_below_zero() -> None:
    known = [loss for loss in losses(two_seeds(scaled, target=None)) if loss.interval is not None]
    assert len(known) >= 20
    assert {loss.interval[0] for loss in known if loss.interval} == {0.0}


def test_a_loss_that_is_negative_somewhere_keeps_its_interval() -> None:
    def negative(m: Measurement, factor: float) -> Measurement:
        return replace(m, validation_loss=(m.validation_loss or 0.0) * factor - 1)

    cells = two_seeds(negative, target=None).cells
    assert all((cell.validation_loss.interval or (0.0, 0.0))[0] < -1 for cell in cells)


def test_steps_and_examples_to_the_target_are_not_below_zero() -> None:
    def faster(m: Measurement, factor: float) -> Measurement:
        return replace(m, step=round(m.step * factor), examples=round(m.examples * factor))

    for cell in two_seeds(faster).cells:
        for estimate in (cell.target.steps, cell.target.examples):
            assert estimate.interval is not None
            assert estimate.interval[0] == 0


@pytest.mark.parametrize(
    ("metric", "values", "interval"),
    [
        (share("accuracy", "?"), (0.05, 0.95), (0, 1)),
        (CLASS_METRICS["mcc"], (-0.9, 0.9), (-1, 1)),
        (REGRESSION_METRICS["pearson"], (-0.9, 0.9), (-1, 1)),
        (TEXT_METRICS["bleu"], (1.0, 99.0), (0, 100)),
        (MEASURED["clipped_fraction"], (0.05, 0.95), (0, 1)),
    ],
)
def test_a_score_stays_in_its_range(
    metric: Metric, values: tuple[float, float], interval: tuple[float, float]
) -> None:
    found = of_seeds({"score": metric}, [{"score": value} for value in values])
    assert found["score"].interval == interval


@pytest.mark.parametrize(
    "metric",
    [
        REGRESSION_METRICS["rmse"],
        TEXT_METRICS["word_error_rate"],
        *(MEASURED[name] for name in ("seconds", "evaluation_seconds", "grad_norm", "sharpness")),
    ],
)
def test_an_amount_has_no_end_below_zero_and_any_above(metric: Metric) -> None:
    found = of_seeds({"amount": metric}, [{"amount": 0.1}, {"amount": 3.0}])["amount"]
    assert found.interval is not None
    assert found.interval[0] == 0
    assert found.interval[1] > 3


def test_what_has_no_declared_range_keeps_its_interval() -> None:
    found = of_seeds({"own": Metric("own", "?")}, [{"own": 0.1}, {"own": 3.0}])["own"]
    assert found.interval is not None
    assert found.interval[0] < 0
