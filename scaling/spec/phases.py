"""What a study does: search, transfer, confirm, branch, recommend."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from scaling.spec.fields import (
    BatchSize,
    PositiveFloat,
    PositiveInt,
    Rising,
    Section,
    Values,
    Whole,
    require_rising,
)
from scaling.spec.hyperparameters import LrRule

Objective = Literal["validation_loss", "steps_to_target", "examples_to_target"]


DesignName = Literal["qmc", "random", "grid"]
"""Samplers whose points are known before the first trial."""
AdaptiveName = Literal["tpe"]
"""Samplers that look at the trials so far."""
SamplerName = Literal[DesignName, AdaptiveName]


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), inside each cell.

    Rungs are at the first one × reduction_factor^k. A trial goes on from a rung while its
    validation loss is among the best 1 / reduction_factor of those that reached it so far.
    """

    rule: Literal["asha"]
    first_rung_examples: PositiveInt | None = None
    """Training examples at the first rung; give this or first_rung_tokens."""
    first_rung_tokens: PositiveInt | None = None
    """Input tokens, padding not counted, at the first rung."""
    reduction_factor: Annotated[float, Field(gt=1, strict=True)] = 3.0

    def rungs_passed(self, *, examples: int, tokens: int | None) -> int:
        """How many rungs a trial that has seen so much has reached; 0 before the first.

        Without `tokens` no rung that is counted in them is reached.
        """
        first = self.first_rung_examples or self.first_rung_tokens or 1
        seen = examples if self.first_rung_examples is not None else tokens or 0
        passed, rung = 0, float(first)
        while rung <= seen:
            passed, rung = passed + 1, rung * self.reduction_factor
        return passed

    @model_validator(mode="after")
    def _one_unit(self) -> "Asha":
        _require_one_rung(self.first_rung_examples, self.first_rung_tokens)
        return self


class MedianStopping(Section):
    """The median rule (Golovin et al. 2017, Google Vizier, sec. 3.2.1), inside each cell.

    Rungs are at the multiples of the first one. A trial goes on while its lowest validation loss
    is no worse than the median, over the cell's other trials that reached the rung, of their mean
    validation loss up to it.
    """

    rule: Literal["median"]
    first_rung_examples: PositiveInt | None = None
    """Training examples between rungs; give this or first_rung_tokens."""
    first_rung_tokens: PositiveInt | None = None
    """Input tokens, padding not counted, between rungs."""
    min_trials: PositiveInt = 3
    """No trial is ended at a rung that fewer others have reached."""

    def rungs_passed(self, *, examples: int, tokens: int | None) -> int:
        """How many rungs a trial that has seen so much has reached; 0 before the first.

        Without `tokens` no rung that is counted in them is reached.
        """
        first = self.first_rung_examples or self.first_rung_tokens or 1
        seen = examples if self.first_rung_examples is not None else tokens or 0
        return seen // first

    @model_validator(mode="after")
    def _one_unit(self) -> "MedianStopping":
        _require_one_rung(self.first_rung_examples, self.first_rung_tokens)
        return self


def _require_one_rung(examples: int | None, tokens: int | None) -> None:
    if (examples is None) == (tokens is None):
        raise PydanticCustomError(
            "rung", "give exactly one of first_rung_examples and first_rung_tokens"
        )


EarlyStopping = Annotated[Asha | MedianStopping, Field(discriminator="rule")]


class Search(Section):
    """How the nuisance hyperparameters are searched inside each cell."""

    objective: Objective = "validation_loss"
    """What makes a recipe best: the loss at the end of the budget, or reaching the target soon."""
    sampler: SamplerName = "qmc"
    """qmc: scrambled Sobol points; tpe: Optuna's tree-structured Parzen estimator."""
    trials_per_cell: PositiveInt
    """Trials a cell, the same for every cell."""
    early_stopping: EarlyStopping | None = None
    """End a trial that does worse than the others of its cell; null: none is ended early."""
    extend_undertuned: Annotated[int, Field(ge=0, le=2, strict=True), Whole] = 0
    """At most so many times: where a cell's best rate is the lowest or highest tried, search on
    beyond it, over half as wide a range (in the logarithm) with half as many trials."""

    @property
    def design(self) -> DesignName | None:
        """The sampler where its points are known beforehand; None where it adapts."""
        return None if self.sampler == "tpe" else self.sampler

    @property
    def adaptive(self) -> AdaptiveName | None:
        """The sampler where it adapts; None where its points are known beforehand."""
        return self.sampler if self.sampler == "tpe" else None


class Transfer(Section):
    """Carry the base cell's best recipe to the other batch sizes by each rule."""

    base_batch_size: BatchSize
    rules: Values[LrRule]
    num_seeds: PositiveInt = 3


class Confirm(Section):
    """Repeat each cell's best recipe with seeds that the search never saw."""

    num_seeds: PositiveInt = 3


class Branch(Section):
    """Go on from points of a run of the base cell's best recipe with larger batches.

    The critical batch size at a point is the largest batch whose validation loss after a window
    of examples is within a tolerance of what the base batch reaches. Merrill et al. 2025
    (arXiv:2505.23971).
    """

    base_batch_size: BatchSize
    at_examples: Rising
    """Training examples after which the batch grows, rounded up to whole steps."""
    multiples: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024, strict=True), Whole], ...],
        Field(min_length=2, max_length=31),
        AfterValidator(require_rising),
    ] = (1, 2, 4, 8, 16)
    """Batches of the branches, over base_batch_size; 1, the run that goes on as it is, is one."""
    window_examples: PositiveInt
    """Training examples of a branch, rounded up to whole steps of every branch."""
    tolerance: PositiveFloat = 0.02
    """Nats per target by which a branch may end above the branch of multiple 1."""
    lr_rule: LrRule | None = None
    """How the rate grows with the batch; linear for sgd and lars, else sqrt, where left out."""
    num_seeds: PositiveInt = 3

    @model_validator(mode="after")
    def _has_reference(self) -> "Branch":
        if self.multiples[0] != 1:
            raise PydanticCustomError(
                "multiples", "multiples must start with 1, which the others are compared with"
            )
        return self

    @property
    def starts(self) -> tuple[int, ...]:
        """`at_examples` in whole steps of the base batch; rising, perhaps with equal ones."""
        base = self.base_batch_size
        return tuple(-(-at // base) * base for at in self.at_examples)

    @property
    def window(self) -> int:
        """`window_examples` in whole steps of every branch."""
        unit = self.base_batch_size * math.lcm(*self.multiples)
        return -(-self.window_examples // unit) * unit


class Limits(Section):
    """What the next run may take; the report recommends a recipe within it."""

    num_workers: PositiveInt | None = None
    """Data-parallel workers of the next run; those of the study where left out."""
    deadline_seconds: PositiveFloat | None = None
    """Seconds of training at most."""
    cost_ceiling: PositiveFloat | None = None
    """Cost of the run at most, in the currency of price_per_worker_hour."""
    price_per_worker_hour: PositiveFloat | None = None
    """What one worker costs an hour."""

    @model_validator(mode="after")
    def _priced(self) -> "Limits":
        if self.cost_ceiling is not None and self.price_per_worker_hour is None:
            raise PydanticCustomError("price", "cost_ceiling needs price_per_worker_hour")
        return self
