"""Rungs and decisions, by hand."""

import pytest

from scaling.records.measurement import Measurement
from scaling.records.objective import VALIDATION_LOSS
from scaling.search.early_stopping import goes_on
from scaling.spec.phases import Asha, MedianStopping

ASHA = Asha(rule="asha", first_rung_examples=100, reduction_factor=3.0)
MEDIAN = MedianStopping(rule="median", first_rung_examples=100, min_trials=2)


def curve(*losses: float | None, every: int = 100) -> list[Measurement]:
    """Measurements before the first step and then after each `every` examples."""
    return [
        Measurement(n, n * every, 10 * n * every, seconds=0.0, validation_loss=loss)
        for n, loss in enumerate((5.0, *losses))
    ]


@pytest.mark.parametrize(
    ("examples", "asha", "median"),
    [(0, 0, 0), (99, 0, 0), (100, 1, 1), (299, 1, 2), (300, 2, 3), (899, 2, 8), (900, 3, 9)],
)
def test_rungs(examples: int, asha: int, median: int) -> None:
    assert ASHA.rungs_passed(examples=examples, tokens=10**9) == asha
    assert MEDIAN.rungs_passed(examples=examples, tokens=10**9) == median


def test_rungs_in_tokens() -> None:
    rule = Asha(rule="asha", first_rung_tokens=1000, reduction_factor=2.0)
    assert rule.rungs_passed(examples=10**9, tokens=2000) == 2
    assert rule.rungs_passed(examples=10**9, tokens=None) == 0


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        (3.0, [], True),  # nothing to compare with
        (3.0, [2.0], False),
        (1.0, [2.0], True),
        (2.5, [2.0, 3.0, 4.0], False),  # of four only ⌊4 / 3⌋ = 1 goes on
        (2.5, [2.0, 3.0, 4.0, 5.0, 6.0], True),  # of six two do
        (2.0, [2.0], True),  # an equal is no better
    ],
)
def test_asha_keeps_the_best_of_those_that_reached_the_rung(
    own: float, others: list[float], expected: bool
) -> None:
    assert (
        goes_on(ASHA, VALIDATION_LOSS, curve(own), [curve(other) for other in others]) is expected
    )


def test_asha_compares_at_the_rung_and_not_later() -> None:
    # The other was worse at the rung although it is better now.
    assert goes_on(ASHA, VALIDATION_LOSS, curve(2.0), [curve(3.0, 0.5, 0.1)])
    # It has not reached the second rung, at 300 examples.
    assert goes_on(ASHA, VALIDATION_LOSS, curve(2.0, 2.0, 2.0), [curve(1.0, 1.0)])
    # An evaluation after the rung counts for it where there is none on it.
    assert not goes_on(ASHA, VALIDATION_LOSS, curve(2.0), [curve(1.0, every=130)])


def test_a_loss_that_is_not_a_number_is_the_worst() -> None:
    assert not goes_on(ASHA, VALIDATION_LOSS, curve(None), [curve(9.0)])


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ((3.0,), [(1.0,)], True),  # fewer than min_trials
        ((3.0,), [(1.0,), (2.0,)], False),  # median 1.5
        ((1.4,), [(1.0,), (2.0,)], True),
        # Means up to the second rung are 2 and 3; the lowest of the own losses is compared.
        ((2.4, 9.0), [(3.0, 1.0), (3.0, 3.0)], True),
        ((2.6, 9.0), [(3.0, 1.0), (3.0, 3.0)], False),
    ],
)
def test_the_median_rule(
    own: tuple[float, ...], others: list[tuple[float, ...]], expected: bool
) -> None:
    assert (
        goes_on(MEDIAN, VALIDATION_LOSS, curve(*own), [curve(*other) for other in others])
        is expected
    )
