"""A ladder: the study at several sizes, the small ones searched, the large ones predicted."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from scaling.spec.fields import PositiveInt, Section


def _require_fields(patch: Mapping[str, Any]) -> Mapping[str, Any]:
    for path in patch:
        if not all(path.split(".")) or path.partition(".")[0] == "ladder":
            raise PydanticCustomError(
                "patch", "{path} is not the dotted path of a field of the study", {"path": path}
            )
    return patch


Patch = Annotated[
    dict[str, Any], Field(min_length=1, max_length=50), AfterValidator(_require_fields)
]
"""Fields of the study by dotted path, as in {workload.model.hidden_size: 64}."""


NUM_CHECKED: Final = 5
"""Recipes that a check trains."""


class Check(Section):
    """Train the last size at the prediction, and around it."""

    num_seeds: PositiveInt = 3
    """Seeds of each of five recipes: the prediction, and twice and half its rate and its batch."""


class Ladder(Section):
    """The study at several sizes; what the small ones show is carried to runs too large to search.

    Every size is the study with some fields set otherwise, as by --set.
    """

    sizes: Annotated[tuple[Patch, ...], Field(min_length=2, max_length=30)]
    """Fields that differ from size to size, smallest size first."""
    predict: Annotated[tuple[Patch, ...], Field(max_length=30)] = ()
    """Sizes that are not trained: which batch and rate should they use?"""
    check: Check | None = None
    """Keep the last size out of the search, and train it at its prediction; null: search it too."""

    @property
    def searched(self) -> range:
        """The sizes that the search has trials of, by their place in the file."""
        return range(len(self.sizes) - (self.check is not None))
