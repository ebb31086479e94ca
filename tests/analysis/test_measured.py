"""A run's measurements as one number each, and a cell's seeds as one estimate."""

import math

import pytest

from scaling.analysis.measured import of_run, of_seeds, of_task
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.records.measurement import Measurement
from scaling.records.metrics import Metric, OverSeeds, undescribed
from scaling.report.words.why_null import of_measured


def run() -> list[Measurement]:
    """10 steps of 0.5 s, then 30 of 1/6 s; nothing is known of the steps before the first."""
    return [
        Measurement(step=0, examples=0, tokens=None, seconds=0.0, num_parameters=7),
        Measurement(
            step=10, examples=80, tokens=None, seconds=5.0, examples_per_second=16.0,
            clipped_fraction=0.5, peak_memory_bytes=300.0, lr=0.1, num_parameters=7,
        ),
        Measurement(
            step=40, examples=320, tokens=None, seconds=10.0, examples_per_second=48.0,
            clipped_fraction=0.1, peak_memory_bytes=200.0, lr=0.2, num_parameters=7,
        ),
        Measurement(step=41, examples=328, tokens=None, seconds=10.2),
    ]  # fmt: skip


def test_a_rate_is_that_of_all_seconds_and_a_share_of_all_steps() -> None:
    measured = of_run(run())
    assert measured["examples_per_second"] == pytest.approx(320 / 10)
    assert measured["clipped_fraction"] == pytest.approx((0.5 * 10 + 0.1 * 30) / 40)


def test_the_last_value_known_and_the_largest() -> None:
    measured = of_run(run())
    assert measured["lr"] == 0.2
    assert measured["peak_memory_bytes"] == 300.0
    assert measured["num_parameters"] == 7
    assert measured["step"] == 41


def test_what_was_not_measured_is_left_out() -> None:
    assert "tokens_per_second" not in of_run(run())
    assert of_run([]) == {}


@pytest.mark.parametrize(("how", "value"), [("mean", 5.0), ("geometric_mean", 4.0), ("max", 8.0)])
def test_seeds_are_pooled_as_the_table_says(how: OverSeeds, value: float) -> None:
    metrics = {"speed": Metric("speed", "How fast.", over_seeds=how)}
    found = of_seeds(metrics, [{"speed": 2.0}, {"speed": 8.0}, {}])["speed"]
    assert found.value == pytest.approx(value)
    assert found.count == 2
    if how == "max":
        assert found.interval is None
    else:
        assert found.interval is not None
        assert found.interval[0] < value < found.interval[1]
    if how == "geometric_mean":
        assert found.interval is not None
        assert found.interval[0] * found.interval[1] == pytest.approx(value**2)
        assert math.log(found.interval[0]) < 0 < found.interval[0]


def test_a_metric_that_all_seeds_agree_on_is_not_exact() -> None:
    metrics = {"accuracy": undescribed("accuracy"), "f1": undescribed("f1")}
    runs = [{"accuracy": 0.85, "f1": f1} for f1 in (0.5, 0.6, 0.7)]
    found = of_task(metrics, runs)
    assert found["accuracy"] == Estimate(0.85, None, 3)
    assert found["f1"].interval is not None
    why = of_measured(found["accuracy"], metrics["accuracy"])
    assert why == {"interval": "the data do not bound it on either side"}


def test_nothing_measured_is_absent_and_so_is_the_geometric_mean_of_zero() -> None:
    metrics = {"speed": Metric("speed", "How fast.", over_seeds="geometric_mean")}
    assert of_seeds(metrics, [{}, {}])["speed"].value is None
    assert of_seeds(metrics, [{"speed": 0.0}])["speed"].value is None
