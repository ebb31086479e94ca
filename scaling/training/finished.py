"""A trial whose run has ended already: its losses are looked up, and nothing is trained."""

import time

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.tasks.task import FinishedTask
from scaling.training.loop import Outcome
from scaling.training.supervision import Report


def look_up(task: FinishedTask, recipe: Recipe, report: Report) -> Outcome:
    """Report the one measurement that is known of a run, at the end of its budget."""
    started = time.perf_counter()
    losses = task.look_up(recipe)
    known = losses or {}
    ramp, num_steps = recipe.hyperparameters.batch_ramp, recipe.hyperparameters.num_steps or 0
    measurement = Measurement(
        step=num_steps,
        examples=ramp.examples_after(num_steps),
        tokens=None,
        seconds=time.perf_counter() - started,
        validation_loss=known.get("validation"),
        train_loss=known.get("train"),
        test_loss=known.get("test"),
    )
    report(measurement, at_rung=False)
    return Outcome("diverged" if losses is None else "done", {})
