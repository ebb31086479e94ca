"""The repeated layers of a model, and how its matrices are cut among workers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import nn

from scaling.tasks.errors import DataError


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of a transformers model, in order; none for another module."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [block for block in model.modules() if isinstance(block, GradientCheckpointingLayer)]


def recomputing_part(model: nn.Module) -> nn.Module | None:
    """The part of a model that can recompute its blocks' activations, as transformers' models can.

    None where there is no such part.
    """
    parts = (m for m in model.modules() if getattr(m, "supports_gradient_checkpointing", False))
    return next(parts, None)


@contextmanager
def one_document_each() -> Iterator[None]:
    """In forwards inside the context no example holds several documents, and nobody looks.

    Each forward of a decoder in transformers reads back from the device whether positions start
    again within an example, for which the host waits until the GPU has come so far.
    """
    from transformers import masking_utils

    masks: Any = masking_utils
    before = masks.find_packed_sequence_indices
    masks.find_packed_sequence_indices = lambda _: None
    try:
        yield
    finally:
        masks.find_packed_sequence_indices = before


Cut = Literal["colwise", "rowwise"]


def matrices_to_cut(model: nn.Module, num_workers: int) -> dict[str, Cut]:
    """How transformers' plan for this architecture cuts its blocks among workers.

    Embeddings and the head are in some plans too and are left whole here.

    Returns:
        Names of linear layers: `colwise`, each worker computes its share of the outputs;
        `rowwise`, each takes its share of the inputs and the results are summed.

    Raises:
        DataError: If there is no plan, it has a style that is not followed here, heads or widths
            cannot be cut into equal parts, or something is dropped within them.
    """
    plan: dict[str, str] = getattr(model, "tp_plan", None) or {}
    blocks = {id(module) for block in transformer_blocks(model) for module in block.modules()}
    cuts: dict[str, Cut] = {}
    for name, module in model.named_modules():
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is None or id(module) not in blocks:
            continue
        if style not in ("colwise", "rowwise") or not isinstance(module, nn.Linear):
            what = f"{name}, a {type(module).__name__}, is {style}"
            raise DataError("resources.strategy", f"tp cannot follow this model's plan: {what}")
        cuts[name] = style
    if not cuts:
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise DataError(
            "resources.strategy", f"tp needs a plan, and transformers has none of {kind}"
        )
    _require_equal_parts(model, cuts, num_workers)
    _require_no_masks(model)
    return cuts


def _require_no_masks(model: nn.Module) -> None:
    """Check that nothing is dropped of what is cut.

    All workers draw the same numbers, as what follows a cut region must be dropped alike.
    """
    for name, value in vars(model.config).items():
        is_dropout = "dropout" in name or name.endswith("pdrop")
        is_inside = any(part in name for part in ("attention", "attn", "activation"))
        if is_dropout and is_inside and isinstance(value, float) and value > 0:
            raise DataError(
                "resources.strategy",
                f"tp would repeat the masks of the model's {name} ({value}) over its parts "
                "(allowed: ddp, fsdp)",
            )


def _require_equal_parts(model: nn.Module, cuts: dict[str, Cut], num_workers: int) -> None:
    config: Any = model.config
    for option in ("num_attention_heads", "num_key_value_heads"):
        count = getattr(config, option, None)
        if count is not None and count % num_workers:
            raise DataError(
                "resources.num_workers",
                f"strategy tp cannot cut the model's {option} ({count}) into {num_workers} parts",
            )
    for name, cut in cuts.items():
        weight: Any = model.get_submodule(name).weight
        size = weight.shape[0 if cut == "colwise" else 1]
        if size % num_workers:
            raise DataError(
                "resources.num_workers",
                f"strategy tp cannot cut {name} ({size} wide) into {num_workers} parts",
            )
