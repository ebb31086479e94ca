"""What the checks of a study file ask of every task family, and what most of them answer."""

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar

from scaling.spec.fields import Section
from scaling.spec.issues import Issue


class Family(Section):
    """What the checks ask of every family, and what most of them answer."""

    builtin_sources: ClassVar[tuple[str, ...]] = ()
    """Names of the built-in data that it can read."""
    unfit_files: ClassVar[Mapping[str, str]] = {}
    """Kinds of files that cannot hold its rows, and why."""
    has_layers: ClassVar[bool] = False
    """Whether a module of layers is trained, which other precisions, compiling and strategies that
    cut weights are for."""
    has_examples: ClassVar[bool] = False
    """Whether it is trained on a set of examples, of which there are epochs."""
    is_ensemble: ClassVar[bool] = False
    """Whether a trial trains independent models at once, which nothing may couple."""
    writes_text: ClassVar[bool] = False
    """Whether texts are put together from tokens."""
    configures_optimizer: ClassVar[bool] = False
    """Whether its module may bring an optimizer of its own."""
    no_label_smoothing: ClassVar[str | None] = None
    """Why the labels of no study of this family can be smoothed; None where some can."""

    @property
    def why_no_label_smoothing(self) -> str | None:
        """Why labels cannot be smoothed; None where they can."""
        return self.no_label_smoothing

    @property
    def own_code(self) -> tuple[str, ...]:
        """What it takes from Python files of the user's own, as `package.module:name` each."""
        return ()

    @property
    def numbers_of_size(self) -> Mapping[str, float]:
        """What makes its runs large, where the section itself says so."""
        return {}

    @property
    def looked_up_by(self) -> Collection[str] | None:
        """Hyperparameters by which trials are found in a table; None where they are trained."""
        return None

    def too_large(self) -> Iterator[Issue]:
        """Sizes that take more memory than a worker has."""
        yield from ()

    def issues(self) -> Iterator[Issue]:
        """What the family's own fields contradict each other in."""
        yield from ()


class TextFamily(Family):
    """A family whose model, by transformers, reads texts."""

    has_layers: ClassVar = True
    has_examples: ClassVar = True
