"""How many bytes training takes, from one forward and backward pass that computes nothing.

Closed forms of activations are brittle: they depend on the architecture, on the attention kernel
and on what autocast keeps. So a pass is traced on fake tensors, which have shapes and no
contents, at two micro-batch sizes, and a line through both gives every other size.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scaling.optimizers.catalog import num_moments
from scaling.spec.resources import CUTTING_ALL_WEIGHTS, ZERO_BUCKET_BYTES, ZERO_STAGES, Strategy
from scaling.tasks.model.layers import transformer_blocks


@dataclass(frozen=True)
class Memory:
    """Bytes on one worker, by what takes them.

    Attributes:
        optimizer: Moments, and the average of the weights where there is one.
        activations: What the forward pass keeps for the backward pass.
        workspace: What comes and goes beside that: gradients of activations, recomputed
            activations, weights that fsdp gathers, gradients that DeepSpeed reduces.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        """All of it, as if at the same time."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.workspace


@dataclass(frozen=True)
class PassBytes:
    """Of one forward and backward pass: what is kept between them, and the most there was.

    Neither counts weights, or gradients of weights.
    """

    kept: int
    peak: int


def pass_bytes(
    model: nn.Module, loss: Callable[[], Tensor], *, also_held: Iterable[Tensor] = ()
) -> PassBytes:
    """Trace a pass, on real tensors or on fake ones.

    Args:
        model: Its gradients are dropped as they come.
        loss: Runs the forward pass.
        also_held: What may stand for weights and buffers in the pass.
    """
    owned = {_storage(tensor) for tensor in (*_held(model), *also_held)}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in owned:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = [
        weight.register_post_accumulate_grad_hook(_drop_gradient)
        for weight in model.parameters()
        if weight.requires_grad
    ]
    with _Live(owned) as live:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            total = loss()
        total.backward()
    for hook in hooks:
        hook.remove()
    return PassBytes(kept=sum(kept.values()), peak=live.peak)


def _held(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _drop_gradient(weight: Tensor) -> None:
    weight.grad = None


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that were made inside and still exist."""

    def __init__(self, owned: set[int]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = set(owned)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        before = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and _storage(tensor) not in before | self._known:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        number, size = storage._cdata, storage.nbytes()
        self._known.add(number)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, number, size)

    def _forget(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._now -= size


@dataclass(frozen=True)
class Footprint:
    """A model's sizes, and its pass at any micro-batch size: bytes = constant + each × size.

    Attributes:
        trained: Weights that get a gradient.
        largest_block: Weights of the largest Transformer block.
        outside_blocks: Weights that are in none.
    """

    parameters: int
    trained: int
    largest_block: int
    outside_blocks: int
    kept: tuple[float, float]
    peak: tuple[float, float]

    def memory(
        self,
        micro_batch_size: int,
        *,
        optimizer: str,
        has_momentum: bool = False,
        averages_weights: bool = False,
        strategy: Strategy = "ddp",
        world_size: int = 1,
        accumulates: bool = True,
        measures_sharpness: bool = False,
    ) -> Memory:
        """Bytes on each of `world_size` workers.

        Args:
            micro_batch_size: Examples of the longest kind per forward.
            optimizer: Its name.
            has_momentum: Of sgd.
            averages_weights: One more copy, and another while it is evaluated.
            strategy: fsdp cuts weights, gradients and moments among the workers; zero1 to zero3
                the moments, the gradients too, the weights too, and the optimizer has a copy of
                its weights and of their gradient. Under tp this is one worker's model already.
            world_size: Workers.
            accumulates: Whether there are several forwards a step: whole gradients are then
                added up and cut after the last one.
            measures_sharpness: Where anything is cut, of a whole copy of the model at the end.
        """
        activations = _line(self.kept, micro_batch_size)
        workspace = max(0, _line(self.peak, micro_batch_size) - activations)
        each = num_moments(optimizer, has_momentum=has_momentum)
        stage = ZERO_STAGES.get(strategy) if world_size > 1 else None
        shares = world_size if strategy in CUTTING_ALL_WEIGHTS else 1
        if shares > 1:
            # A block and the next one are gathered to compute with, everything to evaluate.
            gathered = self.outside_blocks + 2 * self.largest_block
            workspace = max(workspace + gathered, self.parameters - activations)
        held, trained = self.parameters // shares, self.trained // shares
        gradients = self.trained if accumulates else trained
        moments = each * trained
        if stage is not None:
            flat = self.trained // world_size
            held += flat
            gradients = flat + (self.trained if accumulates or stage == 1 else flat)
            moments = each * flat
            workspace += min(self.trained, ZERO_BUCKET_BYTES)
        if measures_sharpness and world_size > 1 and strategy != "ddp":
            copied = self.parameters * (world_size if strategy == "tp" else 1)
            at_the_end = copied + (self.parameters if shares > 1 else 0)
            workspace = max(workspace, at_the_end - activations)
        return Memory(
            parameters=held,
            gradients=gradients,
            optimizer=moments + 2 * averages_weights * trained,
            activations=activations,
            workspace=workspace,
        )


def _line(line: tuple[float, float], size: int) -> int:
    constant, each = line
    return max(0, round(constant + each * size))


def footprint(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, int], Tensor],
    context: Callable[[], AbstractContextManager[object]],
    *,
    sizes: tuple[int, int] = (8, 32),
) -> Footprint:
    """Measure a model that is built of fake tensors.

    Args:
        build: The model, ready to train; its real weights, if it has some, become fake ones.
        loss: The forward pass of a model at a micro-batch size.
        context: Autocast, or nothing.
        sizes: The two micro-batch sizes.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, warnings.catch_warnings():
        # A module that copies its layers, as nn.TransformerEncoder does, asks where they lie.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        model = build()

        def forward(size: int) -> Tensor:
            with context():
                return loss(model, size)

        # What stands for each tensor in a pass under `mode`.
        fakes = [t if isinstance(t, FakeTensor) else mode.from_tensor(t) for t in _held(model)]
        low, high = (
            pass_bytes(model, lambda size=size: forward(size), also_held=fakes) for size in sizes
        )
    blocks = [_num_bytes(block.parameters()) for block in transformer_blocks(model)]
    all_weights = _num_bytes(model.parameters())
    return Footprint(
        parameters=all_weights + _num_bytes(model.buffers()),
        trained=_num_bytes(p for p in model.parameters() if p.requires_grad),
        largest_block=max(blocks, default=0),
        outside_blocks=all_weights - sum(blocks),
        kept=_through(sizes, (low.kept, high.kept)),
        peak=_through(sizes, (low.peak, high.peak)),
    )


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _through(sizes: tuple[int, int], found: tuple[int, int]) -> tuple[float, float]:
    each = (found[1] - found[0]) / (sizes[1] - sizes[0])
    return found[0] - each * sizes[0], each
