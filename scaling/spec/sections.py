"""The sections of a study file that hold hyperparameters: fixed, compared, or searched."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Annotated, Any, ClassVar, Final, Generic, get_args, get_type_hints

from pydantic import Field, StrictFloat, StrictInt, StrictStr, create_model, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from scaling.spec.fields import Section, T, Values, given_fields
from scaling.spec.hyperparameters import Entry, Given, Origin

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
    choice: Values[T] | None = None
    """One of the values listed."""

    @model_validator(mode="after")
    def _one_way(self) -> "Distribution[T]":
        given = [self.log_uniform, self.uniform, self.choice]
        if sum(way is not None for way in given) != 1:
            raise PydanticCustomError(
                "distribution", "give exactly one of log_uniform, uniform, choice"
            )
        if self.uniform is not None:
            _require_order(*self.uniform, above=None)
        if self.log_uniform is not None:
            _require_order(*self.log_uniform, above=0)
        return self

    @property
    def ends(self) -> tuple[T, T] | None:
        """The two bounds; None of listed values."""
        return self.log_uniform or self.uniform


class Choice(Section, Generic[T]):
    """A searched hyperparameter that is one of the values listed."""

    choice: Values[T]

    log_uniform: ClassVar[None] = None
    uniform: ClassVar[None] = None
    ends: ClassVar[None] = None


@dataclass(frozen=True)
class Row:
    """One hyperparameter of the table; `kind` is the type that a study file's value has."""

    name: str
    kind: Any
    default: Any
    entry: Entry

    @property
    def item(self) -> Any:
        """The type of a value to compare or to draw."""
        kinds = get_args(self.kind)
        if self.entry.is_optional or NoneType not in kinds:
            return self.kind
        (item,) = (kind for kind in kinds if kind is not NoneType)
        return item

    def field(self, kind: Any, default: Any = None) -> tuple[Any, Any]:
        """A section's field for this hyperparameter."""
        entry = self.entry
        moves = f" Moves with the batch by {entry.scaled_by}." if entry.scaled_by else ""
        unit: JsonDict | None = {"unit": entry.unit} if entry.unit else None
        return kind, Field(default, description=entry.help + moves, json_schema_extra=unit)


def rows_of(given: type[Given], origin: type[Origin]) -> tuple[Row, ...]:
    """The table, in the order in which sections list it."""
    own, others = ([_row(kind, f) for f in fields(kind)] for kind in (given, origin))
    return tuple(
        row for one in own for row in (one, *(o for o in others if o.entry.beside == one.name))
    )


def _row(part: type, field: dataclasses.Field[Any]) -> Row:
    hint = get_type_hints(part, include_extras=True)[field.name]
    kind, *further = get_args(hint)
    (entry,) = (one for one in further if isinstance(one, Entry))
    bounds = [one for one in further if one is not entry]
    return Row(field.name, Annotated[(kind, *bounds)] if bounds else kind, field.default, entry)


TABLE: Final = rows_of(Given, Origin)


def _section(found: Mapping[str, Any]) -> type[Section]:
    return create_model("Hyperparameters", __base__=Section, **found)


def _nuisance_fields() -> dict[str, Any]:
    """Fields that say how values are drawn."""
    kinds: Mapping[str | None, Any] = {"range": Distribution, "choice": Choice}
    drawn = [(row, kinds[row.entry.drawn]) for row in TABLE if row.entry.drawn is not None]
    return {row.name: row.field(kind[row.item] | None) for row, kind in drawn}


class Fixed(_section({row.name: row.field(row.kind, row.default) for row in TABLE})):
    """Hyperparameters with one value in the whole study."""


_values: Any = Values


class Scientific(
    _section({r.name: r.field(_values[r.item] | None) for r in TABLE if r.entry.is_compared})
):
    """Hyperparameters that the question compares: each combination of values is a cell."""


class Nuisance(_section(_nuisance_fields())):
    """Hyperparameters that are searched again inside every cell."""

    def distributions(self) -> dict[str, Distribution[Any] | Choice[Any]]:
        """The searched hyperparameters and how each is drawn, in the order of the schema."""
        return {name: value for name, value in given_fields(self).items() if value is not None}


class CellRecipe(Section):
    """Values known beforehand for one cell; they win over `fixed`."""

    cell: dict[str, CellValue]
    """Which cell: the scientific values, as in {global_batch_size: 64}."""
    fixed: Fixed
    """The hyperparameters that hold in this cell alone."""
