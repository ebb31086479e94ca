"""What may interrupt a run, and what lets it go on afterwards."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from scaling.records.measurement import Measurement
from scaling.spec.phases import EarlyStopping
from scaling.training.checkpoint import CheckpointStore
from scaling.training.parallel.workers import Workers

Directive = Literal["continue", "stop", "pause"]
"""stop: the trial is over; pause: it is wanted later, and goes on from a checkpoint."""

_CODES: tuple[Directive, ...] = ("continue", "stop", "pause")
CHECK_SECONDS = 0.5
MAX_STEPS_BETWEEN_CHECKS = 1000
LEAST_OVER_SAVING = 50
"""Seconds from one checkpoint to the next over those that one takes: saving is at most 2%."""


class Report(Protocol):
    """Takes a measurement; `at_rung` asks for a decision, which the run waits for."""

    def __call__(self, measurement: Measurement, *, at_rung: bool) -> Directive:
        """Take it; the answer may come later where it is not at a rung."""
        ...


@dataclass(frozen=True)
class Supervision:
    """Who a run answers to, besides reporting.

    Attributes:
        early_stopping: Where the run asks whether to go on.
        checkpoints: Where its state is kept; None keeps none.
        checkpoint_seconds: From one checkpoint to the next.
        directive: Asked between reports, about twice a second, on every worker; what the first
            worker gets holds for all.
        note: Takes what happened to the run besides training (see TrialRecord.incidents).
        model_folder: Folder or URL for the model as it is evaluated last; None keeps none.
    """

    early_stopping: EarlyStopping | None = None
    checkpoints: CheckpointStore | None = None
    checkpoint_seconds: float = 60.0
    directive: Callable[[], Directive] = lambda: "continue"
    note: Callable[[Mapping[str, Any]], None] = lambda _: None
    model_folder: str | None = None


class Incidents:
    """What happened to a run besides training, told and kept.

    Attributes:
        kept: All of them, in order.
    """

    def __init__(self, note: Callable[[Mapping[str, Any]], None]) -> None:
        self._note = note
        self.kept: list[dict[str, Any]] = []

    def add(self, incident: dict[str, Any]) -> None:
        """Tell and keep one."""
        self.kept.append(incident)
        self._note(incident)

    def add_new(self, incident: dict[str, Any]) -> None:
        """Tell and keep one, but where the same is known already."""
        if incident not in self.kept:
            self.add(incident)


class Checks:
    """Agrees among the workers, every half second or so, whether to go on or to save.

    Workers must agree at the same step although their clocks differ, so the first one says at
    which step they ask next.
    """

    def __init__(self, supervision: Supervision, workers: Workers, step: int) -> None:
        self._supervision, self._workers = supervision, workers
        self._saved_at = self._checked_at = time.monotonic()
        self._last_step, self._next_step = step, step + 1

    def is_due(self, step: int) -> bool:
        """Whether to check after this step; the same on all workers."""
        return step >= self._next_step

    def check(self, step: int, *, may_save: bool, saving_seconds: float) -> tuple[Directive, bool]:
        """Ask the first worker what to do, and whether to save; who is to save counts as saved.

        Args:
            step: Steps taken.
            may_save: Whether no checkpoint is being written.
            saving_seconds: What the last one took from training; the next is no sooner than
                LEAST_OVER_SAVING times that.
        """
        now = time.monotonic()
        step_seconds = (now - self._checked_at) / max(1, step - self._last_step)
        wait = int(CHECK_SECONDS / max(step_seconds, 1e-9))
        num_steps = min(MAX_STEPS_BETWEEN_CHECKS, max(1, wait))
        supervision = self._supervision
        saves = supervision.checkpoints is not None and (
            may_save
            and now - self._saved_at
            >= max(supervision.checkpoint_seconds, LEAST_OVER_SAVING * saving_seconds)
        )
        code, saves, num_steps = self._workers.all_from_first(
            float(_CODES.index(supervision.directive())), float(saves), float(num_steps)
        )
        self._checked_at, self._last_step, self._next_step = now, step, step + int(num_steps)
        if saves:
            self._saved_at = now
        return _CODES[int(code)], bool(saves)


def agreed(directive: Directive, workers: Workers) -> Directive:
    """The first worker's directive."""
    return _CODES[int(workers.from_first(float(_CODES.index(directive))))]
