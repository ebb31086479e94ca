"""The one table of hyperparameters: what determines a trial's training, and where it comes from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from scaling.arithmetic.rules import LR_RULE_PATTERN
from scaling.optimizers.catalog import OPTIMIZERS
from scaling.spec.fields import (
    BatchSize,
    BelowOne,
    HistorySteps,
    NonNegativeFloat,
    NonNegativeInt,
    Percentile,
    PositiveFloat,
    PositiveInt,
    Rising,
    Share,
    UnitFloat,
    Whole,
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
RampFactor = Annotated[int, Field(ge=2, le=1024, strict=True), Whole]


@dataclass(frozen=True)
class Entry:
    """What the table says of a hyperparameter beside its name, type and default.

    Attributes:
        help: What it is, in a sentence or two.
        unit: What a number of it counts; empty for shares, factors and names.
        drawn: Whether a search may draw it from a range, or one of listed values alone, or not
            at all.
        is_compared: Whether it may be a scientific axis.
        is_optional: Whether null, which turns it off, is a value to compare or to draw.
        scaled_by: The hyperparameter that says how it moves with the batch.
        needs: Another one, and the values of it without which this one has no effect.
        beside: The one after which sections list it.
    """

    help: str
    unit: str = ""
    drawn: Literal["range", "choice"] | None = "range"
    is_compared: bool = True
    is_optional: bool = False
    scaled_by: str = ""
    needs: tuple[str, frozenset[str]] | None = None
    beside: str = ""


_DECAYS: Final = ("schedule", frozenset({"linear", "cosine", "wsd"}))
_ENDS: Final = ("schedule", frozenset({"wsd"}))


@dataclass(frozen=True, kw_only=True)
class Given:
    """What determines a trial's training, as a study file gives it.

    None is what a rule or what is usual decides, or what is off. Sections, JSON Schema, recipes,
    MLflow's params and the recommended recipe's YAML have what stands here and in `Origin`.
    """

    global_batch_size: Annotated[BatchSize | None, Entry(
        "Examples per optimizer step.", unit="examples", drawn="choice",
    )] = None  # fmt: skip
    batch_ramp_at_examples: Annotated[Rising | None, Entry(
        "The batch grows after these numbers of examples; give this or batch_ramp_every_examples.",
        unit="examples", drawn=None, is_compared=False,
    )] = None  # fmt: skip
    batch_ramp_factor: Annotated[RampFactor, Entry(
        "How many times larger the batch becomes each time it grows.", drawn="choice",
    )] = 2  # fmt: skip
    peak_lr: Annotated[PositiveFloat | None, Entry(
        "Learning rate at the end of warmup.", scaled_by="lr_scaling_rule",
    )] = None  # fmt: skip
    warmup_steps: Annotated[NonNegativeInt | None, Entry(
        "Steps of linear warmup; give this, warmup_ratio or warmup_examples.", unit="steps",
        drawn="choice", scaled_by="warmup_scaling",
    )] = None  # fmt: skip
    schedule: Annotated[ScheduleName, Entry(
        "Learning rate after warmup; wsd is constant and decays in the last steps.", drawn="choice",
    )] = "constant"  # fmt: skip
    decay_ratio: Annotated[Share, Entry(
        "Share of the run's steps that decays at the end of wsd.", needs=_ENDS,
    )] = 0.2  # fmt: skip
    decay_shape: Annotated[DecayShape, Entry(
        "How wsd decays.", drawn="choice", needs=_ENDS,
    )] = "linear"  # fmt: skip
    min_lr_ratio: Annotated[UnitFloat, Entry(
        "Learning rate at the end of linear, cosine or wsd decay, over peak_lr.", needs=_DECAYS,
    )] = 0.0  # fmt: skip
    optimizer: Annotated[Optimizer, Entry(
        "muon: of hidden matrices; embeddings, the head and vectors go by AdamW at the same rate. "
        "module: the one that a LightningModule configures, its rate set here.",
        drawn="choice",
    )] = "adamw"  # fmt: skip
    weight_decay: Annotated[NonNegativeFloat, Entry(
        "Matrices only, embeddings and the head included. Added to the gradient for sgd and lars, "
        "to Adam's step inside the trust ratio for lamb, else decoupled: weights shrink by lr × "
        "decay.", scaled_by="weight_decay_scaling",
    )] = 0.0  # fmt: skip
    beta1: Annotated[BelowOne, Entry(
        "Share of the gradients' moving average that each step keeps.",
    )] = 0.9  # fmt: skip
    beta2: Annotated[BelowOne | None, Entry(
        "Where left out, what is usual: 0.99 for lion, 0.95 for muon's AdamW, else 0.999.",
        scaled_by="beta2_scaling",
    )] = None  # fmt: skip
    eps: Annotated[PositiveFloat | None, Entry(
        "Where left out, what is usual: 1e-6 for lamb, else 1e-8.",
    )] = None  # fmt: skip
    momentum: Annotated[BelowOne | None, Entry(
        "Where left out, what is usual: 0.95 for muon, 0.9 for lars, 0 for sgd.",
    )] = None  # fmt: skip
    nesterov: Annotated[bool, Entry(
        "sgd looks ahead along its momentum (muon always does).", drawn="choice",
    )] = False  # fmt: skip
    clip_norm: Annotated[PositiveFloat | None, Entry(
        "Largest norm of the global gradient; null leaves it alone. Give this, clip_value or "
        "clip_percentile.", is_optional=True,
    )] = None  # fmt: skip
    clip_value: Annotated[PositiveFloat | None, Entry(
        "Largest size of any entry of the global gradient.", is_optional=True,
    )] = None  # fmt: skip
    clip_percentile: Annotated[Percentile | None, Entry(
        "Clip the global gradient to this percentile of its norms in the last clip_history_steps.",
        unit="percent", is_optional=True,
    )] = None  # fmt: skip
    clip_history_steps: Annotated[HistorySteps, Entry(
        "Steps whose gradient norms clip_percentile is of.", unit="steps", drawn="choice",
    )] = 1000  # fmt: skip
    dropout: Annotated[BelowOne | None, Entry(
        "Every dropout of an architecture from scratch; null leaves what the architecture has.",
        is_optional=True,
    )] = None  # fmt: skip
    lora_rank: Annotated[PositiveInt | None, Entry(
        "Rank of the adapters; that of workload.model.lora where left out.", drawn="choice",
    )] = None  # fmt: skip
    label_smoothing: Annotated[BelowOne, Entry(
        "Share of a target spread evenly over all classes, in the training loss alone.",
    )] = 0.0  # fmt: skip
    weight_average_half_life_examples: Annotated[PositiveFloat | None, Entry(
        "Evaluate an exponential average of the weights with this half-life, in examples.",
        unit="examples", is_optional=True,
    )] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a trial's hyperparameters come from; once they are resolved, nothing depends on it."""

    batch_ramp_every_examples: Annotated[PositiveInt | None, Entry(
        "The batch grows by batch_ramp_factor each time so many examples have been seen; "
        "global_batch_size is the first one.", unit="examples", drawn="choice", is_optional=True,
        beside="global_batch_size",
    )] = None  # fmt: skip
    base_lr: Annotated[PositiveFloat | None, Entry(
        "Peak learning rate at base_batch_size; lr_scaling_rule carries it to the batch.",
        beside="peak_lr",
    )] = None  # fmt: skip
    base_batch_size: Annotated[BatchSize | None, Entry(
        "Examples per step at which base_lr holds.", unit="examples", drawn=None, beside="peak_lr",
    )] = None  # fmt: skip
    lr_scaling_rule: Annotated[LrRule, Entry(
        "How base_lr moves with the batch: none, sqrt, linear, adam_sde, power(EXPONENT) or "
        "surge(BNOISE), BNOISE the gradient noise scale in examples.", drawn="choice",
        beside="peak_lr",
    )] = "none"  # fmt: skip
    beta2_scaling: Annotated[Beta2Scaling, Entry(
        "token_half_life: beta2 forgets over as many examples at every batch size.", drawn="choice",
        beside="peak_lr",
    )] = "none"  # fmt: skip
    weight_decay_scaling: Annotated[WeightDecayScaling, Entry(
        "timescale: weights are averaged over as many examples at every batch size.",
        drawn="choice", beside="peak_lr",
    )] = "none"  # fmt: skip
    warmup_scaling: Annotated[WarmupScaling, Entry(
        "Whether warmup_steps stay as many steps, or as many examples, at every batch size.",
        drawn="choice", beside="peak_lr",
    )] = "steps"  # fmt: skip
    warmup_ratio: Annotated[BelowOne | None, Entry(
        "Share of the run's steps that is linear warmup.", beside="warmup_steps",
    )] = None  # fmt: skip
    warmup_examples: Annotated[NonNegativeInt | None, Entry(
        "Training examples of linear warmup, rounded up to whole steps.", unit="examples",
        drawn="choice", beside="warmup_steps",
    )] = None  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A trial's hyperparameters before they are resolved into a recipe."""

    given: Given
    origin: Origin

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setting":
        """From the values by name; those that are left out have their default."""
        given, origin = (
            {f.name: values[f.name] for f in fields(kind) if f.name in values}
            for kind in (Given, Origin)
        )
        return cls(Given(**given), Origin(**origin))
