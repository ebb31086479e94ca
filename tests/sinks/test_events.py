"""Events and their lines."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.sinks import StudyEnd
from scaling.sinks.events import (
    Event,
    StudyEnded,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
    from_line,
    to_line,
)
from tests.sinks.told import measurement, trial


@pytest.mark.parametrize(
    "event",
    [
        TrialStarted(1, trial(num_measurements=0, status="running")),
        TrialMeasured(2, "a", (measurement(0), measurement(10))),
        TrialEnded(3, trial("a", cell={"beta2": 0.1 + 0.2, "clip_norm": None}, error="é\n\x00")),
        StudyEnded(
            4, StudyEnd("done", "It moves.", Path("/r/report"), {"torch": "2", "hosts": ["a"]})
        ),
        StudyEnded(5, StudyEnd("interrupted")),
    ],
)
def test_lines_round_trip(event: Event) -> None:
    line = to_line("s1", event)
    assert "\n" not in line
    assert from_line(line) == ("s1", event)


def test_a_start_does_not_repeat_measurements() -> None:
    _, event = from_line(to_line("s1", TrialStarted(1, trial())))
    assert event == TrialStarted(1, replace(trial(), measurements=()))


def test_numbers_that_are_not_finite_are_left_out() -> None:
    point = replace(measurement(10), grad_norm=math.nan, metrics={"accuracy": math.inf})
    _, event = from_line(to_line("s1", TrialMeasured(1, "a", (point,))))
    expected = replace(measurement(10), grad_norm=None, metrics={})
    assert event == TrialMeasured(1, "a", (expected,))


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "null", "\x00\x00", '{"study_id": "s", "at_ms": 1, "event": "x"}']
)
def test_what_is_no_event_is_said(line: str) -> None:
    with pytest.raises(ValueError, match="not an event"):
        from_line(line)
