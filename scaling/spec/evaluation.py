"""How much a trial trains, and how it is measured."""

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from scaling.spec.fields import Finite, MetricName, PositiveFloat, PositiveInt, Section

BudgetMeasure = Literal["steps", "examples", "tokens", "epochs", "seconds"]
CADENCES: Final = ("every_examples", "every_steps", "growth_ratio")
LOSS: Final = "validation_loss"
"""The metric that every task has: the mean loss per target of the validation examples."""
_BUDGET_MEASURES: tuple[BudgetMeasure, ...] = get_args(BudgetMeasure)


class Budget(Section):
    """How long a trial trains: exactly one measure, the same for every cell."""

    steps: PositiveInt | None = None
    examples: PositiveInt | None = None
    tokens: PositiveInt | None = None
    """Input tokens, padding not counted; at the mean length of the training examples."""
    epochs: PositiveFloat | None = None
    seconds: PositiveFloat | None = None
    min_steps: PositiveInt = 1
    """No cell takes fewer optimizer steps, since equal examples starve large batches; not with
    seconds, which end a trial whatever it has done."""

    @property
    def measure(self) -> BudgetMeasure:
        """The one of steps, examples, tokens, epochs and seconds that is given."""
        return next(name for name in _BUDGET_MEASURES if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_measure(self) -> "Budget":
        given = [name for name in _BUDGET_MEASURES if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "budget", "give exactly one of steps, examples, tokens, epochs, seconds"
            )
        if self.seconds is not None and self.min_steps > 1:
            raise PydanticCustomError("budget", "min_steps cannot be kept by a budget in seconds")
        return self


class Sharpness(Section):
    """How sharp the loss is around the last evaluated weights, once at the end of a trial.

    Costs some hundred passes over the examples. Keskar et al. 2016 (arXiv:1609.04836) metric 2.1
    and the largest eigenvalue of the Hessian.
    """

    num_examples: PositiveInt = 256
    """At most this many training examples, the same ones in every trial."""
    epsilon: PositiveFloat = 1e-3
    """The box around weights w in which the loss is maximized is epsilon (|w| + 1)."""


class Evaluation(Section):
    """When, and on how many fixed examples of each split, a trial is evaluated.

    Every trial is evaluated before its first step and after its last, whatever is said here.
    """

    every_examples: PositiveInt | None = None
    """Evaluate after the first step that reaches each multiple of this many examples."""
    every_steps: PositiveInt | None = None
    """Evaluate after each multiple of this many steps."""
    growth_ratio: Annotated[float, Field(gt=1, strict=True)] | None = None
    """Evaluate each time the number of steps has grown by this factor (and at least by one)."""
    num_examples: PositiveInt = 2000
    """At most this many examples of each split, the same ones in every trial."""
    divergence_ratio: Annotated[float, Field(gt=1, strict=True)] = 3.0
    """A trial whose validation loss exceeds its first one by this factor has diverged. Where the
    first one is at or below 0, only a loss that is not finite counts as divergence."""
    sharpness: Sharpness | None = None
    """null: not measured."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluation":
        if sum(getattr(self, name) is not None for name in CADENCES) != 1:
            raise PydanticCustomError("cadence", f"give exactly one of {', '.join(CADENCES)}")
        return self


class Target(Section):
    """The value up to which steps, examples and seconds to target are counted."""

    metric: MetricName = LOSS
    """validation_loss, or a metric of the task that is measured along a run."""
    at_most: Finite | None = None
    """Upper bound on what should be low: the loss per target (token or example), else in the
    metric's unit. Give this or at_least."""
    at_least: Finite | None = None
    """Lower bound on what should be high, such as an accuracy of 0.9."""

    @property
    def value(self) -> float:
        """The value to reach."""
        value = self.at_most if self.at_least is None else self.at_least
        assert value is not None
        return value

    @model_validator(mode="after")
    def _one_side(self) -> "Target":
        if (self.at_most is None) == (self.at_least is None):
            raise PydanticCustomError(
                "target_side",
                "give exactly one of at_most (for a metric that should be low) and at_least (for "
                "one that should be high)",
            )
        if self.metric == LOSS and self.at_most is None:
            raise PydanticCustomError("target_side", "validation_loss takes at_most")
        return self
