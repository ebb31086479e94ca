"""The kinds of values that a study file holds, each with its bounds."""

import itertools
import math
import os
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
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
Finite = Annotated[float, Field(strict=True)]
NonNegativeFloat = Annotated[float, Field(ge=0, strict=True)]
UnitFloat = Annotated[float, Field(ge=0, le=1, strict=True)]
BelowOne = Annotated[float, Field(ge=0, lt=1, strict=True)]
Share = Annotated[float, Field(gt=0, le=1, strict=True)]
Percentile = Annotated[float, Field(gt=0, lt=100, strict=True)]
HistorySteps = Annotated[int, Field(ge=2, le=100_000, strict=True), Whole]
Text = Annotated[str, Field(min_length=1)]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_./-]*$", max_length=100)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]


def _expanded(path: str) -> str:
    """A path with a leading ~ or ~USER as the home folder it stands for; a URL as it is."""
    scheme = "file://" if path.startswith("file://") else ""
    return scheme + os.path.expanduser(path.removeprefix(scheme))  # noqa: PTH111  # keeps ./ and //


LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_expanded)]
"""A file or folder, or a name that may stand in its place; ~ is the home folder."""


def require_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values, no two of which may be written alike."""
    if len({repr(value) for value in values}) < len(values):
        raise PydanticCustomError("distinct", "values must differ from each other")
    return values


class Section(BaseModel):
    """One mapping of a study file; unknown keys, NaN and infinity are errors.

    What a field is for stands in the string below it, which `scaling.spec.schema` reads. pydantic
    would read it too, at every import, which took longer than all the rest of reading a study file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def require_rising(values: tuple[int, ...]) -> tuple[int, ...]:
    """The values, each of which must be above the one before."""
    if any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise PydanticCustomError("rising", "values must rise")
    return values


Rising = Annotated[
    tuple[PositiveInt, ...], Field(min_length=1, max_length=31), AfterValidator(require_rising)
]

Values = Annotated[
    tuple[T, ...], Field(min_length=1, max_length=MAX_VALUES), AfterValidator(require_distinct)
]


def given_fields(section: Section) -> dict[str, Any]:
    """The fields that the file names (null included), in the order of the schema."""
    named = (name for name in type(section).model_fields if name in section.model_fields_set)
    return {name: getattr(section, name) for name in named}


def is_finite(value: float | None) -> bool:
    """True for a number that is neither NaN nor infinite; False for None."""
    return value is not None and math.isfinite(value)
