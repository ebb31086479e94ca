"""Training of the user's own: a module, its data, its loss and its metrics, from a Python file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from scaling.spec.family import Family, TextFamily
from scaling.spec.fields import LocalPath, Section
from scaling.spec.issues import Issue


def _require_import_path(path: str) -> str:
    module, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise PydanticCustomError("import_path", "must be package.module:name, as in my_task:build")
    return path


ImportPath = Annotated[str, AfterValidator(_require_import_path)]
"""A function or class, as in my_package.my_task:build."""

Scalar = bool | int | float | str | None
Options = Mapping[str, Scalar | tuple[Scalar, ...] | Mapping[str, Scalar]]
"""Arguments by name: numbers, texts, truth values, lists and mappings of them."""


Ranges = Mapping[str, tuple[float | None, float | None]]
"""Least and greatest value by metric; null for an end that is not known."""


Folder = Annotated[LocalPath, AfterValidator(lambda folder: str(Path(folder).absolute()))]


class OwnCode(Family):
    """A family that trains what a Python file of the user's own defines."""

    folder: Folder | None = None
    """Folder in which modules are looked for before the environment; that of the study file where
    left out."""
    exactness: Literal["required", "waived"] = "required"
    """required: the loss of an example may not depend on the examples beside it, or on chance in
    evaluation mode; waived: it may, and the report says so."""

    model: ClassVar[None] = None
    data: ClassVar[None] = None
    has_layers: ClassVar = True
    has_examples: ClassVar = True


class Custom(OwnCode):
    """Train a module of your own; the loss is the sum over targets that its factory gives."""

    task: Literal["custom"]
    factory: ImportPath
    """A function that returns a scaling.CustomTask, as in my_task:build for my_task.py."""
    options: Options = {}  # noqa: RUF012  # pydantic copies it
    """Arguments of the factory, by name."""

    no_label_smoothing: ClassVar = "custom has a loss of its own"

    @property
    def own_code(self) -> tuple[str, ...]:
        """The factory."""
        return (self.factory,)


class CountedTargets(Section):
    """The targets that a loss is a mean over."""

    targets: ImportPath
    """A function that is called with a batch and returns its number of targets."""


class Lightning(OwnCode):
    """Train a LightningModule; the loss is what its training_step returns."""

    task: Literal["lightning"]
    module: ImportPath
    """A LightningModule's class, as in my_module:Net."""
    module_options: Options = {}  # noqa: RUF012  # pydantic copies it
    """Arguments of the module, by name."""
    datamodule: ImportPath | None = None
    """A LightningDataModule's class; where left out, the module's own dataloaders serve."""
    datamodule_options: Options = {}  # noqa: RUF012
    """Arguments of the datamodule, by name."""
    loss_is_mean_over: Literal["examples"] | CountedTargets = "examples"
    """What the loss of a batch is the mean over: its examples, or targets that a function counts,
    as in {targets: "my_module:count_tokens"}."""
    directions: Mapping[str, Literal["maximize", "minimize"]] = {}
    """maximize or minimize for metrics that validation_step logs."""
    ranges: Ranges = {}  # noqa: RUF012
    """The least and the greatest value of a metric, as in {val_accuracy: [0, 1]}, null for an end
    that is not known; its intervals stay inside."""

    configures_optimizer: ClassVar = True
    no_label_smoothing: ClassVar = "lightning has a loss of its own"

    @property
    def own_code(self) -> tuple[str, ...]:
        """The module, the datamodule and the count."""
        counts = self.loss_is_mean_over
        named = (self.module, self.datamodule, None if counts == "examples" else counts.targets)
        return tuple(name for name in named if name is not None)

    def issues(self) -> Iterator[Issue]:
        """Options are of something."""
        if self.datamodule is None and self.datamodule_options:
            message = "has no effect without workload.datamodule"
            yield Issue("workload.datamodule_options", message, dict(self.datamodule_options))


class TrainerFunctions(TextFamily):
    """A family that takes a loss and metrics as Hugging Face's Trainer does, in place of ours."""

    compute_loss_func: ImportPath | None = None
    """A function that is called with outputs, labels and num_items_in_batch and returns a batch's
    loss, as of the Trainer: the sum over targets divided by num_items_in_batch."""
    compute_metrics: ImportPath | None = None
    """A function that is called with an EvalPrediction of the validation examples and returns a
    mapping of metrics, as of the Trainer."""
    directions: Mapping[str, Literal["maximize", "minimize"]] = {}
    """maximize or minimize for each metric of compute_metrics."""
    ranges: Ranges = {}  # noqa: RUF012
    """The least and the greatest value of a metric, as in {f1: [0, 1]}, null for an end that is not
    known; its intervals stay inside."""
    folder: Folder | None = None
    """Folder in which their modules are looked for before the environment; that of the study file
    where left out."""
    exactness: Literal["required", "waived"] = "required"
    """required: the loss of compute_loss_func is tried, and must be the sum of its parts' losses;
    waived: it need not be, and the report says so."""

    @property
    def own_code(self) -> tuple[str, ...]:
        """The loss and the metrics."""
        named = (self.compute_loss_func, self.compute_metrics)
        return tuple(name for name in named if name is not None)

    @property
    def why_no_label_smoothing(self) -> str | None:
        """A loss of the user's own smooths labels itself."""
        own = self.compute_loss_func
        return self.no_label_smoothing if own is None else "compute_loss_func is a loss of its own"

    def issues(self) -> Iterator[Issue]:
        """Metrics have directions, and the other fields belong to a function."""
        if self.compute_metrics is not None and not self.directions:
            message = "compute_metrics needs the name of each metric, with maximize or minimize"
            yield Issue("workload.directions", message)
        message = "has no effect without workload.compute_metrics"
        for name, given in (("directions", self.directions), ("ranges", self.ranges)):
            if self.compute_metrics is None and given:
                yield Issue(f"workload.{name}", message, dict(given))
        if self.compute_loss_func is None and self.exactness == "waived":
            message = "has no effect without workload.compute_loss_func"
            yield Issue("workload.exactness", message, self.exactness, "required")


def with_study_folder(study: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """A study, as read from a file in a folder, whose own code is looked for there first.

    It is unchanged where it names a folder itself, or its task has no code of its own.
    """
    workload: Any = study.get("workload")
    if not isinstance(workload, dict):
        return study
    given = cast("dict[str, Any]", workload)
    functions = (given.get("compute_loss_func"), given.get("compute_metrics"))
    if given.get("task") not in ("custom", "lightning") and functions == (None, None):
        return study
    return {**study, "workload": {"folder": str(folder.absolute()), **given}}
