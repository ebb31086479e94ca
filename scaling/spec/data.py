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

DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".conll", ".conllu")
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
    """Local files by split: csv (, ; or tabs), tsv, json (lines), parquet, txt, conll or conllu.

    All but parquet also with .gz. A txt of words with tags has columns, as conll does.

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


class TextData(Section):
    """Where texts come from and how many are used: what every family of texts reads.

    A field of a family that ends in `_column` names a column of its source, one that ends in
    `_names` the classes that a column has numbers of.
    """

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
    missing_texts: Policy = "error"
    """Rows without a text: drop leaves them out, error names them and ends."""
    tokenizer: LocalPath | None = None
    """`characters` (the default from scratch), `subwords` learnt from the training texts, a
    folder or a hub name. A trained tokenizer's begin token is not put before
    the texts of causal_lm."""
    vocab_size: PositiveInt = 2000
    """Entries of the vocabulary of `subwords`."""
    max_length: Annotated[int, Field(ge=2, le=2**20, strict=True), Whole] = 128
    """Tokens per example; what is longer is cut into several (causal_lm, token_classification,
    question_answering) or truncated. Of source and target each in seq2seq."""
    num_train: PositiveInt | None = None
    """Training rows used (a long document is one row and several examples); all where left out."""
    num_validation: PositiveInt | None = None
    """Validation examples set aside; one in ten, at most 2,000, where left out."""
    num_test: PositiveInt | None = None
    """Test examples set aside; one in ten, at most 2,000, where left out."""

    @model_validator(mode="after")
    def _one_origin(self) -> "TextData":
        if (self.source is None) == (self.files is None):
            raise PydanticCustomError("origin", "give exactly one of source and files")
        return self

    @property
    def origin(self) -> str:
        """Where the texts come from, in a line: the source and its subset, or the files."""
        name = self.source or str(self.files and self.files.model_dump(mode="json"))
        return f"{name} {self.subset}" if self.subset else name

    @property
    def builtin_name(self) -> str | None:
        """Name of the built-in source; None for files and hubs."""
        kind, _, name = (self.source or "").partition(":")
        return name if kind == "builtin" else None

    @property
    def named_tokenizer(self) -> str | None:
        """Folder or hub name of a trained tokenizer; None where the study file names none."""
        return None if self.tokenizer in ("characters", "subwords") else self.tokenizer

    @property
    def columns(self) -> dict[str, str]:
        """The columns that a row is made of, by the fields that name them."""
        fields = (name for name in type(self).model_fields if name.endswith("_column"))
        return {name: column for name in fields if (column := getattr(self, name)) is not None}


class LabelledData(TextData):
    """Texts with classes, of themselves or of their words."""

    missing_labels: Policy = "error"
    """Rows without a label: drop leaves them out, error names them and ends."""
    rare_classes: RareClasses = "keep"
    """Classes with fewer texts than there are splits, and those that only held-out data have.
    keep: the former stay in the training data, the latter are never learnt; drop: their rows are
    left out; error: they are named and the study ends."""
