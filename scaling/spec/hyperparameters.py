"""What determines a trial's training: fixed, compared, or searched."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal

from pydantic import (
    AfterValidator,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from scaling.arithmetic.rules import LR_RULE_PATTERN
from scaling.optimizers.catalog import OPTIMIZERS
from scaling.spec.fields import (
    MAX_VALUES,
    BatchSize,
    BelowOne,
    HistorySteps,
    NonNegativeFloat,
    NonNegativeInt,
    Percentile,
    PositiveFloat,
    PositiveInt,
    Rising,
    Section,
    Share,
    T,
    UnitFloat,
    Values,
    Whole,
    items_of,
    require_distinct,
)


def _is_lr_rule(name: str) -> str:
    if not re.fullmatch(LR_RULE_PATTERN, name):
        raise PydanticCustomError(
            "lr_rule",
            "must be none, sqrt, linear, adam_sde or power(EXPONENT), as in power(0.7), or "
            "surge(BNOISE), as in surge(31)",
        )
    return name


LrRule = Annotated[
    str,
    AfterValidator(_is_lr_rule),
    WithJsonSchema(
        {
            "title": "a rule",
            "anyOf": [
                {"enum": ["none", "sqrt", "linear", "adam_sde"]},
                {"type": "string", "pattern": r"^power\(-?\d+(\.\d+)?\)$"},
                {"type": "string", "pattern": r"^surge\((?!0+(\.0+)?\))\d+(\.\d+)?\)$"},
            ],
        }
    ),
]


if TYPE_CHECKING:
    Optimizer = str
else:
    Optimizer = Literal[tuple(OPTIMIZERS)]


ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"]


Beta2Scaling = Literal["none", "token_half_life"]


WeightDecayScaling = Literal["none", "timescale"]


WarmupScaling = Literal["steps", "examples"]


DecayShape = Literal["linear", "cosine", "one_minus_sqrt"]


CellValue = StrictInt | StrictFloat | StrictStr | None


def _require_order(low: Any, high: Any, *, above: float | None) -> None:
    if low is None or high is None or not low < high or (above is not None and low <= above):
        raise PydanticCustomError(
            "bounds",
            "bounds must be two rising numbers{floor}, as in [1e-4, 1e-2]",
            {"floor": "" if above is None else f" above {above:g}"},
        )


class Distribution(Section, Generic[T]):
    """How a searched hyperparameter is drawn: exactly one of three ways."""

    log_uniform: tuple[T, T] | None = None
    """Uniform in the logarithm between two bounds, both above 0."""
    uniform: tuple[T, T] | None = None
    """Uniform between two bounds."""
    choice: Annotated[tuple[T, ...], Field(min_length=1, max_length=MAX_VALUES)] | None = None
    """One of the values listed."""

    @model_validator(mode="after")
    def _one_way(self) -> "Distribution[T]":
        given = [self.log_uniform, self.uniform, self.choice]
        if sum(way is not None for way in given) != 1:
            raise PydanticCustomError(
                "distribution", "give exactly one of log_uniform, uniform, choice"
            )
        if self.choice is not None:
            require_distinct(self.choice)
        if self.uniform is not None:
            _require_order(*self.uniform, above=None)
        if self.log_uniform is not None:
            _require_order(*self.log_uniform, above=0)
        return self


class Choice(Section, Generic[T]):
    """A searched hyperparameter that is one of the values listed."""

    choice: Annotated[
        tuple[T, ...],
        Field(min_length=1, max_length=MAX_VALUES),
        AfterValidator(require_distinct),
    ]


RampFactor = Annotated[int, Field(ge=2, le=1024, strict=True), Whole]


class Fixed(Section):
    """Hyperparameters with one value in the whole study."""

    global_batch_size: BatchSize | None = None
    """Examples per optimizer step."""
    batch_ramp_every_examples: PositiveInt | None = None
    """The batch grows by batch_ramp_factor each time so many examples have been seen;
    global_batch_size is the first one."""
    batch_ramp_at_examples: Rising | None = None
    """The batch grows after these numbers of examples; give this or batch_ramp_every_examples."""
    batch_ramp_factor: RampFactor = 2
    """How many times larger the batch becomes each time it grows."""
    peak_lr: PositiveFloat | None = None
    """Learning rate at the end of warmup."""
    base_lr: PositiveFloat | None = None
    """Peak learning rate at base_batch_size; lr_scaling_rule carries it to the batch."""
    base_batch_size: BatchSize | None = None
    """Examples per step at which base_lr holds."""
    lr_scaling_rule: LrRule = "none"
    """How base_lr moves with the batch: none, sqrt, linear, adam_sde, power(EXPONENT) or
    surge(BNOISE), BNOISE the gradient noise scale in examples."""
    beta2_scaling: Beta2Scaling = "none"
    """token_half_life: beta2 forgets over as many examples at every batch size."""
    weight_decay_scaling: WeightDecayScaling = "none"
    """timescale: weights are averaged over as many examples at every batch size."""
    warmup_scaling: WarmupScaling = "steps"
    """Whether warmup_steps stay as many steps, or as many examples, at every batch size."""
    warmup_steps: NonNegativeInt | None = None
    """Steps of linear warmup; give this, warmup_ratio or warmup_examples."""
    warmup_ratio: BelowOne | None = None
    """Share of the run's steps that is linear warmup."""
    warmup_examples: NonNegativeInt | None = None
    """Training examples of linear warmup, rounded up to whole steps."""
    schedule: ScheduleName = "constant"
    """Learning rate after warmup; wsd is constant and decays in the last steps."""
    decay_ratio: Share = 0.2
    """Share of the run's steps that decays at the end of wsd."""
    decay_shape: DecayShape = "linear"
    """How wsd decays."""
    min_lr_ratio: UnitFloat = 0.0
    """Learning rate at the end of linear, cosine or wsd decay, over peak_lr."""
    optimizer: Optimizer = "adamw"
    """muon: of hidden matrices; embeddings, the head and vectors go by AdamW at the same rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Matrices only, embeddings and the head included. Added to the gradient for sgd and lars, to
    Adam's step inside the trust ratio for lamb, else decoupled: weights shrink by lr × decay."""
    beta1: BelowOne = 0.9
    beta2: BelowOne | None = None
    """Where left out, what is usual: 0.99 for lion, 0.95 for muon's AdamW, else 0.999."""
    eps: PositiveFloat | None = None
    """Where left out, what is usual: 1e-6 for lamb, else 1e-8."""
    momentum: BelowOne | None = None
    """Where left out, what is usual: 0.95 for muon, 0.9 for lars, 0 for sgd."""
    nesterov: bool = False
    """sgd looks ahead along its momentum (muon always does)."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the global gradient; null leaves it alone. Give this, clip_value or
    clip_percentile."""
    clip_value: PositiveFloat | None = None
    """Largest size of any entry of the global gradient."""
    clip_percentile: Percentile | None = None
    """Clip the global gradient to this percentile of its norms in the last clip_history_steps."""
    clip_history_steps: HistorySteps = 1000
    """Steps whose gradient norms clip_percentile is of."""
    dropout: BelowOne | None = None
    """Every dropout of an architecture from scratch; null leaves what the architecture has."""
    lora_rank: PositiveInt | None = None
    """Rank of the adapters; that of workload.model.lora where left out."""
    label_smoothing: BelowOne = 0.0
    """Share of a target spread evenly over all classes, in the training loss alone."""
    weight_average_half_life_examples: PositiveFloat | None = None
    """Evaluate an exponential average of the weights with this half-life, in examples."""


class Scientific(Section):
    """Hyperparameters that the question compares: each combination of values is a cell."""

    global_batch_size: Values[BatchSize] | None = None
    batch_ramp_every_examples: Values[PositiveInt | None] | None = None
    batch_ramp_factor: Values[RampFactor] | None = None
    peak_lr: Values[PositiveFloat] | None = None
    base_lr: Values[PositiveFloat] | None = None
    base_batch_size: Values[BatchSize] | None = None
    lr_scaling_rule: Values[LrRule] | None = None
    beta2_scaling: Values[Beta2Scaling] | None = None
    weight_decay_scaling: Values[WeightDecayScaling] | None = None
    warmup_scaling: Values[WarmupScaling] | None = None
    warmup_steps: Values[NonNegativeInt] | None = None
    warmup_ratio: Values[BelowOne] | None = None
    warmup_examples: Values[NonNegativeInt] | None = None
    schedule: Values[ScheduleName] | None = None
    decay_ratio: Values[Share] | None = None
    decay_shape: Values[DecayShape] | None = None
    min_lr_ratio: Values[UnitFloat] | None = None
    optimizer: Values[Optimizer] | None = None
    weight_decay: Values[NonNegativeFloat] | None = None
    beta1: Values[BelowOne] | None = None
    beta2: Values[BelowOne] | None = None
    eps: Values[PositiveFloat] | None = None
    momentum: Values[BelowOne] | None = None
    nesterov: Values[bool] | None = None
    clip_norm: Values[PositiveFloat | None] | None = None
    clip_value: Values[PositiveFloat | None] | None = None
    clip_percentile: Values[Percentile | None] | None = None
    clip_history_steps: Values[HistorySteps] | None = None
    dropout: Values[BelowOne | None] | None = None
    lora_rank: Values[PositiveInt] | None = None
    label_smoothing: Values[BelowOne] | None = None
    weight_average_half_life_examples: Values[PositiveFloat | None] | None = None


class Nuisance(Section):
    """Hyperparameters that are searched again inside every cell."""

    global_batch_size: Choice[BatchSize] | None = None
    batch_ramp_every_examples: Choice[PositiveInt | None] | None = None
    batch_ramp_factor: Choice[RampFactor] | None = None
    peak_lr: Distribution[PositiveFloat] | None = None
    base_lr: Distribution[PositiveFloat] | None = None
    lr_scaling_rule: Choice[LrRule] | None = None
    beta2_scaling: Choice[Beta2Scaling] | None = None
    weight_decay_scaling: Choice[WeightDecayScaling] | None = None
    warmup_scaling: Choice[WarmupScaling] | None = None
    warmup_steps: Choice[NonNegativeInt] | None = None
    warmup_ratio: Distribution[BelowOne] | None = None
    warmup_examples: Choice[NonNegativeInt] | None = None
    schedule: Choice[ScheduleName] | None = None
    decay_ratio: Distribution[Share] | None = None
    decay_shape: Choice[DecayShape] | None = None
    min_lr_ratio: Distribution[UnitFloat] | None = None
    optimizer: Choice[Optimizer] | None = None
    weight_decay: Distribution[NonNegativeFloat] | None = None
    beta1: Distribution[BelowOne] | None = None
    beta2: Distribution[BelowOne] | None = None
    eps: Distribution[PositiveFloat] | None = None
    momentum: Distribution[BelowOne] | None = None
    nesterov: Choice[bool] | None = None
    clip_norm: Distribution[PositiveFloat | None] | None = None
    clip_value: Distribution[PositiveFloat | None] | None = None
    clip_percentile: Distribution[Percentile | None] | None = None
    clip_history_steps: Choice[HistorySteps] | None = None
    dropout: Distribution[BelowOne | None] | None = None
    lora_rank: Choice[PositiveInt] | None = None
    label_smoothing: Distribution[BelowOne] | None = None
    weight_average_half_life_examples: Distribution[PositiveFloat | None] | None = None

    def distributions(self) -> dict[str, Distribution[Any] | Choice[Any]]:
        """The searched hyperparameters and how each is drawn, in the order of the schema."""
        return {name: value for name, value in items_of(self) if value is not None}


class CellRecipe(Section):
    """Values known beforehand for one cell; they win over `fixed`."""

    cell: dict[str, CellValue]
    """Which cell: the scientific values, as in {global_batch_size: 64}."""
    fixed: Fixed
    """The hyperparameters that hold in this cell alone."""
