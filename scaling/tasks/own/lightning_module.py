"""A LightningModule without Lightning's Trainer: its steps, what they log, and what it must not do.

Imports no Lightning, so that modules of `lightning` and of `pytorch_lightning` are alike.
"""

import inspect
import itertools
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scaling.optimizers.module import configured_parts
from scaling.tasks.batch import on_device, pinned
from scaling.tasks.errors import DataError

_CHANGES_TRAINING = (
    "on_before_optimizer_step", "optimizer_step", "backward", "on_before_backward",
    "on_after_backward", "on_before_zero_grad", "optimizer_zero_grad",
    "configure_gradient_clipping", "lr_scheduler_step", "on_before_batch_transfer",
    "transfer_batch_to_device", "on_after_batch_transfer", "on_train_batch_start",
    "on_train_batch_end", "on_train_epoch_start", "on_train_epoch_end", "on_train_start",
    "configure_callbacks",
)  # fmt: skip
"""Hooks that may change what is trained, and that nobody would call."""


@dataclass(frozen=True)
class WrappedBatch:
    """A batch as Lightning's steps take it, and how many examples are in it.

    Attributes:
        batch: What the dataloader's collation has made.
    """

    batch: Any
    num_examples: int

    def to(self, device: torch.device) -> "WrappedBatch":
        """The same on a device."""
        return WrappedBatch(on_device(self.batch, device), self.num_examples)

    def pin_memory(self) -> "WrappedBatch":
        """The same where copies to a GPU can run beside the computing."""
        return WrappedBatch(pinned(self.batch), self.num_examples)


def overrides(module: object, name: str) -> bool:
    """Whether a LightningModule or LightningDataModule, or its class, has a method of its own."""
    own = module if isinstance(module, type) else type(module)
    core = [kind for kind in own.__mro__ if kind.__name__ in _CORE]
    return getattr(own, name, None) is not getattr(core[-1], name, None)


_CORE = ("LightningModule", "LightningDataModule")


def is_kind(made: object, name: str) -> bool:
    """Whether an object is a LightningModule, say, of whichever package."""
    return any(kind.__name__ == name for kind in type(made).__mro__)


def require_plain(module: Any, path: str) -> None:
    """Check that nothing of a module's training is left to hooks that are not called here.

    Raises:
        DataError: Naming what it overrides.
    """
    name = type(module).__name__
    if not overrides(module, "training_step"):
        raise DataError(path, f"{name} has no training_step")
    if not module.automatic_optimization:
        raise DataError(
            path, f"{name} optimizes by hand (automatic_optimization = False); allowed: a "
            "training_step that returns the loss",
        )  # fmt: skip
    for hook in _CHANGES_TRAINING:
        if overrides(module, hook):
            raise DataError(
                path, f"{name} overrides {hook}, which is not called here and may change what is "
                "trained; move it into training_step or the study file",
            )  # fmt: skip
    count = _num_optimizers(module)
    if count > 1:
        raise DataError(path, f"{name} has {count} optimizers; allowed: one")


def _num_optimizers(module: Any) -> int:
    """How many optimizers it configures; 1 where that needs a Trainer."""
    if not overrides(module, "configure_optimizers"):
        return 1
    try:
        return len(configured_parts(module.configure_optimizers())[0])
    except Exception:  # noqa: BLE001  # it may ask its Trainer for the number of steps
        return 1


def step(module: Any, name: str, batch: Any, number: int) -> Any:
    """What `training_step` or `validation_step` returns of a batch."""
    function = getattr(module, name)
    takes = len(inspect.signature(function).parameters)
    return function(*(batch, number)[: max(1, takes)])


def loss_of(module: Any, batch: Any) -> Tensor:
    """The loss that training_step returns, alone or in a dict.

    Raises:
        ValueError: If it is no single number.
    """
    made = step(module, "training_step", batch, 0)
    loss = made.get("loss") if isinstance(made, Mapping) else made
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = list(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"training_step returned {what}; it must return one number, the loss")
    return loss.reshape(())


class Losses:
    """See `CustomTask.losses`: the mean loss of a batch, as that of each of its examples.

    Args:
        count: The targets that the loss is a mean over, of a batch; None for its examples.
    """

    def __init__(self, count: Callable[[Any], Any] | None) -> None:
        self._count = count

    def __call__(self, module: Any, batch: WrappedBatch) -> tuple[Tensor, Tensor]:
        """Losses and numbers of targets, [N] each."""
        with recording(module):
            loss = loss_of(module, batch.batch)
        num_examples = batch.num_examples
        counted = num_examples if self._count is None else float(self._count(batch.batch))
        each = counted / num_examples
        counts = torch.full((num_examples,), each, dtype=torch.float64, device=loss.device)
        # A copy, since fsdp takes no views.
        return (loss * each).repeat(num_examples), counts


# --- what is logged -------------------------------------------------------------------------------


class _Log:
    """Values logged during validation, by name."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[Any, int, Any]]] = {}
        self.num_examples = 1

    def log(self, name: str, value: Any, *_: Any, **options: Any) -> None:
        """`LightningModule.log`."""
        weight = options.get("batch_size") or self.num_examples
        if isinstance(value, Tensor):
            value = value.detach()
        self.values.setdefault(name, []).append((value, weight, options.get("reduce_fx", "mean")))

    def log_dict(self, values: Mapping[str, Any], *_: Any, **options: Any) -> None:
        """`LightningModule.log_dict`."""
        for name, value in values.items():
            self.log(name, value, **options)

    def reduced(self) -> dict[str, float]:
        """One number for each name, as Lightning has it at the end of an epoch."""
        return {name: _reduced(name, logged) for name, logged in self.values.items()}


def _reduced(name: str, logged: list[tuple[Any, int, Any]]) -> float:
    last, _, how = logged[-1]
    if hasattr(last, "compute"):  # of torchmetrics
        return float(last.compute())
    numbers = [float(value) for value, _, _ in logged]
    weights = [weight for _, weight, _ in logged]
    reductions: dict[str, Callable[[], float]] = {
        "mean": lambda: math.fsum(n * w for n, w in zip(numbers, weights, strict=True))
        / sum(weights),
        "sum": lambda: math.fsum(numbers), "min": lambda: min(numbers), "max": lambda: max(numbers),
    }  # fmt: skip
    named = getattr(how, "__name__", how)
    if named not in reductions:
        raise ValueError(f"{name} is logged with reduce_fx {named}; allowed: mean, sum, min, max")
    return reductions[named]()


@contextmanager
def recording(module: nn.Module) -> Iterator[_Log]:
    """What a module `without_trainer` logs inside is kept, where no Trainer would take it.

    Metrics of torchmetrics that were logged start anew afterwards.
    """
    log, steps = _Log(), vars(module)[_STEPS]
    vars(module).update(log=log.log, log_dict=log.log_dict)
    steps.are_running = True
    try:
        yield log
    finally:
        steps.are_running = False
        del vars(module)["log"], vars(module)["log_dict"]
        for value, *_ in itertools.chain(*log.values.values()):
            if hasattr(value, "compute"):
                value.reset()


_COUNTED = ("global_step", "current_epoch")
_STEPS = "_steps_without_trainer"


class _Steps:
    """Whether steps run that no Trainer counts; of a class that torch.compile can read."""

    are_running = False


def without_trainer(module: nn.Module) -> nn.Module:
    """The module itself, whose steps raise where they read what only a Trainer counts.

    Without one Lightning has it 0 for ever. Lightning's own class is changed, once and for marked
    modules alone: the user's stays what it is, and one that changed with each step would break the
    graph of torch.compile.
    """
    steps = _Steps()
    for part in module.modules():
        if is_kind(part, "LightningModule"):
            vars(part)[_STEPS] = steps
            core = [kind for kind in type(part).__mro__ if kind.__name__ == "LightningModule"][-1]
            for name in _COUNTED:
                if not isinstance(vars(core)[name], _Counter):
                    setattr(core, name, _Counter(name, vars(core)[name]))
    return module


class _Counter(property):
    """A property of a LightningModule that raises while steps run that no Trainer counts."""

    def __init__(self, name: str, counter: property) -> None:
        def counted(module: nn.Module) -> Any:
            if _STEPS in vars(module) and vars(module)[_STEPS].are_running:
                raise RuntimeError(
                    f"self.{name} needs Lightning's Trainer, and a study trains without it; use "
                    "what does not change with the step"
                )
            return counter.__get__(module)

        super().__init__(counted)


def validation_metrics(module: Any, batches: Iterable[WrappedBatch]) -> dict[str, float]:
    """What validation_step and the end of its epoch log over all batches; {} without one."""
    if not overrides(module, "validation_step"):
        return {}
    with recording(module) as log:
        if overrides(module, "on_validation_epoch_start"):
            module.on_validation_epoch_start()
        for number, batch in enumerate(batches):
            log.num_examples = batch.num_examples
            step(module, "validation_step", batch.batch, number)
        if overrides(module, "on_validation_epoch_end"):
            module.on_validation_epoch_end()
        reduced = log.reduced()
    logged_as: dict[str, str] = {}
    for name in reduced:
        first = logged_as.setdefault(metric_name(name), name)
        if first != name:
            raise ValueError(
                f"validation_step logs {first!r} and {name!r}, and both are {metric_name(name)} "
                "here; log one of them under another name"
            )
    return {metric_name(name): value for name, value in reduced.items()}


def metric_name(logged: str) -> str:
    """A metric's name here, of ASCII letters, digits and _ after a letter: val/acc is val_acc."""
    plain = [c for c in unicodedata.normalize("NFKD", logged) if not unicodedata.combining(c)]
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in plain)
    return name if name[:1].isalpha() else f"metric_{name}"
