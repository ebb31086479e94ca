"""A trained model as transformers' `from_pretrained`, or torch.load, reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from scaling.tasks.data.tokens import (
    END,
    PAD,
    SEPARATOR,
    UNKNOWN,
    Tokenizer,
    TrainedTokenizer,
    UnitTokenizer,
)
from scaling.tasks.model.adapters import merged


def save_pretrained(
    model: nn.Module,
    tokenizer: Tokenizer,
    folder: Path,
    config: Mapping[str, Any],
    *,
    max_length: int,
    is_classifier: bool,
) -> None:
    """Write a model and its tokenizer into a folder.

    Args:
        model: A transformers model, whole; adapters are merged into a copy of it.
        tokenizer: One of characters, or of a source's own units, becomes a fast tokenizer.
        folder: Empty.
        config: What the model's configuration is to say besides, as the names of labels.
        max_length: Tokens of an example.
        is_classifier: Whether the model reads a text after a separator, as `classifier_ids` has it.
    """
    whole: Any = merged(model)
    before = {name: getattr(whole.config, name, None) for name in config}
    whole.config.update(dict(config))
    whole.save_pretrained(folder)
    whole.config.update(before)
    match tokenizer:
        case TrainedTokenizer():
            saved = tokenizer.tokenizer
        case UnitTokenizer():
            saved = _fast(tokenizer, max_length, is_classifier=is_classifier)
        case _:
            assert_never(tokenizer)
    saved.save_pretrained(folder)


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write a module's weights as `weights.pt`, which torch.load reads with weights_only."""
    torch.save(model.state_dict(), folder / "weights.pt")


def label_names(names: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a configuration that say which output is which label; none without labels."""
    if not names:
        return {}
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def _fast(tokenizer: UnitTokenizer, max_length: int, *, is_classifier: bool) -> Any:
    from tokenizers import Regex, decoders, models, pre_tokenizers, processors
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    backend = Backend(models.WordLevel(tokenizer.ids, unk_token=UNKNOWN))
    if tokenizer.joint:
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
    if is_classifier:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{SEPARATOR} $A",
            pair=f"{SEPARATOR} $A {SEPARATOR} $B",
            special_tokens=[(SEPARATOR, tokenizer.ids[SEPARATOR])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, sep_token=SEPARATOR,
        unk_token=UNKNOWN, model_max_length=max_length, clean_up_tokenization_spaces=False,
    )  # fmt: skip
