"""Where the examples of a study come from."""

import codecs
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from scaling.spec.fields import LocalPath, PositiveInt, Section, Text, Whole, require_distinct

DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt")
"""Kinds of local files that can be read; all but parquet also with .gz behind."""


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
    | Annotated[tuple[LocalPath, ...], Field(min_length=1), AfterValidator(require_distinct)]
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


Names = Annotated[tuple[Text, ...], Field(min_length=2), AfterValidator(require_distinct)]


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
    hub_splits: dict[Literal["train", "validation", "test"], str] = {}  # noqa: RUF012  # pydantic copies it
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
