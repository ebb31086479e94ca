"""What a study does: search, transfer, confirm, branch, recommend."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from scaling.spec.evaluation import LOSS
from scaling.spec.fields import (
    BatchSize,
    MetricName,
    PositiveFloat,
    PositiveInt,
    Rising,
    Section,
    Values,
    Whole,
    require_rising,
)
from scaling.spec.hyperparameters import LrRule

Phase = Literal["search", "transfer", "confirm", "confirm_target", "branch", "check"]
"""`confirm` repeats each cell's recipe for the loss, `confirm_target` that for the target; `check`
trains a ladder's last size at its prediction and around it."""
ToTarget = Literal["steps_to_target", "examples_to_target"]
TO_TARGET: Final[tuple[ToTarget, ...]] = get_args(ToTarget)
"""Objectives that count how soon a run reaches the study's target."""
MAX_SURFACE_TRIALS: Final = 1_000
"""In a search by the surface; what a round takes grows with their cube."""

DesignName = Literal["qmc", "random", "grid"]
"""Samplers whose points are known before the first trial."""
AdaptiveName = Literal["tpe"]
"""Samplers that look at the trials so far."""
_DESIGNS: Final[tuple[DesignName, ...]] = get_args(DesignName)
_ADAPTIVE: Final[tuple[AdaptiveName, ...]] = get_args(AdaptiveName)
SamplerName = Literal["surface", DesignName, AdaptiveName]


class Asha(Section):
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), inside each cell.

    Rungs are at the first one × reduction_factor^k. A trial goes on from a rung while its
    validation loss, or the metric of search.objective, is among the best 1 / reduction_factor of
    those that reached it so far.
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

    Rungs are at the multiples of the first one. A trial goes on while its lowest validation loss,
    or best metric of search.objective, is no worse than the median, over the cell's other trials
    that reached the rung, of their mean up to it.
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


class Stop(Section):
    """When a search by the surface ends before its trials are spent.

    The regret of a cell is how far the best recipe found so far is above the lowest that the cell
    can reach. The search ends once it is small in every cell.
    """

    regret_at_most_ratio: PositiveFloat | None = None
    """Largest regret over the lowest value, as in 0.0025; give this or regret_at_most."""
    regret_at_most: PositiveFloat | None = None
    """Largest regret, in the unit of the objective: of the loss (nats, where it is a likelihood),
    of steps, of examples, or of the task's metric, as 0.005 of an accuracy."""
    with_probability: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.9
    """How sure the surface must be of it, in each cell."""

    @model_validator(mode="after")
    def _one_limit(self) -> "Stop":
        if (self.regret_at_most_ratio is None) == (self.regret_at_most is None):
            raise PydanticCustomError(
                "stop", "give exactly one of regret_at_most_ratio and regret_at_most"
            )
        return self


USUAL_STOP: Final[Mapping[str, float]] = {"regret_at_most_ratio": 0.0025}


_JOINT_COUNTS: Final = frozenset({"num_trials", "budget_flops"})


class Search(Section):
    """How the nuisance hyperparameters are searched inside each cell."""

    objective: MetricName = LOSS
    """What makes a recipe best: validation_loss or a metric of the task, at the end of the budget,
    or reaching the target soon, by steps_to_target or examples_to_target."""
    sampler: SamplerName = "surface"
    """surface: one model of the loss over all cells says what to try next; qmc: scrambled Sobol
    points; tpe: Optuna's tree-structured Parzen estimator. With trials_per_cell alone it is qmc."""
    num_trials: PositiveInt | None = None
    """Trials of all cells together, at most; for the surface."""
    budget_flops: PositiveFloat | None = None
    """Floating-point operations of all trials together, at most, 6 for each parameter and token;
    for a ladder, in place of num_trials."""
    trials_per_cell: PositiveInt | None = None
    """Trials of each cell, the same for every cell; for the other samplers."""
    stop: Stop | None = None
    """When the surface may stop before num_trials: regret_at_most_ratio 0.0025 where left out;
    null: it runs all of them."""
    round_size: PositiveInt | None = None
    """Trials that the surface proposes at a time, after a first design. Left out: about a sixth of
    num_trials and at least four; two for each slot where that is at most a third."""
    prior_peak_lr: PositiveFloat | None = None
    """A learning rate expected to be good at the middle batch size; the surface tries it
    first."""
    early_stopping: EarlyStopping | None = None
    """End a trial that does worse than the others of its cell; null: end none early."""
    extend_undertuned: Annotated[int, Field(ge=0, le=2, strict=True), Whole] = 0
    """At most so many times: where a cell's best rate is the lowest or highest tried, search on
    beyond it, over half as wide a range (in the logarithm) with half as many trials."""

    @model_validator(mode="before")
    @classmethod
    def _usual_sampler_and_stop(cls, given: Any) -> Any:
        """Trials that are counted by cell are of a fixed design, unless a sampler is named."""
        if not isinstance(given, dict):
            return given
        fields = cast("dict[str, Any]", given)
        counts = {name for name, value in fields.items() if value is not None}
        is_by_cell = "trials_per_cell" in counts and not counts & _JOINT_COUNTS
        fields = {"sampler": "qmc" if is_by_cell else "surface", **fields}
        return {"stop": USUAL_STOP, **fields} if fields["sampler"] == "surface" else fields

    @model_validator(mode="after")
    def _counted_once(self) -> "Search":
        if self.budget_flops is not None and self.num_trials is not None:
            raise PydanticCustomError(
                "trial_count", "give exactly one of num_trials and budget_flops"
            )
        is_counted_jointly = self.num_trials is not None or self.budget_flops is not None
        if is_counted_jointly == (self.trials_per_cell is not None):
            raise PydanticCustomError(
                "trial_count",
                "give exactly one of num_trials (of all cells together, with sampler surface) and "
                "trials_per_cell (with any other sampler)",
            )
        if self.is_joint != is_counted_jointly:
            names = ["num_trials", "trials_per_cell"]
            right, wrong = names if self.is_joint else reversed(names)
            raise PydanticCustomError(
                "trial_count",
                "sampler {sampler} takes {right}, not {wrong}",
                {"sampler": self.sampler, "right": right, "wrong": wrong},
            )
        return self

    @property
    def is_joint(self) -> bool:
        """Whether one surface over all cells says what to try, and trials are counted together."""
        return self.sampler == "surface"

    @property
    def most_trials(self) -> int:
        """Trials of a search by the surface, at most."""
        return self.num_trials or MAX_SURFACE_TRIALS

    @property
    def may_stop(self) -> bool:
        """Whether it may end before all of its trials have run."""
        return self.is_joint and self.stop is not None

    def num_trials_of(self, num_cells: int) -> int:
        """Trials of the search in all cells; of the surface, at most."""
        return self.most_trials if self.is_joint else num_cells * self.per_cell

    @property
    def per_cell(self) -> int:
        """`trials_per_cell` of a sampler that takes it."""
        assert self.trials_per_cell is not None
        return self.trials_per_cell

    @property
    def design(self) -> DesignName | None:
        """The sampler where its points are known beforehand; None where they are not."""
        return self.sampler if self.sampler in _DESIGNS else None

    @property
    def adaptive(self) -> AdaptiveName | None:
        """The sampler where Optuna decides its points as trials start; None where it does not."""
        return self.sampler if self.sampler in _ADAPTIVE else None


class Transfer(Section):
    """Carry the base cell's best recipe to the other batch sizes by each rule."""

    base_batch_size: BatchSize
    rules: Values[LrRule]
    num_seeds: PositiveInt = 3


class Confirm(Section):
    """Repeat each cell's best recipe with seeds that the search never saw."""

    num_seeds: PositiveInt = 3
    recipe_for_target: bool | None = None
    """Repeat also the recipe that the search expects to reach the target in the fewest steps, with
    as many seeds, in each cell where it is another one than that for the loss. null: where the
    study has a target that its search does not go by, cells of one batch size, and no transfer,
    whose runs are of other seeds too."""
    keep_models: bool = False
    """Keep each of these trials' models as it was evaluated last, in the storage's folder `models`
    and in MLflow: a folder that from_pretrained reads, or weights.pt of a module of your own."""


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
    """Batch sizes of the branches over base_batch_size; 1, the unchanged run, is one of them."""
    window_examples: PositiveInt
    """Training examples of a branch, rounded up to whole steps of every branch."""
    tolerance: PositiveFloat = 0.02
    """Nats per target by which a branch may end above the branch with multiple 1."""
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
    """Price of one worker for an hour."""

    @model_validator(mode="after")
    def _priced(self) -> "Limits":
        if self.cost_ceiling is not None and self.price_per_worker_hour is None:
            raise PydanticCustomError("price", "cost_ceiling needs price_per_worker_hour")
        return self
