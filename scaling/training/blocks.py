"""What is done to each Transformer block of a model before it is trained."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from scaling.tasks.model.layers import recomputing_part, transformer_blocks

MOST_GRAPHS = 64


def prepare_blocks(model: nn.Module, *, recomputes: bool, compiles: bool) -> None:
    """Let blocks recompute their activations, and compile them; neither changes a result.

    Raises:
        ValueError: If the model cannot recompute its activations.
    """
    if recomputes:
        _recompute_activations(model)
    if compiles:
        # Blocks are alike, so that one is compiled for all of them, and for later trials too.
        # Lengths differ from batch to batch. A process keeps eight graphs of them, by default, and
        # runs what comes after uncompiled: a ladder has several of each of its sizes.
        torch._dynamo.config.recompile_limit = MOST_GRAPHS  # pyright: ignore[reportPrivateUsage]
        for block in transformer_blocks(model) or [model]:
            block.compile(dynamic=True)


def without_compiling(compiles: bool) -> AbstractContextManager[object]:
    """Blocks that are compiled run as they are written, inside the context.

    Hooks that measure a layer would cut their graphs, and a compiled backward pass has no
    derivative of its own.

    Args:
        compiles: Whether any are compiled; else nothing of the compiler is loaded.
    """
    return torch.compiler.set_stance("force_eager") if compiles else nullcontext()


def _recompute_activations(model: nn.Module) -> None:
    """Keep a block's input alone and compute the rest again in backward.

    Source: Chen et al. 2016 (arXiv:1604.06174).
    """
    part: Any = recomputing_part(model)
    if part is None:
        raise ValueError(f"{type(model).__name__} cannot recompute activations")
    part.config.use_cache = False
    options = {"use_reentrant": False}
    if hasattr(part, "activation_checkpointing_enable"):
        part.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # the older name
        part.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
