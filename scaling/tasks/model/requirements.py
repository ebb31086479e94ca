"""What a model must do before it is trained, tried on a few real examples.

It has an embedding for every id and every position, no token sees a later one that it has to
predict, padding changes no example's loss, and packed documents do not see each other. What is
compared are logits: those that must stay as they are, against those that a change of tokens moves.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from scaling.spec.data import TextData
from scaling.spec.models import ModelSpec
from scaling.tasks.data.tokens import Tokenizer, TrainedTokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.loading import library_errors
from scaling.tasks.model.adapters import require_ranks
from scaling.tasks.task import Batch, Task, TokenModel, WritingTask

# Rounding moves logits by a millionth of what a token does; one that is seen, by percents.
MAX_LEAK_RATIO = 1e-3
ROUNDING = 1e-5
SMALL = 0.1
"""Constant weights below it may be gates."""
NUM_SEARCHED = 1000
"""Training examples among which the shortest and the longest are looked for."""
RESERVED = 2
"""Most positions that an architecture keeps for itself, as RoBERTa and its kin do."""
MAX_TRIED_LENGTH = 4096

_OF_TOKENS = {
    "input_ids", "attention_mask", "token_type_ids", "in_context", "labels", "decoder_input_ids",
}  # fmt: skip
# What configurations call the length that a model was made for.
_POSITIONS = (
    "max_position_embeddings", "max_encoder_position_embeddings",
    "max_decoder_position_embeddings", "max_source_positions", "max_target_positions",
    "max_seq_len",
)  # fmt: skip


def require_model(
    task: Task, model: nn.Module, seed: int, lora_ranks: Mapping[str, int] | None
) -> None:
    """Check a new model of a task on its data.

    Args:
        task: With its data.
        model: In training mode; it is changed, and of no further use.
        seed: The trials'.
        lora_ranks: Ranks that its adapters are to have, by the dotted path that says so.

    Raises:
        DataError: If the model cannot read these data, or reads what it must not.
    """
    tokens = task.token_model
    if tokens is None:
        return
    spec, max_length = tokens.spec, tokens.data.max_length
    name, path = _named(spec)
    _require_ids(tokens, model)
    _require_own_ids(spec, tokens.data)
    positions = _positions(model)
    if positions is not None and max_length > positions:
        raise DataError(
            "workload.data.max_length",
            f"{max_length} is more than the model's {positions} positions",
        )
    if spec.lora is not None:
        own = {"workload.model.lora.rank": spec.lora.rank}
        require_ranks(model, own if lora_ranks is None else lora_ranks)
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise DataError(path, f"{name} has batch norm, so that an example's loss depends on others")
    batches = _Batches(task, tokens.tokenizer, seed)
    cannot_read = f"{name}{_odd_heads(spec)} cannot read the training data"
    with library_errors("workload.model", cannot_read), torch.no_grad():
        logits = _Logits(task, model)
        if positions is not None and positions - RESERVED < max_length <= MAX_TRIED_LENGTH:
            _require_room(logits, batches, positions, max_length)
        loss = float(task.loss_sum(model, batches.together))  # as in training, with dropout
        if not math.isfinite(loss):
            raise DataError("workload.model", f"{name}'s loss is {loss} before the first step")
        model.eval()
        if isinstance(task, WritingTask) and task.writing is not None:
            task.writing.write(model, slice(0, 1), torch.device("cpu"))
        widen(model, seed)
        _require_order(logits, batches, tokens, name, path)
        if _padding_leak(logits, batches):
            raise DataError(
                path,
                f"{name}'s loss of an example changes with the examples beside it, or with the "
                "padding that they bring; take an architecture that does without, as bert or llama",
            )


def _require_order(
    logits: "_Logits", batches: "_Batches", tokens: TokenModel, name: str, path: str
) -> None:
    """Check that what is predicted is not seen, and that packed documents are apart."""
    read = tokens.left_to_right
    if read is not None and _later_leak(logits, batches, read):
        reader, known = (name, "llama") if read == "input_ids" else (f"{name}'s decoder", "bart")
        raise DataError(
            path,
            f"{reader} sees the tokens that it has to predict: its logits change with later ones; "
            f"allowed: architectures that read them from left to right, as {known}",
        )
    if tokens.keeps_documents_apart and _packing_leak(logits, batches):
        raise DataError(
            "workload.packing",
            f"{name} sees one document from the next in the same example, whatever the positions; "
            "take packing: false, or an architecture that keeps them apart, as llama or gpt2",
        )


def _named(model: ModelSpec) -> tuple[str, str]:
    """What a model is called in messages, and the path of the field that chose it."""
    if model.pretrained is not None:
        return model.pretrained, "workload.model.pretrained"
    return model.architecture, "workload.model.architecture"


def _odd_heads(model: ModelSpec) -> str:
    """A note where heads have an odd width, which rotary positions cannot turn."""
    if model.pretrained is not None:
        return ""
    width = model.hidden_size // model.num_attention_heads
    return f" with heads of odd width {width}" if width % 2 else ""


def _require_ids(tokens: TokenModel, model: Any) -> None:
    tokenizer = tokens.tokenizer
    ids = [tokenizer.vocab_size - 1, tokenizer.pad_id, *tokens.other_ids]
    if isinstance(tokenizer, TrainedTokenizer):
        ids += tokenizer.tokenizer.get_vocab().values()  # may have gaps
    try:
        count: int = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        return  # some hash ids, or read bytes
    if max(ids) >= count:
        raise DataError(
            "workload.model",
            f"the model cannot read the training data: the tokenizer has ids up to {max(ids)}, "
            f"pads included, and the model embeddings of {count} ids, up to {count - 1}",
        )


def _require_own_ids(model: ModelSpec, data: TextData) -> None:
    """Check that a tokenizer named beside a trained model numbers tokens as the model's own does.

    One may have more of them, and specials elsewhere. Where a model has none of its own, nobody
    can say.
    """
    if model.pretrained is None or data.tokenizer is None:
        return
    path = "workload.data.tokenizer"
    own: dict[str, int] = {}
    if data.tokenizer not in ("characters", "subwords"):
        with suppress(DataError):
            own = TrainedTokenizer.load(model.pretrained, path).tokenizer.get_vocab()
    named = TrainedTokenizer.load(data.tokenizer, path).tokenizer.get_vocab() if own else {}
    shared = own.keys() & named.keys()
    num_moved = sum(own[token] != named[token] for token in shared)
    if own and (not shared or 2 * num_moved > len(shared)):
        raise DataError(
            path,
            f"{data.tokenizer} gives {num_moved} of the {len(shared)} tokens that it shares with "
            f"{model.pretrained} other numbers; allowed: the model's own tokenizer, or one made "
            "from it",
        )


def _positions(model: Any) -> int | None:
    """The length that a model was made for; None where its configuration has none."""
    values = [getattr(model.config, name, None) for name in _POSITIONS]
    return min((value for value in values if isinstance(value, int) and value > 0), default=None)


class _Batches:
    """The shortest and the longest of the first training examples, together and alone."""

    def __init__(self, task: Task, tokenizer: Tokenizer, seed: int) -> None:
        lengths = task.lengths(np.arange(min(NUM_SEARCHED, task.num_train or 1)))
        order = np.argsort(lengths, kind="stable")[[0, -1]]
        self.together: Batch = task.collate(order, seed)
        self.shortest: Batch = task.collate(order[:1], seed)
        self.longest: Batch = task.collate(order[1:], seed)
        self.tokenizer = tokenizer

    def changed(self, batch: Batch, name: str, place: slice) -> Batch:
        """The batch with other tokens in some columns of a matrix of ids; specials stay."""
        ids = batch[name].clone()
        tokenizer = self.tokenizer
        specials = torch.tensor([i for i in (tokenizer.pad_id, tokenizer.end_id) if i is not None])
        known = ids[~torch.isin(ids, specials)].unique()
        if len(known) < 2:
            known = torch.arange(self.tokenizer.vocab_size)
            known = known[~torch.isin(known, specials)]
        old = ids[:, place]
        new = known[torch.searchsorted(known, old, right=True) % len(known)]
        ids[:, place] = torch.where(torch.isin(old, specials), old, new)
        return {**batch, name: ids}


class _Logits:
    """The logits of a task's own forward pass."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        self.task, self.model = task, model

    def __call__(self, batch: Batch) -> Tensor:
        """[B, L, …] of tokens or [B, …] of texts."""
        outputs: list[Any] = []
        hook = self.model.register_forward_hook(lambda _model, _inputs, out: outputs.append(out))
        try:
            self.task.loss_sum(self.model, batch)
        finally:
            hook.remove()
        if hasattr(outputs[0], "start_logits"):
            return torch.stack([outputs[0].start_logits, outputs[0].end_logits], -1)
        return outputs[0].logits


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference; equal infinities have none."""
    if not a.numel():
        return 0.0
    return float(torch.where(a == b, 0.0, (a - b).abs().float()).max())


def _is_leak(leak: float, moved: float, logits: Tensor) -> bool:
    """Whether what must stay moves by more than rounding, next to what a change moves."""
    size = float(logits.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return leak > max(ROUNDING * size, MAX_LEAK_RATIO * moved)


def widen(model: nn.Module, seed: int) -> None:
    """Enlarge weights that start small or at zero, and would hide what depends on them.

    Matrices get the deviation with which outputs are as large as inputs, and constants next to
    zero, such as gates, a random value.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if not weight.numel() or not weight.is_floating_point():
            continue
        least = (weight[0].numel() if weight.dim() > 1 else weight.numel()) ** -0.5
        if weight.min() == weight.max() and weight.flatten()[0].abs() < SMALL:
            weight.copy_(least * torch.randn(weight.shape, generator=generator))
        elif weight.dim() > 1 and 0 < (deviation := float(weight.std(correction=0))) < least:
            weight.mul_(least / deviation)


def _padding_leak(logits: _Logits, batches: _Batches) -> bool:
    """Whether the shortest example's logits change beside the longest."""
    batch = batches.shortest
    alone, together = logits(batch), logits(batches.together)[:1]
    if alone.shape != together.shape:
        together = together[:, : alone.shape[1]]
    other = logits(batches.changed(batch, "input_ids", slice(None)))
    return _is_leak(_distance(alone, together), _distance(alone, other), alone)


def _later_leak(logits: _Logits, batches: _Batches, name: str) -> bool:
    """Whether logits change with tokens behind them, in the longest example."""
    batch = batches.longest
    length = batch[name].shape[1]
    before = logits(batch)
    for cut in sorted({1, length // 2, length - 1} - {0}):
        after = logits(batches.changed(batch, name, slice(cut, None)))
        leak, moved = (_distance(before[:, p], after[:, p]) for p in (slice(cut), slice(cut, None)))
        if _is_leak(leak, moved, before):
            return True
    return False


def _packing_leak(logits: _Logits, batches: _Batches) -> bool:
    """Whether a second document's logits change with the first one's tokens."""
    batch = batches.longest
    length = batch["input_ids"].shape[1]
    cut = length // 2
    positions = torch.cat([torch.arange(cut), torch.arange(length - cut)])[None]
    batch = {**batch, "position_ids": positions}
    before, after = logits(batch), logits(batches.changed(batch, "input_ids", slice(cut)))
    moved, leak = (_distance(before[:, p], after[:, p]) for p in (slice(cut), slice(cut, None)))
    return _is_leak(leak, moved, before)


def _require_room(logits: _Logits, batches: _Batches, positions: int, max_length: int) -> None:
    """Check an example of `max_length` tokens; some architectures reserve a position or two."""
    lengths = range(max_length, max_length - RESERVED - 1, -1)
    longest = next((n for n in lengths if _has_room(logits, batches.longest, n)), max_length)
    if longest == max_length:
        return  # or it cannot read shorter ones either, for a reason of its own
    raise DataError(
        "workload.data.max_length",
        f"{max_length} is more than the model can read: of its {positions} positions it reserves "
        f"some; allowed: at most {longest}",
    )


def _has_room(logits: _Logits, batch: Batch, length: int) -> bool:
    """Whether the model reads an example that is repeated up to this length."""
    tiled = dict(batch)
    for name in _OF_TOKENS & batch.keys():
        if batch[name].dim() == 2:
            copies = math.ceil(length / batch[name].shape[1])
            tiled[name] = batch[name].repeat(1, copies)[:, :length]
    if "position_ids" in batch:
        tiled["position_ids"] = torch.arange(length)[None]
    try:
        logits(tiled)
    except (IndexError, RuntimeError):
        return False
    return True
