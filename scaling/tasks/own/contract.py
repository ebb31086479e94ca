"""What a factory of the user's own returns. Loads no torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, get_args

from scaling.records.metrics import Direction
from scaling.tasks.errors import DataError
from scaling.tasks.own.metrics import own_metrics

if TYPE_CHECKING:
    from torch import Tensor, nn


class Examples(Protocol):
    """Examples by number: a map-style torch Dataset, a datasets.Dataset, a list."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """One of them."""
        ...


@dataclass(frozen=True)
class CustomTask:
    """A module of your own and all that it is trained and measured by.

    Attributes:
        train: Training examples.
        validation: Examples that the search picks on.
        model: Builds the module from a seed; each call returns a new one.
        losses: Called with the module and a collated batch of N examples; returns the summed loss
            of each example, [N] (nats where it is a likelihood), and its number of targets, [N].
            The mean loss is the sum of the first over the sum of the second.
        test: Examples that are read once, after the last step; None for none.
        collate: Makes a batch of a list of examples; torch's default_collate where left out.
        metrics: Called with the module in evaluation mode, without gradients, and all collated
            batches of the validation subset; returns a number for each name in `directions`.
        directions: "maximize" or "minimize" for each metric.
        ranges: The least and the greatest value of a metric, None for an end that is not known;
            its intervals stay inside. Metrics that are left out have no bounds.
        length: Tokens of an example, by which a batch is cut so that little is padding; examples
            are all alike where left out.
    """

    train: Examples
    validation: Examples
    model: "Callable[[int], nn.Module]"
    losses: "Callable[[Any, Any], tuple[Tensor, Tensor]]"
    test: Examples | None = None
    collate: Callable[[list[Any]], Any] | None = None
    metrics: Callable[[Any, Iterable[Any]], Mapping[str, float]] | None = None
    directions: Mapping[str, Direction] | None = None
    ranges: Mapping[str, tuple[float | None, float | None]] | None = None
    length: Callable[[Any], int] | None = None

    @property
    def splits(self) -> dict[str, Examples]:
        """The examples of each split that there is."""
        known = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: examples for name, examples in known.items() if examples is not None}


def require_contract(made: object, path: str) -> CustomTask:
    """Check what a factory has returned, as far as can be seen without calling any of it.

    Raises:
        DataError: If it is not a CustomTask, or one of its fields cannot be used.
    """
    if not isinstance(made, CustomTask):
        raise DataError(path, f"returned {_kind(made)}; allowed: a scaling.CustomTask")
    require_examples(made.splits, path)
    for name in ("model", "losses", "collate", "metrics", "length"):
        given = getattr(made, name)
        if not callable(given) and not (given is None and name not in ("model", "losses")):
            raise DataError(path, f"{name} is {_kind(given)}; allowed: a function")
    _require_directions(made, path)
    return made


def require_examples(splits: Mapping[str, Any], path: str) -> None:
    """Check that the examples of each split can be read by number.

    Raises:
        DataError: If those of one cannot.
    """
    for name, examples in splits.items():
        if (problem := _problem_of(examples)) is not None:
            raise DataError(path, f"{name} {problem}")


def _problem_of(examples: Any) -> str | None:
    """Why these cannot be examples; None where they can."""
    names = {kind.__name__ for kind in type(examples).__mro__}
    if names & {"IterableDataset", "IterableDatasetDict"}:
        return (
            "is an IterableDataset, whose examples cannot be drawn by number; allowed: a map-style "
            "torch Dataset, a datasets.Dataset, a list"
        )
    if "DataLoader" in names:
        return "is a DataLoader; give its dataset, and its collate_fn as collate"
    is_by_number = hasattr(examples, "__len__") and hasattr(examples, "__getitem__")
    if not is_by_number or isinstance(examples, Mapping | str | bytes):
        return (
            f"is {_kind(examples)}; allowed: a map-style torch Dataset with __len__, a "
            "datasets.Dataset, a list"
        )
    return None


def _require_directions(made: CustomTask, path: str) -> None:
    directions = made.directions
    if made.metrics is None:
        for name in ("directions", "ranges"):
            if getattr(made, name):
                raise DataError(path, f"{name} are given without metrics")
        return
    if not isinstance(directions, Mapping) or not directions:
        raise DataError(
            path, "metrics needs directions: the name of each, with maximize or minimize"
        )
    own_metrics(directions, made.ranges, path)
    for name, direction in directions.items():
        if direction not in get_args(Direction):
            allowed = " or ".join(get_args(Direction))
            raise DataError(path, f"directions.{name} is {direction!r}; allowed: {allowed}")


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
