"""Whether a loss of the user's own can be cut into micro-batches, tried on real examples.

A study of batch sizes compares recipes whose gradient is that of the global batch, however many
workers compute it. That holds where the loss of an example is the same whatever is beside it, and
where evaluation has no chance in it. A whole batch is compared with its halves, with another order
and with itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scaling.spec.resources import Resources
from scaling.tasks.batch import on_device
from scaling.tasks.errors import DataError
from scaling.tasks.model.layers import recomputing_part
from scaling.tasks.model.requirements import widen
from scaling.tasks.own.calling import own_code
from scaling.tasks.own.module_task import LossModule, ModuleTask
from scaling.tasks.own.reading import fixed_chance
from scaling.tasks.task import Indices

NUM_TRIED = 8
"""Examples of the batch that is compared with its parts."""
TOLERANCE = 1e-3
"""Difference of losses over their size, above what rounding makes of another cut."""
CPU = torch.device("cpu")
_FOLLOWS = (
    "so micro-batches and workers change the gradient, and batch sizes cannot be compared by it"
)
_OR_WAIVE = "or accept that with workload.exactness: waived"


def require_certificate(task: ModuleTask, seed: int) -> None:
    """Check a user's model, loss and metrics on a few examples, and set what the study accepts.

    Args:
        task: Its `waived` becomes what a loss fails that the study file waives.
        seed: Of the weights.

    Raises:
        DataError: If something cannot be used, or depends on how a batch is cut, and how to go on.
    """
    path = task.path
    with own_code(path, "model(seed)"):
        model = task.new_model(seed)
        other = task.new_model(seed)
    assert isinstance(model, LossModule)
    assert isinstance(other, LossModule)
    _require_new_weights(model, other, path)
    with own_code(path, "length"):
        numbers = tried(task.num_train, task.lengths)
    with own_code(path, "losses"):
        _require_losses(task, model, numbers)
    _require_heldout(task, model)
    finding = _finding(task, other, numbers, seed)
    with own_code(path, "training after an evaluation"):
        _train_after_evaluation(task, other, numbers)
    if finding is not None and not task.accepts_inexact:
        raise DataError(path, finding)
    task.waived = () if finding is None else (finding.removesuffix(f", {_OR_WAIVE}"),)


def require_layout(task: ModuleTask, resources: Resources) -> None:
    """Check that a module can be trained the way that the study file says.

    Raises:
        DataError: If it has no blocks that activations can be computed anew for, or weights that
            take no part in the loss, for which several workers would wait.
    """
    model = task.new_model(0)
    assert isinstance(model, LossModule)
    if resources.activation_checkpointing and recomputing_part(model) is None:
        raise DataError(
            "resources.activation_checkpointing",
            f"needs blocks that can recompute their activations, and {_name(model)} has none "
            "(allowed: false)",
        )
    if resources.num_workers == 1:
        return
    with own_code(task.path, "losses"):
        task.loss_sum(model, task.collate(tried(task.num_train, task.lengths), 0)).backward()
    unused = [n for n, p in model.module.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        more = f" and {len(unused) - 1} more" if unused[1:] else ""
        raise DataError(
            task.path,
            f"the weight {unused[0]}{more} takes no part in the loss, and several workers would "
            "wait for its gradient; drop it, or freeze it by requires_grad_(False)",
        )


def _name(model: LossModule) -> str:
    return type(model.module).__name__


def tried(num_train: int, lengths: Callable[[Indices], Indices]) -> Indices:
    """Numbers of a few training examples: of all lengths among the first, or the first ones."""
    first = np.arange(min(num_train, 8 * NUM_TRIED))
    by_length = np.argsort(lengths(first), kind="stable")
    places = np.linspace(0, len(first) - 1, min(len(first), NUM_TRIED)).astype(int)
    return np.sort(first[by_length[places]])


# --- what cannot be used --------------------------------------------------------------------------


def _require_new_weights(model: LossModule, other: LossModule, path: str) -> None:
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    if not any(weight.requires_grad for weight in ours.values()):
        raise DataError(path, f"{_name(model)} has no parameters to train")
    if any(theirs.get(name) is weight for name, weight in ours.items()):
        raise DataError(
            path, "model(seed) returned a module that it had returned before; each trial needs one "
            "with weights of its own: build it inside of model",
        )  # fmt: skip
    differing = ours.keys() ^ theirs.keys() or {
        name for name, weight in ours.items() if not torch.equal(weight, theirs[name])
    }
    if differing:
        name = min(differing).removeprefix("module.")
        raise DataError(
            path, f"model(seed) gives {name} other values each time for the same seed; draw them "
            "from the seed, or from torch's, numpy's or Python's global generator",
        )  # fmt: skip


def _require_losses(task: ModuleTask, model: LossModule, numbers: Indices) -> None:
    """Check the form of what `losses` returns, in training mode."""
    path, count = task.path, len(numbers)
    with fixed_chance(0):
        made: Any = model(on_device(task.collate(numbers, 0)["batch"], CPU))
    if isinstance(made, Tensor) and made.ndim == 0:
        raise DataError(
            path, f"losses returned one number for {count} examples, as a mean over the batch is; "
            "return (losses, counts), [N] each: the summed loss of each example "
            "(reduction='none') and its number of targets",
        )  # fmt: skip
    if not (isinstance(made, tuple | list) and len(made) == 2):
        what = f"{len(made)} things" if isinstance(made, tuple | list) else type(made).__name__
        raise DataError(path, f"losses returned {what}; allowed: (losses [N], counts [N])")
    for what, values in zip(("losses", "counts"), made, strict=True):
        if not isinstance(values, Tensor):
            raise DataError(path, f"losses returned {what} as {type(values).__name__}, no tensor")
        if values.shape != (count,):
            is_mean = " (a mean over the batch? take reduction='none')" * (values.ndim == 0)
            raise DataError(
                path, f"losses returned {what} of shape {list(values.shape)} for {count} "
                f"examples{is_mean}; allowed: [{count}]",
            )  # fmt: skip
    losses, counts = made
    if not bool(torch.isfinite(losses).all()):
        raise DataError(path, f"the loss is {float(losses.detach().sum())} before the first step")
    counted = counts.double()
    whole = counted.sum() if task.by_mean else counted
    if bool((counted < 0).any()) or not torch.allclose(whole, whole.round()):
        raise DataError(path, "losses returned counts that are not whole numbers from 0 on")
    if float(counted.sum()) == 0:
        raise DataError(path, f"losses counts no targets in {count} examples")
    if not losses.requires_grad:
        raise DataError(path, "the loss depends on no weight that is trained")


def _require_heldout(task: ModuleTask, model: nn.Module) -> None:
    """Check that held-out examples have a loss, and that the metrics are those declared."""
    model.eval()
    with torch.no_grad():
        for split in task.splits:
            few = slice(0, min(NUM_TRIED, task.num_evaluated(split)))
            with own_code(task.path, f"losses of {split}"):
                found = task.example_losses(model, split, few, CPU)
            if not np.isfinite(found.loss):
                raise DataError(task.path, f"the loss of {split} is {found.loss} at the start")
        few = np.arange(min(NUM_TRIED, task.num_evaluated("validation")))
        with own_code(task.path, "metrics"):
            values = task.score_of(model, few, CPU)
            if not all(map(np.isfinite, values.values())):  # a few may be of one class alone
                values = task.score(model, CPU)
        for name, value in values.items():
            if not np.isfinite(value):
                raise DataError(
                    task.path, f"the metric {name} is {value} at the start; it must be finite"
                )


def _train_after_evaluation(task: ModuleTask, model: LossModule, numbers: Indices) -> None:
    """Take a backward pass of a module that was evaluated first, as every trial's is."""
    with fixed_chance(0):
        task.loss_sum(model.train(), task.collate(numbers, 0)).backward()


# --- what depends on more than the example --------------------------------------------------------


def _finding(task: ModuleTask, model: LossModule, numbers: Indices, seed: int) -> str | None:
    """What a loss depends on beside the example and the weights, in a sentence."""
    with torch.no_grad():
        widen(model, seed)
    model.eval()
    with own_code(task.path, "losses"), torch.no_grad():
        losses = _Losses(task, model)
        if differ(losses(numbers, 0), losses(numbers, 1)):
            return (
                "the loss depends on chance in evaluation mode, so that the same weights are "
                "measured differently each time; draw at random only while self.training, "
                f"{_OR_WAIVE}"
            )
        found = _dependence(losses, numbers)
        if found is None:
            with _training(model, losses, numbers) as is_deterministic:
                found = _dependence(losses, numbers) if is_deterministic else None
    if found is None:
        return None
    culprit, remedy = "", _REMEDIES[found]
    if norms := _batch_norms(model):
        name, layer = next(iter(norms.items()))
        culprit = f" (its layer {name}, a {type(layer).__name__}, normalizes over them)"
        remedy = "take GroupNorm or LayerNorm in place of batch norm"
    return f"{found}{culprit}, {_FOLLOWS}; {remedy}, {_OR_WAIVE}"


_MEAN = "the loss of an example shrinks with the number of examples, as a mean over the batch does"
_NEIGHBOURS = "the loss of an example depends on the examples beside it"
_ORDER = "the loss of an example depends on its place in the batch"
_NOT_SUCH_A_MEAN = (
    "the loss of a batch is not the mean of its parts' losses, weighted by what it is said to be "
    "a mean over"
)
_REMEDIES = {
    _MEAN: "return each example's own summed loss (reduction='none')",
    _NEIGHBOURS: "take no negatives or statistics from the batch, and mask its padding",
    _ORDER: "treat all places of a batch alike",
    _NOT_SUCH_A_MEAN: "name what it is a mean over (workload.loss_is_mean_over), and take nothing "
    "from the batch beside the example",
}


def _dependence(losses: "_Losses", numbers: Indices) -> str | None:
    """How the losses of a batch differ from those of its halves, or in another order."""
    if len(numbers) < 2:
        return None
    whole = losses(numbers, 0)
    half = len(numbers) // 2
    parts = [numbers[:half], numbers[half:]]
    if losses.task.by_mean:
        cuts = (parts, np.split(numbers, len(numbers)))  # halves, then single examples
        are_sums = (not differ(whole, sum(losses(p, 0) for p in cut)) for cut in cuts)  # pyright: ignore[reportArgumentType]
        return None if all(are_sums) else _NOT_SUCH_A_MEAN
    halves = torch.cat([losses(part, 0) for part in parts])
    if differ(whole, halves):
        scaled = torch.cat([losses(part, 0) * len(part) / len(numbers) for part in parts])
        return _NEIGHBOURS if differ(whole, scaled) else _MEAN
    backwards = losses(numbers[::-1].copy(), 0).flip(0)
    return _ORDER if differ(whole, backwards) else None


class _Losses:
    """The losses of some training examples, [N], with random numbers from a seed."""

    def __init__(self, task: ModuleTask, model: LossModule) -> None:
        self.task, self.model = task, model

    def __call__(self, numbers: Indices, seed: int) -> Tensor:
        batch = self.task.collated_alike("train", numbers)
        with fixed_chance(seed):
            losses = self.model(batch)[0].double()
        # Of a mean over the batch only the sum is known, and is compared.
        return losses.sum()[None] if self.task.by_mean else losses


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether losses differ by more than rounding makes of another cut."""
    size = max(float(one.abs().mean()), float(other.abs().mean()), 1e-12)
    return float((one - other).abs().max()) > TOLERANCE * size


@contextmanager
def _training(model: LossModule, losses: _Losses, numbers: Indices) -> Iterator[bool]:
    """The model in training mode, but for what drops at random.

    Yields:
        Whether it has no chance in it then. Where a module drops by a function and not by a layer,
        only its batch norms are in training mode.
    """
    model.train()
    for part in model.modules():
        if "drop" in type(part).__name__.lower():
            part.eval()
    if differ(losses(numbers, 0), losses(numbers, 1)):
        norms = set(_batch_norms(model).values())
        for part in model.modules():
            part.training = part in norms
    yield not differ(losses(numbers, 0), losses(numbers, 1))
    model.eval()


def _batch_norms(model: LossModule) -> dict[str, nn.Module]:
    """Layers that normalize over the examples of a batch in training, by name."""
    frozen = set(model.stays_in_evaluation)
    return {
        name: part
        for name, part in model.module.named_modules()
        if isinstance(part, _BatchNorm) and part not in frozen
    }
