"""The task families as a study file names them."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from scaling.spec.data import DataSpec
from scaling.spec.fields import NonNegativeInt, PositiveInt, Section, Whole
from scaling.spec.models import ModelSpec

TaskName = Literal[
    "text_classification", "token_classification", "question_answering", "causal_lm", "seq2seq",
    "noisy_quadratic",
]  # fmt: skip


BUILTIN_SOURCES: Mapping[str, tuple[TaskName, ...]] = {
    "grapheme_to_phoneme": ("causal_lm", "seq2seq"),
    "python_topics": ("causal_lm",),
    "part_of_speech": ("text_classification",),
    "part_of_speech_treebank": ("token_classification",),
    "python_questions": ("question_answering",),
}
"""The data that come with the package or one of its extras, and the tasks each is for."""


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
