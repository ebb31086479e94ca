"""What a study asks: the typed, frozen form of one YAML file.

Every name that later appears in a recipe, an MLflow run or on a plot axis is declared here.
`scaling.study_file` reads a file into a `StudySpec`; this module imports neither torch nor Ray.
"""

import codecs
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

T = TypeVar("T")

MAX_COUNT = 2**53
"""No count is larger: above it a float, which is what metrics are, skips integers."""
MAX_BATCH_SIZE = 2**31 - 1

MAX_VALUES = 1000
"""No list of values to compare or to choose from is longer."""


def _whole(value: Any) -> Any:
    """A float without a fraction as the whole number that it is: YAML reads 1e3 as a float."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= MAX_COUNT
    return int(value) if is_whole else value


Whole = BeforeValidator(_whole)
PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT, strict=True), Whole]
NonNegativeInt = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True), Whole]
BatchSize = Annotated[int, Field(gt=0, le=MAX_BATCH_SIZE, strict=True), Whole]
Width = Annotated[int, Field(gt=0, le=2**20, strict=True), Whole]
PositiveFloat = Annotated[float, Field(gt=0, strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, strict=True)]
UnitFloat = Annotated[float, Field(ge=0, le=1, strict=True)]
BelowOne = Annotated[float, Field(ge=0, lt=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Percentile = Annotated[float, Field(gt=0, lt=100, strict=True)]
HistorySteps = Annotated[int, Field(ge=2, le=100_000, strict=True), Whole]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


def _expanded(path: str) -> str:
    """A path with a leading ~ or ~USER as the home folder it stands for; a URL as it is."""
    scheme = "file://" if path.startswith("file://") else ""
    return scheme + os.path.expanduser(path.removeprefix(scheme))  # noqa: PTH111  # keeps ./ and //


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]
"""A file or folder, or a name that may stand in its place; ~ is the home folder."""

LR_RULE_PATTERN = (
    r"^(none|sqrt|linear|adam_sde|power\((?P<exponent>-?\d+(\.\d+)?)\)"
    r"|surge\((?P<noise_scale>(?!0+(\.0+)?\))\d+(\.\d+)?)\))$"
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
Optimizer = Literal["adamw", "sgd", "lamb", "lars", "adafactor", "lion", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"]
Beta2Scaling = Literal["none", "token_half_life"]
WeightDecayScaling = Literal["none", "timescale"]
WarmupScaling = Literal["steps", "examples"]
DecayShape = Literal["linear", "cosine", "one_minus_sqrt"]
TaskName = Literal[
    "text_classification", "token_classification", "question_answering", "causal_lm", "seq2seq",
    "noisy_quadratic",
]  # fmt: skip
Strategy = Literal["ddp", "fsdp", "zero1", "zero2", "zero3", "tp"]
ZERO_STAGES: Mapping[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3}
"""Strategies that are DeepSpeed's, and its names for them."""
Precision = Literal["fp32", "bf16", "fp16"]
CellValue = StrictInt | StrictFloat | StrictStr | None

BUILTIN_SOURCES: Mapping[str, tuple[TaskName, ...]] = {
    "grapheme_to_phoneme": ("causal_lm", "seq2seq"),
    "python_topics": ("causal_lm",),
    "part_of_speech": ("text_classification",),
    "part_of_speech_treebank": ("token_classification",),
    "python_questions": ("question_answering",),
}
"""The data that come with the package or one of its extras, and the tasks each is for."""
BUILTIN_MODELS = ("minilm",)
"""Trained models that come with one of the package's extras, as in pretrained: builtin:minilm."""
DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
"""Kinds of local files that can be read; all but parquet also with .gz behind."""


def _require_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len({repr(value) for value in values}) < len(values):
        raise PydanticCustomError("distinct", "values must differ from each other")
    return values


class Section(BaseModel):
    """One mapping of a study file; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


# --- workload ---------------------------------------------------------------------------------


class FromScratch(Section):
    """A model with random weights, built by transformers from an architecture and sizes."""

    architecture: str
    """A transformers model type, as in llama, gpt2, bert."""
    hidden_size: Width
    num_hidden_layers: Annotated[int, Field(gt=0, le=1000, strict=True), Whole]
    num_attention_heads: Width
    intermediate_size: Width | None = None
    """Width of the feed-forward layer; 4 × hidden_size where it is left out."""
    config: dict[str, bool | int | float | str | None] = {}
    """Further options of the architecture's transformers configuration class."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "FromScratch":
        if self.hidden_size % self.num_attention_heads:
            raise PydanticCustomError(
                "heads",
                "hidden_size {hidden_size} must be a multiple of num_attention_heads {heads}",
                {"hidden_size": self.hidden_size, "heads": self.num_attention_heads},
            )
        return self


class Lora(Section):
    """Low-rank adapters: only they, and weights that did not come with the model, are trained.

    Hu et al. 2021 (arXiv:2106.09685). Random weights have nothing to adapt, so a model from
    scratch has none.
    """

    rank: PositiveInt = 8
    """Where the hyperparameter lora_rank is not given."""
    alpha: PositiveFloat = 16.0
    """What is added to a layer is multiplied by alpha / rank."""
    dropout: BelowOne = 0.0
    """Of the adapters' inputs."""
    target_modules: (
        Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all-linear"] | None
    ) = None
    """Layers by the end of their names, as in [q_proj, v_proj]; all-linear: every linear layer but
    the head; null: what peft adapts in this architecture, mostly queries and values."""


class Pretrained(Section):
    """A model with trained weights."""

    pretrained: LocalPath
    """A folder, a name on the Hugging Face hub, or builtin:minilm."""
    lora: Lora | None = None
    """null: all weights are trained."""


MODEL_KINDS: Mapping[str, type[Section]] = {"from_scratch": FromScratch, "pretrained": Pretrained}
"""The two kinds of model by the names that errors have of them."""


def _model_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "pretrained" if "pretrained" in cast("dict[Any, Any]", value) else "from_scratch"
    return "pretrained" if isinstance(value, Pretrained) else "from_scratch"


ModelSpec = Annotated[
    Annotated[FromScratch, Tag("from_scratch")] | Annotated[Pretrained, Tag("pretrained")],
    Discriminator(_model_kind),
]


class Glob(Section):
    """Every file that matches a pattern, in sorted order."""

    glob: LocalPath
    """A path with *, ? and [...], and ** for folders within folders, as in "part-*.csv"."""


def _one_form(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One error for the three forms, in place of one for each."""
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError(
            "file_names",
            "must be the path of a file, a list of different paths, or {glob: PATTERN}",
        ) from None


FileNames = Annotated[
    LocalPath
    | Annotated[tuple[LocalPath, ...], Field(min_length=1), AfterValidator(_require_distinct)]
    | Glob,
    WrapValidator(_one_form),
]


class Files(Section):
    """Local files by split: csv (, ; or tabs), tsv, json (lines), parquet or txt; also with .gz.

    A path is taken as it stands. Of a list of files, the rows follow each other.
    """

    train: FileNames
    """A path, a list of paths, or {glob: PATTERN}. A txt has one document a line; with packing,
    it is one document whose lines stay in order."""
    validation: FileNames | None = None
    """Left out: taken from the training files by content, so no text is on both sides."""
    test: FileNames | None = None
    """Left out: taken from the training files by content, so no text is on both sides."""


def _is_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        "".encode(name)  # refused by codecs that are not of text, as hex is
    except (LookupError, UnicodeError, ValueError):
        raise PydanticCustomError(
            "encoding", "must be an encoding of text, as in utf-8, latin-1 or utf-16-le"
        ) from None
    return name


Names = Annotated[tuple[Text, ...], Field(min_length=2), AfterValidator(_require_distinct)]
Policy = Literal["drop", "error"]
RareClasses = Literal["keep", "drop", "error"]


class DataSpec(Section):
    """Where the examples come from and how many are used."""

    source: Annotated[str, Field(pattern=r"^(builtin|hub):.+$")] | None = None
    """`builtin:NAME` or `hub:NAME`; give this or `files`."""
    files: Files | None = None
    """Local files; give this or `source`."""
    subset: str | None = None
    """Name of a hub data set's configuration."""
    hub_splits: dict[Literal["train", "validation", "test"], str] = {}
    """Names of a hub data set's splits, where they are not train, validation and test."""
    encoding: Annotated[str, AfterValidator(_is_encoding)] | None = None
    """Encoding of text files; where left out, what a file's byte-order mark says, else UTF-8, else
    Latin-1."""
    text_column: str = "text"
    """Column with the input text."""
    label_column: str = "label"
    """Column with the class (text_classification)."""
    label_names: Names | None = None
    """Names of the classes 0, 1, …, where label_column has their numbers."""
    tokens_column: str = "tokens"
    """Column with the list of words (token_classification)."""
    tags_column: str = "tags"
    """Column with the list of the words' tags (token_classification)."""
    tag_names: Names | None = None
    """Names of the tags 0, 1, …, where tags_column has their numbers, as in [O, B-PER, I-PER]."""
    question_column: str = "question"
    """Column with the question (question_answering)."""
    context_column: str = "context"
    """Column with the text that the answer is a part of (question_answering)."""
    answers_column: str = "answers"
    """Column with a mapping of text and answer_start, lists both, as in SQuAD
    (question_answering)."""
    source_column: str = "source"
    """Column with the text that is read (seq2seq). A column that is a mapping is gone into by a
    dot, here as for every column: translation.en."""
    target_column: str = "target"
    """Column with the text that is written (seq2seq)."""
    prompt_column: str | None = None
    """causal_lm: column with a prompt whose tokens do not count in the loss."""
    answer_column: str | None = None
    """causal_lm: column with the text to generate after the prompt."""
    missing_labels: Policy = "error"
    """Rows without a label: drop leaves them out, error names them and ends."""
    missing_texts: Policy = "error"
    """Rows without a text: drop leaves them out, error names them and ends."""
    rare_classes: RareClasses = "keep"
    """Classes with fewer texts than there are splits, and those that only held-out data have.
    keep: the former stay in the training data, the latter are never learnt; drop: their rows are
    left out; error: they are named and the study ends."""
    tokenizer: LocalPath | None = None
    """`characters` (the default from scratch), `subwords` learnt from the training texts, a
    folder or a hub name."""
    vocab_size: PositiveInt = 2000
    """Entries of the vocabulary of `subwords`."""
    max_length: Annotated[int, Field(ge=2, le=2**20, strict=True), Whole] = 128
    """Tokens an example; what is longer is cut into several (causal_lm, token_classification,
    question_answering) or truncated. Of source and target each in seq2seq."""
    num_train: PositiveInt | None = None
    """Training rows used (a long document is one row and several examples); all where left out."""
    num_validation: PositiveInt | None = None
    """Validation examples set aside; one in ten, at most 2,000, where left out."""
    num_test: PositiveInt | None = None
    """Test examples set aside; one in ten, at most 2,000, where left out."""

    @model_validator(mode="after")
    def _one_origin(self) -> "DataSpec":
        if (self.source is None) == (self.files is None):
            raise PydanticCustomError("origin", "give exactly one of source and files")
        if (self.prompt_column is None) != (self.answer_column is None):
            raise PydanticCustomError("columns", "give prompt_column and answer_column together")
        return self


class TextClassification(Section):
    """Predict one class for a text; the loss is in nats per example."""

    task: Literal["text_classification"]
    model: ModelSpec
    data: DataSpec


class TokenClassification(Section):
    """Predict the tag of each word of a text; the loss is in nats per labelled word."""

    task: Literal["token_classification"]
    model: ModelSpec
    data: DataSpec


class QuestionAnswering(Section):
    """Find the span of a context that answers a question; the loss is in nats per window."""

    task: Literal["question_answering"]
    model: ModelSpec
    data: DataSpec
    stride: NonNegativeInt = 32
    """Tokens of a long context that two neighbouring windows share; at most max_length / 2 − 4."""
    max_answer_length: PositiveInt = 30
    """Most tokens of a predicted answer."""


class Generation(Section):
    """What the model writes after the last step, to be compared with the references."""

    num_examples: PositiveInt = 200
    """At most this many examples of the validation subset."""
    max_new_tokens: Annotated[int, Field(gt=0, le=4096, strict=True), Whole] = 64
    """Most tokens written for an example."""
    num_beams: Annotated[int, Field(gt=0, le=100, strict=True), Whole] = 4
    """Beams of the search beside greedy decoding; 1: greedy decoding alone."""


class Seq2Seq(Section):
    """Write a target text from a source text; the loss is in nats per target token."""

    task: Literal["seq2seq"]
    model: ModelSpec
    data: DataSpec
    generation: Generation | None = Generation()
    """null: the model is not asked to write."""


class CausalLm(Section):
    """Predict each next token; the loss is in nats per token that counts."""

    task: Literal["causal_lm"]
    model: ModelSpec
    data: DataSpec
    packing: bool = False
    """Join the texts of a split and cut them into examples of exactly max_length tokens."""
    generation: Generation | None = None
    """Also write answers to the prompts after the last step; null: no."""


class NoisyQuadratic(Section):
    """An ensemble of independent noisy quadratics with a known answer (Zhang et al. 2019).

    Curvature h_i = 1 / i, stochastic gradient h_i x_i + N(0, h_i / B), x_0 ~ N(0, I), loss
    ½ Σ h_i x_i² averaged over the chains.
    """

    task: Literal["noisy_quadratic"]
    num_dimensions: PositiveInt = 100
    num_chains: PositiveInt = 1000
    """Independent chains trained at once; their mean loss is the measured loss."""


TextWorkload = TextClassification | TokenClassification | QuestionAnswering | CausalLm | Seq2Seq
Workload = Annotated[
    TextClassification
    | TokenClassification
    | QuestionAnswering
    | CausalLm
    | Seq2Seq
    | NoisyQuadratic,
    Field(discriminator="task"),
]


# --- hyperparameters --------------------------------------------------------------------------


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
            _require_distinct(self.choice)
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
        AfterValidator(_require_distinct),
    ]


def _require_rising(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise PydanticCustomError("rising", "values must rise")
    return values


Rising = Annotated[
    tuple[PositiveInt, ...], Field(min_length=1, max_length=31), AfterValidator(_require_rising)
]
RampFactor = Annotated[int, Field(ge=2, le=1024, strict=True), Whole]
Values = Annotated[
    tuple[T, ...], Field(min_length=1, max_length=MAX_VALUES), AfterValidator(_require_distinct)
]


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
        return {name: value for name, value in _given(self) if value is not None}


class CellRecipe(Section):
    """Values known beforehand for one cell; they win over `fixed`."""

    cell: dict[str, CellValue]
    """Which cell: the scientific values, as in {global_batch_size: 64}."""
    fixed: Fixed
    """The hyperparameters that hold in this cell alone."""


# --- how much, how measured, on what ----------------------------------------------------------


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
    def measure(self) -> str:
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


_BUDGET_MEASURES = ("steps", "examples", "tokens", "epochs", "seconds")


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
    """A trial whose validation loss exceeds its first one by this factor has diverged."""
    sharpness: Sharpness | None = None
    """null: not measured."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluation":
        given = (self.every_examples, self.every_steps, self.growth_ratio)
        if sum(value is not None for value in given) != 1:
            raise PydanticCustomError(
                "cadence", "give exactly one of every_examples, every_steps, growth_ratio"
            )
        return self


class Target(Section):
    """What steps, examples and seconds to target are counted to."""

    metric: Literal["validation_loss"] = "validation_loss"
    at_most: PositiveFloat
    """Nats per target (token or example)."""


Objective = Literal["validation_loss", "steps_to_target", "examples_to_target"]
SamplerName = Literal["qmc", "tpe", "random", "grid"]


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
        AfterValidator(_require_rising),
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


class Resources(Section):
    """What one trial runs on."""

    num_workers: PositiveInt | Literal["auto"] = 1
    """Workers a trial, data-parallel but under strategy tp; auto: one, or more where that ends the
    study sooner."""
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    micro_batch_size: PositiveInt | Literal["auto"] | None = None
    """Most examples per worker per forward, as long as the batch's longest (of shorter ones there
    may be more); the rest is gradient accumulation. auto: as many as are estimated to fit into a
    worker's memory (and fewer where memory runs out all the same). A CPU takes smaller parts where
    that is faster."""
    strategy: Strategy = "ddp"
    """ddp: every worker holds the whole model; fsdp: weights, gradients and optimizer state are cut
    among the workers, for a model that does not fit into one; zero1, zero2, zero3: DeepSpeed cuts
    the optimizer state, the gradients too, the weights too (extra deepspeed); tp: the blocks'
    matrices are cut by the architecture's own plan, and all workers compute every example together
    (no data-parallel workers)."""
    precision: Precision = "fp32"
    """bf16, fp16: forward and backward under autocast; weights and optimizer state stay fp32. fp16
    scales the loss; a step whose gradient overflows is skipped and counted."""
    activation_checkpointing: bool = False
    """Keep each Transformer block's input alone and compute its activations again in the backward
    pass: about a third more time for a fraction of the memory."""
    compile: bool = False
    """Compile each Transformer block with torch.compile: a minute once, faster steps after."""
    executor: Literal["pool", "per_trial"] = "pool"
    """pool: worker groups live as long as the study; per_trial: one trainer a trial."""
    max_slots: PositiveInt | None = None
    """At most this many trials at once; as many as fit where left out."""

    @property
    def num_parts(self) -> int:
        """Workers that share one copy of the model's matrices and one batch; 1 but under tp."""
        return self.num_workers if self.strategy == "tp" and self.num_workers != "auto" else 1


class Checkpoints(Section):
    """How often a running trial is written to the study's storage, from where it can go on."""

    every_seconds: NonNegativeFloat = 60.0
    """Seconds between a trial's checkpoints."""
    keep: PositiveInt = 2
    """Checkpoints of a trial that are kept; those of a trial that has ended are removed."""


# --- the study --------------------------------------------------------------------------------


class StudySpec(Section):
    """One question, and all it takes to answer it."""

    name: Name
    question: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True), Whole] = 0
    workload: Workload
    scientific: Scientific = Scientific()
    nuisance: Nuisance = Nuisance()
    fixed: Fixed = Fixed()
    cell_recipes: tuple[CellRecipe, ...] = ()
    budget: Budget
    evaluation: Evaluation
    target: Target | None = None
    search: Search
    transfer: Transfer | None = None
    confirm: Confirm | None = None
    branch: Branch | None = None
    recommendation: Limits = Limits()
    resources: Resources = Resources()
    checkpoints: Checkpoints | None = Checkpoints()
    """null: an interrupted trial starts again from its first step."""
    storage: LocalPath | None = None
    """Folder of the study's state; runs/NAME where left out. Or a URL that fsspec can write: the
    state is in runs/NAME and copied there every few seconds, and --resume on any machine goes on
    from it."""

    @property
    def storage_path(self) -> str:
        """Local folder of the study's state, relative to the working directory unless absolute.

        Of a study whose storage is a URL it is the working copy, runs/NAME.
        """
        if self.storage is None or self.storage_url is not None:
            return f"runs/{self.name}"
        return self.storage.removeprefix("file://")

    @property
    def storage_url(self) -> str | None:
        """The URL that the state is kept at; None for a local folder."""
        storage = self.storage or ""
        return storage if "://" in storage and not storage.startswith("file://") else None

    def scientific_values(self) -> dict[str, tuple[Any, ...]]:
        """The scientific hyperparameters and their values, in the order of the schema."""
        return {name: values for name, values in _given(self.scientific) if values is not None}

    def batch_sizes(self) -> tuple[int, ...]:
        """Every global batch size that a trial of this study may have, rising."""
        sizes: set[int] = set(self.scientific.global_batch_size or ())
        if self.nuisance.global_batch_size is not None:
            sizes |= set(self.nuisance.global_batch_size.choice)
        if self.fixed.global_batch_size is not None:
            sizes.add(self.fixed.global_batch_size)
        return tuple(sorted(sizes))


def _given(section: Section) -> Iterator[tuple[str, Any]]:
    """The fields that the file names, in the order of the schema."""
    for name in type(section).model_fields:
        if name in section.model_fields_set:
            yield name, getattr(section, name)


def given_fields(section: Section) -> dict[str, Any]:
    """The fields that the file names (null included), in the order of the schema."""
    return dict(_given(section))


def is_finite(value: float | None) -> bool:
    """True for a number that is neither NaN nor infinite; False for None."""
    return value is not None and math.isfinite(value)
