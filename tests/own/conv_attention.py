"""A user's own task: sequences of unequal lengths, a convolution, attention, a loss per step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import scaling

NUM_VALUES = 8


class ConvAttention(nn.Module):
    """A convolution along the sequence, attention over it, and a value to predict at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(NUM_VALUES + 1, width, padding_idx=NUM_VALUES)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, NUM_VALUES)

    def places(self, x: Tensor) -> Tensor:
        """What each place is known by, [N, L, D]; called by the loss beside `forward`."""
        real = (x < NUM_VALUES).unsqueeze(2)
        h = functional.gelu(self.conv((self.embed(x) * real).transpose(1, 2))).transpose(1, 2)
        return self.norm(h)

    def forward(self, x: Tensor) -> Tensor:
        h = self.places(x)
        mixed, _ = self.attend(h, h, h, key_padding_mask=x == NUM_VALUES, need_weights=False)
        return self.head(h + mixed)


def sequences(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Sequences of 3 to 12 values; what is to be predicted is the running sum."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 13, (count,), generator=generator).tolist()
    drawn = [torch.randint(0, NUM_VALUES, (n,), generator=generator) for n in lengths]
    return [(x, x.cumsum(0) % NUM_VALUES) for x in drawn]


def collate(examples: list[Any]) -> dict[str, Tensor]:
    inputs, labels = zip(*examples, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return {
        "x": pad(inputs, batch_first=True, padding_value=NUM_VALUES),
        "y": pad(labels, batch_first=True, padding_value=-100),
    }


def losses(model: ConvAttention, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    logits = model(batch["x"]).transpose(1, 2)
    each = functional.cross_entropy(logits, batch["y"], ignore_index=-100, reduction="none")
    return each.sum(1), (batch["y"] != -100).sum(1)


def metrics(model: ConvAttention, batches: Any) -> dict[str, float]:
    right = total = 0
    for batch in batches:
        known = batch["y"] != -100
        right += int((model(batch["x"]).argmax(2) == batch["y"])[known].sum())
        total += int(known.sum())
    return {"accuracy": right / total}


def build(width: int = 16, num_train: int = 200) -> scaling.CustomTask:
    return scaling.CustomTask(
        train=sequences(num_train, 0), validation=sequences(60, 1), test=sequences(60, 2),
        model=lambda _: ConvAttention(width), losses=losses, collate=collate, metrics=metrics,
        directions={"accuracy": "maximize"}, ranges={"accuracy": (0, 1)},
        length=lambda example: len(example[0]),
    )  # fmt: skip
