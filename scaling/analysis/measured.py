"""Each measurement of a run as one number, and of a cell's replicates as one estimate."""

import math
from collections.abc import Mapping, Sequence
from typing import assert_never

from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    bounded,
    mean_estimate,
    without_tie,
)
from scaling.records.measurement import MEASURED, Measurement
from scaling.records.metrics import Metric, OverRun, OverSeeds


def of_run(measurements: Sequence[Measurement]) -> dict[str, float]:
    """What the table of measurements makes of a run, by name; only what was measured."""
    found = {
        name: _over_run(name, metric.over_run, measurements) for name, metric in MEASURED.items()
    }
    return {name: value for name, value in found.items() if value is not None}


def _over_run(name: str, how: OverRun, measurements: Sequence[Measurement]) -> float | None:
    match how:
        case "last":
            values = (getattr(m, name) for m in reversed(measurements))
            return next((value for value in values if value is not None), None)
        case "max":
            return max(
                (v for m in measurements if (v := getattr(m, name)) is not None), default=None
            )
        case "mean_over_steps":
            return _mean(name, "step", measurements)
        case "mean_over_seconds":
            return _mean(name, "seconds", measurements)
        case _:
            assert_never(how)


def _mean(name: str, weight: str, measurements: Sequence[Measurement]) -> float | None:
    """Mean of a value that each measurement has of the stretch since the one before it."""
    total = of_all = before = 0.0
    for measurement in measurements:
        value, now = getattr(measurement, name), getattr(measurement, weight)
        if value is not None:
            total += value * (now - before)
            of_all += now - before
        before = now
    return total / of_all if of_all else None


def of_seeds(
    metrics: Mapping[str, Metric], runs: Sequence[Mapping[str, float]]
) -> dict[str, Estimate]:
    """What the seeds of one recipe come to, by name; absent what none of them measured.

    Args:
        metrics: What is said of each.
        runs: One number of each name a run, as by `of_run`.
    """
    return {
        name: bounded(
            _over_seeds([run[name] for run in runs if name in run], metric.over_seeds),
            metric.least,
            metric.most,
        )
        for name, metric in metrics.items()
    }


def of_task(
    metrics: Mapping[str, Metric], runs: Sequence[Mapping[str, float]]
) -> dict[str, Estimate]:
    """What the seeds come to in the task's own metrics, as `of_seeds`.

    They are of a sample of the split. How many examples or words stand behind each is not
    recorded, so their error is of the seeds alone, and seeds that agree do not make a value exact.
    """
    found = of_seeds(metrics, runs)
    return {name: without_tie(estimate) for name, estimate in found.items()}


def _over_seeds(values: Sequence[float], how: OverSeeds) -> Estimate:
    if not values or (how == "geometric_mean" and min(values) <= 0):
        return ABSENT
    match how:
        case "mean":
            return mean_estimate(values)
        case "geometric_mean":
            of_log = mean_estimate([math.log(value) for value in values])
            assert of_log.value is not None
            ends = of_log.interval and (math.exp(of_log.interval[0]), math.exp(of_log.interval[1]))
            return Estimate(math.exp(of_log.value), ends, of_log.count)
        case "max":
            return Estimate(max(values), None, len(values))
        case _:
            assert_never(how)
