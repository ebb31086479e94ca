"""The loss of predicted tokens: over a large vocabulary of targets alone, a chunk at a time.

A logit takes about 16 bytes between a forward and a backward pass: as it was computed, in float32,
its log softmax and its gradient. So where a batch has many, places without a target get none, and
the gradient of a chunk's logits is computed, and carried on to the head's input and weights, before
the next chunk has any. Each product of matrices is still computed once.

The head does so itself, in the place of its own forward pass, so that it has its weights whatever
the strategy, and the model returns the loss where it would have returned logits.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from scaling.tasks.baselines import IGNORED
from scaling.tasks.batch import at_least_float32
from scaling.tasks.task import AnyBatch, Batch

MAX_LOGITS = 2**25  # of a chunk, half a gigabyte; of a batch they are computed at once up to here
TARGETS = "target_places"

Forward = Callable[[nn.Module, Batch], Any]
"""Calls a model; see `scaling.tasks.text_task.Forward`."""

_plain: dict[tuple[type, str], bool] = {}
"""Of each configuration that this process has met, whether a model's logits are its head's."""


def with_target_places(batch: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """A batch whose loss is computed in chunks, where its logits would be too many.

    It says which of its flattened places have a target, since a GPU would be waited for to ask it.
    """
    labels = batch["labels"]
    if labels.numel() * vocab_size <= MAX_LOGITS:
        return batch
    return batch | {TARGETS: (labels.flatten() != IGNORED).nonzero().flatten()}


def is_in_chunks(batch: AnyBatch) -> bool:
    """Whether the loss of a batch is computed in chunks."""
    return isinstance(batch, Mapping) and TARGETS in batch


def in_one_piece(batch: AnyBatch) -> AnyBatch:
    """The batch with its logits computed at once: a loss in chunks has no second derivative."""
    if not is_in_chunks(batch):
        return batch
    return {name: value for name, value in batch.items() if name != TARGETS}


def token_losses(logits_blv: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """[B, L] nats; 0 where a token has no label."""
    return functional.cross_entropy(
        logits_blv.transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="none",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def target_loss_sum(
    forward: Forward, model: nn.Module, batch: Batch, *, vocab_size: int, label_smoothing: float
) -> Tensor:
    """Cross entropy summed over a batch's targets, in nats.

    At once where the batch has few logits, or the model does more to them than its head.
    """
    head = _plain_head(model, forward) if TARGETS in batch else None
    if head is None:
        logits_blv = at_least_float32(forward(model, batch).logits)
        return functional.cross_entropy(
            logits_blv.flatten(0, 1), batch["labels"].flatten(),
            ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing,
        )  # fmt: skip
    labels, size = batch["labels"].flatten()[batch[TARGETS]], _chunk_size(vocab_size)

    def loss_of(hidden: Tensor) -> Tensor:
        chosen = hidden.flatten(0, 1)[batch[TARGETS]]
        logits_of = _own_forward(head)

        def loss(part: Tensor, part_labels: Tensor) -> Tensor:
            return functional.cross_entropy(
                at_least_float32(logits_of(part)), part_labels,
                reduction="sum", label_smoothing=label_smoothing,
            )  # fmt: skip

        trained = [weight for weight in head.parameters() if weight.requires_grad]
        if not torch.is_grad_enabled() or not (trained or chosen.requires_grad):
            parts = zip(chosen.split(size), labels.split(size), strict=True)
            return torch.stack([loss(*part) for part in parts]).sum()
        summed: Any = _SummedLoss.apply(loss, size, labels, chosen, *trained)
        return summed

    with _computing(head, loss_of):
        return forward(model, batch).logits


def target_losses(
    forward: Forward, model: nn.Module, batch: Batch, *, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Of each example its summed loss, [B] nats, and its likeliest tokens that are right, [B].

    At once where the batch has few logits, or the model does more to them than its head.
    """
    labels = batch["labels"]
    head = _plain_head(model, forward) if TARGETS in batch else None
    if head is None:
        logits_blv = at_least_float32(forward(model, batch).logits)
        hits_bl = logits_blv.argmax(-1) == labels
        return token_losses(logits_blv, batch).sum(1), hits_bl.sum(1)
    places = batch[TARGETS]
    labels_n = labels.flatten()[places]

    def found_of(hidden: Tensor) -> Tensor:
        found: list[Tensor] = []
        size, logits_of = _chunk_size(vocab_size), _own_forward(head)
        for part, own in zip(
            hidden.flatten(0, 1)[places].split(size), labels_n.split(size), strict=True
        ):
            logits = at_least_float32(logits_of(part))
            losses = functional.cross_entropy(logits, own, reduction="none")
            found.append(torch.stack([losses.double(), (logits.argmax(-1) == own).double()]))
        return torch.cat(found, 1)

    with _computing(head, found_of):
        found_2n = forward(model, batch).logits
    sums_2b = found_2n.new_zeros(2, len(labels)).index_add_(1, places // labels.shape[1], found_2n)
    return sums_2b[0], sums_2b[1]


def _chunk_size(vocab_size: int) -> int:
    return max(1, MAX_LOGITS // vocab_size)


class _SummedLoss(torch.autograd.Function):
    """The sum of the chunks' losses; their gradients are there when the forward pass ends."""

    @staticmethod
    def forward(
        ctx: Any, loss: Callable[[Tensor, Tensor], Tensor], size: int, labels: Tensor,
        hidden: Tensor, *trained: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.has_hidden = hidden.requires_grad
        of_hidden: list[Tensor] = []
        of_weights: list[Tensor] = []
        losses: list[Tensor] = []
        # What a chunk keeps is gone before the next one; it is nobody's to count or move.
        keeps = torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept)
        with torch.enable_grad(), keeps:
            for part, own in zip(hidden.split(size), labels.split(size), strict=True):
                part = part.detach().requires_grad_(ctx.has_hidden)
                summed = loss(part, own)
                wanted = [part, *trained] if ctx.has_hidden else list(trained)
                found = list(torch.autograd.grad(summed, wanted))
                losses.append(summed.detach())
                if ctx.has_hidden:
                    of_hidden.append(found.pop(0))
                if of_weights:
                    for sum_so_far, added in zip(of_weights, found, strict=True):
                        sum_so_far += added
                else:
                    of_weights = found
        whole = [torch.cat(of_hidden)] if ctx.has_hidden else []
        ctx.save_for_backward(*whole, *of_weights)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator's types
        ctx: Any, scale: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradients = [gradient.mul_(scale) for gradient in ctx.saved_tensors]
        of_hidden = gradients.pop(0) if ctx.has_hidden else None
        return None, None, None, of_hidden, *gradients


@contextmanager
def _computing(head: Any, instead: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The head computes something else inside the context."""
    vars(head)["forward"] = instead
    try:
        yield
    finally:
        del vars(head)["forward"]


def _own_forward(head: nn.Module) -> Callable[[Tensor], Tensor]:
    """The head's forward pass as its class has it, called in the place of its own."""
    return type(head).forward.__get__(head)


def _plain_head(model: nn.Module, forward: Forward) -> nn.Module | None:
    """What makes logits in a transformers model; None where the model does more to them.

    A cap, a scale or a bias of their own would be missing from a loss that the head computes.
    """
    from transformers import PreTrainedModel

    found = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    head: Any = None if found is None else found.get_output_embeddings()
    if found is None or not isinstance(head, nn.Module) or "forward" in head.__dict__:
        return None
    key = type(found), found.config.to_json_string()
    if key not in _plain:
        _plain[key] = _returns_what_its_head_returns(type(found), found.config, forward)
    return head if _plain[key] else None


def _returns_what_its_head_returns(kind: Any, config: Any, forward: Forward) -> bool:
    """Tried on a model without contents."""
    with _disable_current_modes(), torch.random.fork_rng([]), torch.no_grad():
        try:
            with torch.device("meta"):
                sketch = kind(deepcopy(config)).eval()
                ids, returned = torch.zeros(1, 2, dtype=torch.long), torch.zeros(())
                with _computing(sketch.get_output_embeddings(), lambda _: returned):
                    made = forward(sketch, {"input_ids": ids, "decoder_input_ids": ids})
        except Exception:  # noqa: BLE001  # a model that cannot be tried so keeps its own way
            return False
    return made.logits is returned
