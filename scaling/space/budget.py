"""How long a trial is: the steps that a budget allows, at a batch that may grow."""

import math
from typing import assert_never

from scaling.arithmetic.batching import BatchRamp
from scaling.space.layout import Facts
from scaling.spec.fields import MAX_BATCH_SIZE
from scaling.spec.hyperparameters import Setting
from scaling.spec.study import StudySpec


def rounded_up(value: float) -> int:
    """Rounded up, the error of floats aside: 0.07 × 100 is 7."""
    return math.ceil(value - 1e-9)


def batch_ramp_of(setting: Setting) -> BatchRamp:
    """How the batch of a trial with these hyperparameters grows.

    A ramp by every_examples has no end of its own, so it is listed up to the largest batch.
    """
    given, every = setting.given, setting.origin.batch_ramp_every_examples
    first, factor = given.global_batch_size, given.batch_ramp_factor
    assert first is not None
    if every is None:
        return BatchRamp(first, tuple(given.batch_ramp_at_examples or ()), factor)
    return BatchRamp.every(every, first=first, factor=factor, largest=MAX_BATCH_SIZE)


def num_steps_of(spec: StudySpec, ramp: BatchRamp, facts: Facts) -> int | None:
    """Optimizer steps that the budget allows, rounded up; None for seconds.

    Raises:
        ValueError: If the budget is in epochs and the data have no end, or in tokens and they
            have none.
    """
    budget = spec.budget
    match budget.measure:
        case "steps":
            return max(budget.steps or 0, budget.min_steps)
        case "seconds":
            return None
        case "examples":
            examples = budget.examples or 0
        case "tokens":
            if facts.tokens_per_example is None:
                raise ValueError("budget.tokens: the examples have no tokens")
            examples = rounded_up((budget.tokens or 0) / facts.tokens_per_example)
        case "epochs":
            if facts.num_train is None:
                raise ValueError("budget.epochs: an endless stream of examples has no epochs")
            examples = rounded_up((budget.epochs or 0) * facts.num_train)
        case unknown:
            assert_never(unknown)
    return ramp.steps_for(examples, min_steps=budget.min_steps)
