"""Low-rank adapters beside a trained model's frozen weights, by peft (the extra `lora`)."""

import warnings
from collections.abc import Collection, Mapping
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from scaling.files.shown_error import first_line
from scaling.spec.models import Lora
from scaling.tasks.errors import DataError
from scaling.tasks.extras import require_extra


def add_adapters(
    model: nn.Module, lora: Lora, *, rank: int, new_weights: Collection[str], seed: int
) -> nn.Module:
    """Freeze a model and train a product of two thin matrices beside each targeted layer.

    A layer W x becomes W x + alpha / rank · B A x, with A random and B zero, so that the model
    starts as the trained one. Weights that did not come with it stay as they are trained in full:
    a head drawn at random would be of no use frozen.

    Args:
        model: With trained weights; changed in place.
        lora: Which layers, and the scale and dropout of what is added.
        rank: Columns of B.
        new_weights: Names of the weights that were not trained before.
        seed: Of A.

    Raises:
        DataError: If the extra is not installed, a layer does not exist or cannot be adapted, or
            peft has no usual layers for this architecture.

    Source: Hu et al. 2021 (arXiv:2106.09685) sec. 4.1.
    """
    require_extra("lora", package="peft", path="workload.model.lora")
    from peft import LoraConfig, inject_adapter_in_model

    targets = lora.target_modules
    config = LoraConfig(
        r=rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # multiplies; need not be whole
        lora_dropout=lora.dropout,
        target_modules=targets if targets is None or isinstance(targets, str) else list(targets),
        exclude_modules=sorted({name.rpartition(".")[0] for name in new_weights}) or None,
    )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            # GPT-2's layers hold their weights transposed; peft notices and says so.
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)
            inject_adapter_in_model(config, model)
    except ValueError as error:
        raise DataError(
            "workload.model.lora.target_modules",
            f"cannot be adapted in {type(model).__name__}: {first_line(error)}",
        ) from error
    for name, weight in model.named_parameters():
        if name in new_weights:
            weight.requires_grad_(True)
    return model


def merged(model: nn.Module) -> nn.Module:
    """The model, or where it has adapters, a copy with them added to the weights beside them."""
    if find_spec("peft") is None:
        return model
    from peft.tuners.lora import LoraLayer

    if not any(isinstance(layer, LoraLayer) for layer in model.modules()):
        return model
    copy = deepcopy(model)
    adapted = [name for name, layer in copy.named_modules() if isinstance(layer, LoraLayer)]
    for name in adapted:
        layer: Any = copy.get_submodule(name)
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(copy.get_submodule(parent), child, layer.get_base_layer())
    return copy


def require_ranks(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Check that adapters of these ranks are smaller than what they stand beside.

    Args:
        model: With adapters.
        ranks: By the dotted path that says so.

    Raises:
        DataError: If a rank is that of a whole matrix, or above.
    """
    from peft.tuners.lora import LoraLayer

    sizes = {
        name: min(layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and layer.in_features and layer.out_features
    }
    name = min(sizes, key=lambda name: sizes[name])
    for path, rank in ranks.items():
        if rank >= sizes[name]:
            raise DataError(
                path,
                f"rank {rank} does not fit {name}, whose smaller side is {sizes[name]}; "
                f"allowed: at most {sizes[name] - 1}",
            )
