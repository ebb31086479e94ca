"""A LightningModule, its dataloaders' examples, and the loss of its training_step."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from torch import nn

from scaling.records.measurement import RESERVED
from scaling.records.metrics import Direction
from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import Lightning
from scaling.tasks.data.rows import Split
from scaling.tasks.errors import DataError
from scaling.tasks.extras import require_extra
from scaling.tasks.own.calling import arguments, own_code
from scaling.tasks.own.code import imported
from scaling.tasks.own.contract import CustomTask, require_examples
from scaling.tasks.own.lightning_module import (
    Losses,
    WrappedBatch,
    is_kind,
    metric_name,
    overrides,
    require_plain,
    validation_metrics,
    without_trainer,
)
from scaling.tasks.own.metrics import own_metrics
from scaling.tasks.own.module_task import ModuleTask, module_task
from scaling.tasks.own.reading import fixed_chance, read

_LOADERS: Mapping[Split, str] = {
    "train": "train_dataloader", "validation": "val_dataloader", "test": "test_dataloader",
}  # fmt: skip
_PLAIN_SAMPLERS = {"RandomSampler", "SequentialSampler"}
NOT_USED = "configure_optimizers is not used: the study file sets the optimizer."
NUM_TRIED = 2
"""Validation examples by which the names are found that are logged."""


def prepare(workload: Lightning, evaluation: Evaluation) -> ModuleTask:
    """Build the module and take the examples of its dataloaders; raises DataError."""
    if find_spec("pytorch_lightning") is None:
        require_extra("lightning", package="lightning", path="workload.task")
    path = "workload.module"
    made = imported(workload.module, workload, path)
    options = arguments(made, workload.module_options, "workload.module_options", workload.module)

    def constructed() -> Any:
        module: Any = made(**options)
        if not is_kind(module, "LightningModule"):
            raise DataError(path, f"{workload.module} is no LightningModule")
        return module

    def set_up(module: Any) -> nn.Module:
        if overrides(module, "setup"):
            module.setup("fit")
        if overrides(module, "configure_model"):
            module.configure_model()
        return without_trainer(module)

    with own_code(path, workload.module), fixed_chance(0):
        module = constructed()
        if workload.datamodule is None:
            with own_code(path, "prepare_data"):
                module.prepare_data()
        set_up(module)
    require_plain(module, path)
    source, source_path = module, path
    if workload.datamodule is not None:
        source, source_path = _datamodule(workload, workload.datamodule), "workload.datamodule"
    loaders = _loaders(source, source_path)
    count, over = None, "its examples"
    if workload.loss_is_mean_over != "examples":
        named = workload.loss_is_mean_over.targets
        count = imported(named, workload, "workload.loss_is_mean_over.targets")
        over = f"the targets that {named} counts"
    collates = {split: _wrapping(loader.collate_fn) for split, loader in loaders.items()}
    examples = {split: loader.dataset for split, loader in loaders.items()}
    require_examples(examples, source_path)
    directions = _directions(workload, module, examples, collates)
    metrics = own_metrics(directions, workload.ranges, "workload")
    own = CustomTask(
        train=examples["train"], validation=examples["validation"], test=examples.get("test"),
        model=lambda _seed: set_up(constructed()), losses=Losses(count), collate=collates["train"],
        metrics=validation_metrics if metrics else None,
    )  # fmt: skip
    return module_task(
        own, workload, evaluation, path, collates=collates, metrics=metrics, by_mean=True,
        keeps_modes=True,
        notes=(f"The loss that training_step returns is taken as a mean over {over}.",),
        optimizer_note=NOT_USED if overrides(module, "configure_optimizers") else "",
    )  # fmt: skip


def _datamodule(workload: Lightning, name: str) -> Any:
    """The datamodule, ready to be asked for its dataloaders."""
    path = "workload.datamodule"
    made = imported(name, workload, path)
    options = arguments(made, workload.datamodule_options, f"{path}_options", name)
    with own_code(path, name), fixed_chance(0):
        source = made(**options)
    if not is_kind(source, "LightningDataModule"):
        raise DataError(path, f"{name} is no LightningDataModule")
    with own_code(path, "prepare_data"), fixed_chance(0):
        source.prepare_data()
        source.setup("fit")
    return source


def _loaders(source: Any, path: str) -> dict[Split, Any]:
    """The dataloader of each split that there is."""
    loaders: dict[Split, Any] = {}
    for seed, (split, name) in enumerate(_LOADERS.items()):
        if not overrides(source, name):
            continue
        with own_code(path, name), fixed_chance(seed):  # data may be drawn here
            if split == "test":
                source.setup("test")
            made = getattr(source, name)()
        if isinstance(made, list | tuple) and len(made) == 1:
            [made] = made
        if made is None or made == []:
            continue
        if not is_kind(made, "DataLoader"):
            raise DataError(path, f"{name} returned a {type(made).__name__}; allowed: a DataLoader")
        _require_plain_sampling(made, name, path)
        loaders[split] = made
    for split in ("train", "validation"):
        if split not in loaders:
            what = type(source).__name__
            raise DataError(path, f"{what} has no {_LOADERS[split]}, and {split} is needed")
    return loaders


def _require_plain_sampling(loader: Any, name: str, path: str) -> None:
    """Check that a dataloader leaves it to the study which examples are in a batch."""
    sampler, batches = type(loader.sampler).__name__, type(loader.batch_sampler).__name__
    if sampler.startswith("_"):  # of a stream, which is refused with the other examples
        return
    if loader.batch_sampler is None:
        raise DataError(
            path, f"{name} has batch_size=None; allowed: a number, since its dataset must have "
            "examples and not batches",
        )  # fmt: skip
    ignored = sampler if sampler not in _PLAIN_SAMPLERS else batches
    if ignored not in {*_PLAIN_SAMPLERS, "BatchSampler"}:
        raise DataError(
            path, f"{name} has a {ignored}, which would be ignored: the study chooses the examples "
            "of a batch; allowed: no sampler",
        )  # fmt: skip


def _wrapping(collate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], WrappedBatch]:
    return lambda examples: WrappedBatch(collate(examples), len(examples))


def _directions(
    workload: Lightning,
    module: Any,
    examples: Mapping[Split, Any],
    collates: Mapping[Split, Callable[[list[Any]], WrappedBatch]],
) -> dict[str, Direction | None]:
    """What validation_step logs, found by a call of it, and which way each should go."""
    with own_code("workload.module", "validation_step"), fixed_chance(0):
        count = min(NUM_TRIED, len(examples["validation"]))
        batch = collates["validation"](
            read(examples["validation"], range(count), seeds=range(count))
        )
        names = list(validation_metrics(module.eval(), [batch]))
    found: dict[str, Direction | None] = {
        name: workload.directions.get(name) for name in names if name not in RESERVED
    }  # what is measured already keeps its name
    for name in workload.directions:
        if name not in found:
            allowed = ", ".join(found) or "none"
            message = f"validation_step logs no such metric (allowed: {allowed})"
            if metric_name(name) in found:
                message = f"write {metric_name(name)}: names here have letters, digits and _ alone"
            raise DataError(f"workload.directions.{name}", message)
    return found
