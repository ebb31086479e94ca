"""What is done to each Transformer block of a model before it is trained."""

from typing import Any

from torch import nn

from scaling.tasks.model.layers import transformer_blocks


def prepare_blocks(model: nn.Module, *, recomputes: bool, compiles: bool) -> None:
    """Let blocks recompute their activations, and compile them; neither changes a result.

    Raises:
        ValueError: If the model cannot recompute its activations.
    """
    if recomputes:
        _recompute_activations(model)
    if compiles:
        # Blocks are alike, so that one is compiled for all of them, and for later trials too.
        # Lengths differ from batch to batch.
        for block in transformer_blocks(model) or [model]:
            block.compile(dynamic=True)


def _recompute_activations(model: Any) -> None:
    """Keep a block's input alone and compute the rest again in backward.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ValueError(f"{type(model).__name__} cannot recompute activations")
    model.config.use_cache = False
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # the older name
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
