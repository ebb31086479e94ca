"""Folders with a trained model of transformers and its tokenizer, as a user would name them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

SPECIALS = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
    "eos_token": "[EOS]",
}  # fmt: skip
WORDS = tuple("abcdefghijklmnopqrstuvwxyz")


def save_tokenizer(folder: Path, words: Iterable[str] = WORDS) -> int:
    """A tokenizer of whole words; returns how many ids it has."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIALS.values(), *words]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS).save_pretrained(folder)
    return len(names)


def save_model(
    folder: Path, architecture: str, *, vocab_size: int, seed: int = 0, **options: Any
) -> None:
    """The body of a small model, as one that was trained on something else."""
    from transformers import AutoConfig, AutoModel

    sizes = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, vocab_size=vocab_size, **sizes | options)
    AutoModel.from_config(config).save_pretrained(folder)


def trained_folder(folder: Path, architecture: str, **options: Any) -> str:
    """A model and its tokenizer."""
    save_model(folder, architecture, vocab_size=save_tokenizer(folder), **options)
    return str(folder)
