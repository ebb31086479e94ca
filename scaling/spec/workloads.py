"""The task families as a study file names them: what each may say, and what the checks ask of it.

A family is its section here and the module of its name in `scaling.tasks`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from scaling.spec.data import LabelledData, Names, TextData
from scaling.spec.family import Family
from scaling.spec.fields import (
    LocalPath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Section,
    Text,
    Whole,
    given_fields,
)
from scaling.spec.hyperparameters import Given, Origin
from scaling.spec.issues import Issue, did_you_mean
from scaling.spec.models import ModelSpec
from scaling.spec.own_training import Custom, Lightning, TrainerFunctions

_NO_LISTS: Final[Mapping[str, str]] = dict.fromkeys((".csv", ".tsv"), "cannot hold lists")
_TAGGED_WORDS: Final[Mapping[str, str]] = dict.fromkeys(
    (".conll", ".conllu"), "has words with tags, which task token_classification reads"
)

# --- text classification ------------------------------------------------------------------------


ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class TextClassificationData(LabelledData):
    """Texts, or pairs of texts, each with a class, several classes or a number."""

    text_column: str = "text"
    """Column with the input text. A dot reads a field of a mapping, here as for
    every column: translation.en."""
    text_pair_column: str | None = None
    """Column with a second text that is read after the first, as a hypothesis after its premise."""
    label_column: str = "label"
    """Column with the class, the number, or the list of a text's classes."""
    label_names: Names | None = None
    """Names of the classes 0, 1, …, where label_column has their numbers."""
    label_separator: Text | None = None
    """Separator of the classes in label_column, such as "|"; an empty text has no class. For
    multi_label_classification."""
    label_columns: Names | None = None
    """Columns with 0 or 1, one for each class, in place of label_column. For
    multi_label_classification."""

    @property
    def columns(self) -> dict[str, str]:
        """With those of the classes where each has its own."""
        named = super().columns
        if self.label_columns is not None:
            del named["label_column"]
            named |= {f"label_columns.{n}": name for n, name in enumerate(self.label_columns)}
        return named


class TextClassification(TrainerFunctions):
    """Predict one class, several classes or a number for each text.

    The loss is in nats per example, of several classes summed over all there are (each by a
    sigmoid); of a number it is the squared error.
    """

    task: Literal["text_classification"]
    model: ModelSpec
    data: TextClassificationData
    problem_type: ProblemType = "single_label_classification"
    """single_label_classification: one class; multi_label_classification: any number of classes;
    regression: a number."""

    builtin_sources: ClassVar = ("part_of_speech",)
    unfit_files: ClassVar = {".txt": "has no labels", **_TAGGED_WORDS}

    @property
    def why_no_label_smoothing(self) -> str | None:
        """A number has no classes to smooth."""
        is_number = self.problem_type == "regression"
        return "regression has no classes" if is_number else super().why_no_label_smoothing

    def issues(self) -> Iterator[Issue]:
        """Fields of several classes, or of classes, are given where there are some."""
        yield from super().issues()
        data, kind = self.data, self.problem_type
        given = given_fields(data)
        if kind != "single_label_classification" and data.builtin_name is not None:
            message = "the built-in data have one class per text"
            yield Issue("workload.problem_type", message, kind, "single_label_classification")
        unfit: dict[str, str] = {}
        if kind != "multi_label_classification":
            why = "belongs to problem_type multi_label_classification"
            unfit |= dict.fromkeys(("label_separator", "label_columns"), why)
        elif data.label_columns is not None:
            why = "has no effect beside label_columns, which name the classes"
            unfit |= dict.fromkeys(("label_column", "label_names", "label_separator"), why)
        if kind == "regression":
            why = "has no effect in regression, whose label is a number"
            unfit |= dict.fromkeys(("label_names", "rare_classes"), why)
        for name, why in unfit.items():
            if (value := given.get(name)) is not None:
                yield Issue(f"workload.data.{name}", why, value)


# --- token classification -----------------------------------------------------------------------


def _numbered(column: Any) -> Any:
    return str(column) if isinstance(column, int) and not isinstance(column, bool) else column


ColumnName = Annotated[str, BeforeValidator(_numbered)]
"""A column by its name, or by its number in files whose columns have none."""


class TokenClassificationData(LabelledData):
    """Texts as lists of words with a tag each."""

    tokens_column: ColumnName = "tokens"
    """Column with the list of words. Of conll, conllu and txt files, whose lines are a word each
    and whose sentences a blank line ends, the number of a column; the first one (in conllu the
    second) where left out."""
    tags_column: ColumnName = "tags"
    """Column with the list of the words' tags; of those files the last one where left out."""
    tag_names: Names | None = None
    """Names of the tags 0, 1, …, where tags_column has their numbers, as in [O, B-PER, I-PER]."""


class TokenClassification(TrainerFunctions):
    """Predict the tag of each word of a text; the loss is in nats per labelled word."""

    task: Literal["token_classification"]
    model: ModelSpec
    data: TokenClassificationData

    builtin_sources: ClassVar = ("part_of_speech_treebank",)
    unfit_files: ClassVar = _NO_LISTS


# --- question answering -------------------------------------------------------------------------


class QuestionAnsweringData(TextData):
    """Questions, the texts that answer them, and where."""

    context_column: str = "context"
    """Column with the text that the answer is a part of."""
    question_column: str = "question"
    """Column with the question."""
    answers_column: str = "answers"
    """Column with a mapping of text and answer_start, lists both, or a list of mappings with both.
    SQuAD's own JSON (data, paragraphs, qas), of version 1 and 2, is read as it is."""


class QuestionAnswering(TrainerFunctions):
    """Find the span of a context that answers a question; the loss is in nats per window."""

    task: Literal["question_answering"]
    model: ModelSpec
    data: QuestionAnsweringData
    stride: NonNegativeInt = 32
    """Tokens of a long context that two neighbouring windows share; at most max_length / 2 − 4."""
    max_answer_length: PositiveInt = 30
    """Most tokens of a predicted answer."""

    builtin_sources: ClassVar = ("python_questions",)
    unfit_files: ClassVar = {**_NO_LISTS, ".txt": "cannot hold lists", **_TAGGED_WORDS}
    no_label_smoothing: ClassVar = "of question_answering would reward places in the padding"

    def issues(self) -> Iterator[Issue]:
        """A window has room for the question and for more of the context than is shared."""
        yield from super().issues()
        if self.compute_loss_func is not None:
            message = (
                "the Trainer gives it no labels in question answering, where the model takes the "
                "places of an answer and computes the loss; leave it out, or write the loss in a "
                "custom task"
            )
            yield Issue("workload.compute_loss_func", message, self.compute_loss_func)
        max_length = self.data.max_length
        longest = max_length // 2 - 4
        if longest < 0:
            path = "workload.data.max_length"
            yield Issue(path, "leaves no room for a context", max_length, "at least 8")
        elif self.stride > longest:
            message = f"two windows of max_length {max_length} cannot share so much"
            yield Issue("workload.stride", message, self.stride, f"at most {longest}")


# --- written texts ------------------------------------------------------------------------------


class Generation(Section):
    """What the model writes after the last step, to be compared with the references."""

    num_examples: PositiveInt = 200
    """At most this many examples of the validation subset."""
    max_new_tokens: Annotated[int, Field(gt=0, le=4096, strict=True), Whole] = 64
    """Most tokens written for an example."""
    num_beams: Annotated[int, Field(gt=0, le=100, strict=True), Whole] = 4
    """Beams of the search beside greedy decoding; 1: greedy decoding alone."""


class Seq2SeqData(TextData):
    """Pairs of a text to read and a text to write."""

    source_column: str = "source"
    """Column with the text that is read."""
    target_column: str = "target"
    """Column with the text that is written."""


class Seq2Seq(TrainerFunctions):
    """Write a target text from a source text; the loss is in nats per target token."""

    task: Literal["seq2seq"]
    model: ModelSpec
    data: Seq2SeqData
    generation: Generation | None = Generation()
    """null: the model is not asked to write."""

    builtin_sources: ClassVar = ("grapheme_to_phoneme",)
    unfit_files: ClassVar = {".txt": "has no targets", **_TAGGED_WORDS}
    writes_text: ClassVar = True


class CausalLmData(TextData):
    """Texts, prompts and their answers, or chats."""

    text_column: str = "text"
    """Column with the text."""
    prompt_column: str | None = None
    """Column with a prompt whose tokens do not count in the loss, in place of text_column."""
    answer_column: str | None = None
    """Column with the text to generate after the prompt."""
    messages_column: str | None = None
    """Column with a chat, a list of mappings with role and content (or ShareGPT's from and value),
    in place of text_column. The loss counts what the assistant says, and which tools it calls. The
    tokenizer's chat template joins the messages; where it has none, each is a line, as in
    user: Hello, and an end follows the assistant's."""

    @model_validator(mode="after")
    def _both_or_none(self) -> "CausalLmData":
        if (self.prompt_column is None) != (self.answer_column is None):
            raise PydanticCustomError("columns", "give prompt_column and answer_column together")
        if self.prompt_column is not None and self.messages_column is not None:
            raise PydanticCustomError(
                "columns", "give messages_column, or prompt_column and answer_column"
            )
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Those of chats, or of prompts and answers, where they are given, else that of texts."""
        named = super().columns
        if self.prompt_column is not None or self.messages_column is not None:
            del named["text_column"]
        return named

    @property
    def has_prompts(self) -> bool:
        """Whether each text follows a prompt."""
        return self.prompt_column is not None or self.source == "builtin:grapheme_to_phoneme"


class CausalLm(TrainerFunctions):
    """Predict each next token; the loss is in nats per token that counts."""

    task: Literal["causal_lm"]
    model: ModelSpec
    data: CausalLmData
    packing: bool = False
    """Join the texts of a split and cut them into examples of exactly max_length tokens."""
    generation: Generation | None = None
    """Also write answers to the prompts after the last step; null: no."""

    builtin_sources: ClassVar = ("grapheme_to_phoneme", "python_topics")
    unfit_files: ClassVar = _TAGGED_WORDS
    writes_text: ClassVar = True

    def issues(self) -> Iterator[Issue]:
        """Packed texts have no prompts or turns, and answers are written to prompts."""
        yield from super().issues()
        if "text_column" in given_fields(self.data) and "text_column" not in self.data.columns:
            is_chat = self.data.messages_column is not None
            other = "messages_column" if is_chat else "prompt_column and answer_column"
            message = f"has no effect beside {other}"
            yield Issue("workload.data.text_column", message, self.data.text_column)
        if self.packing and (self.data.has_prompts or self.data.messages_column is not None):
            is_chat = self.data.messages_column is not None
            what = "a chat stays" if is_chat else "a prompt and its answer stay"
            message = f"{what} an example of {'its' if is_chat else 'their'} own"
            yield Issue("workload.packing", message, self.packing, "false")
        if self.generation is not None and not self.data.has_prompts:
            yield Issue("workload.generation", "needs data with prompts: give prompt_column")


# --- noisy quadratic ----------------------------------------------------------------------------

MAX_CHAIN_NUMBERS: Final = 10**8
"""Numbers in the chains of noisy_quadratic; they, their gradient and noise take some 2 GB."""


class NoisyQuadratic(Family):
    """An ensemble of independent noisy quadratics with a known answer (Zhang et al. 2019).

    Curvature h_i = 1 / i, stochastic gradient h_i x_i + N(0, h_i / B), x_0 ~ N(0, I), loss
    ½ Σ h_i x_i² averaged over the chains.
    """

    task: Literal["noisy_quadratic"]
    num_dimensions: PositiveInt = 100
    num_chains: PositiveInt = 1000
    """Independent chains trained at once; their mean loss is the measured loss."""

    model: ClassVar[None] = None
    data: ClassVar[None] = None
    is_ensemble: ClassVar = True
    no_label_smoothing: ClassVar = "noisy_quadratic has no labels"

    def too_large(self) -> Iterator[Issue]:
        """Chains that take more memory than a worker has."""
        count = self.num_chains * self.num_dimensions
        if count > MAX_CHAIN_NUMBERS:
            name = "num_chains" if self.num_chains > self.num_dimensions else "num_dimensions"
            message = f"num_chains × num_dimensions is {count:,}, which takes too much memory"
            most = f"at most {MAX_CHAIN_NUMBERS:,} together"
            yield Issue(f"workload.{name}", message, getattr(self, name), most)


# --- a table of finished runs -------------------------------------------------------------------


class RunTable(Family):
    """Look each trial's losses up in a table of finished runs; nothing is trained."""

    task: Literal["table"]
    file: LocalPath
    """The table, a row for each run: *.csv, *.tsv, *.json, *.jsonl or *.parquet."""
    columns: Annotated[Mapping[str, Text], Field(min_length=1)]
    """Column of each hyperparameter that trials are looked up by, as in {global_batch_size: bs,
    peak_lr: lr}. All are numbers."""
    validation_loss_column: Text = "validation_loss"
    """Column with the loss at the end of a run; empty, NaN or infinite where it diverged."""
    train_loss_column: Text | None = None
    """Column with the training loss, where there is one."""
    test_loss_column: Text | None = None
    """Column with the test loss, where there is one."""
    where: Mapping[str, StrictInt | StrictFloat | StrictStr] = {}
    """Only rows with these values are read, as in {num_layers: 12}. By column."""
    between: Literal["nearest", "interpolated"] = "nearest"
    """What a trial between the table's rows has: the losses of the nearest row (in the batch size
    first, then in each other column in order), or losses interpolated linearly between rows. Both
    in the logarithm where a column's values are all above 0; beyond the table its edge holds."""
    noise_ratio: NonNegativeFloat = 0.0
    """Standard deviation of the Gaussian noise on the losses of a trial, relative to them; drawn
    from the trial's seed and hyperparameters."""

    model: ClassVar[None] = None
    data: ClassVar[None] = None

    @property
    def numbers_of_size(self) -> Mapping[str, float]:
        """The numbers by which rows are chosen."""
        chosen = self.where.items()
        return {name: float(value) for name, value in chosen if not isinstance(value, str)}

    @property
    def looked_up_by(self) -> Collection[str]:
        """Those that have a column."""
        return self.columns.keys()

    def issues(self) -> Iterator[Issue]:
        """Columns belong to hyperparameters."""
        known = [field.name for kind in (Given, Origin) for field in fields(kind)]
        for name in self.columns:
            if name not in known:
                message = f"there is no such hyperparameter{did_you_mean(name, known)}"
                yield Issue(f"workload.columns.{name}", message)


TextWorkload = TextClassification | TokenClassification | QuestionAnswering | CausalLm | Seq2Seq
Workload = Annotated[
    TextWorkload | Custom | Lightning | NoisyQuadratic | RunTable, Field(discriminator="task")
]

FAMILIES: Final[Mapping[str, type[Family]]] = {
    get_args(section.model_fields["task"].annotation)[0]: section
    for section in get_args(get_args(Workload)[0])
}
"""The section of each task, by its name."""

BUILTIN_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    source: tuple(task for task, other in FAMILIES.items() if source in other.builtin_sources)
    for family in FAMILIES.values()
    for source in family.builtin_sources
}
"""The data that come with the package or one of its extras, and the tasks each is for."""
