"""Random tokens for Lightning's own demo of a Transformer."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

VOCAB_SIZE = 20


def windows(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Eight tokens, and those that are one further."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, VOCAB_SIZE, (count, 9), generator=generator)
    return [(row[:-1], row[1:]) for row in drawn]


class RandomTokens(LightningDataModule):
    def __init__(self, num_train: int = 64) -> None:
        super().__init__()
        self.num_train = num_train

    def setup(self, stage: str) -> None:
        self.train, self.held_out = windows(self.num_train, 0), windows(16, 1)

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=3, shuffle=True)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(self.held_out, batch_size=5)  # type: ignore[arg-type]
