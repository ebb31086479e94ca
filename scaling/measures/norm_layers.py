"""The noise scale of the normalization layers' parameters alone, a cheap proxy of the whole one.

Their per-example gradients come out of the ordinary backward pass: a scale's is the sum over an
example's positions of normalized input × gradient of the output, a shift's that of the gradient.

Source: Gray et al. 2024 (arXiv:2411.00999) sec. 3, algorithm 1; that it follows the noise scale of
all parameters up to a factor is their observation (sec. 4), not a theorem.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from scaling.measures.noise_scale import NoiseEstimate, estimate_noise_by_example


class NormLayers:
    """Records per-example gradients of a model's normalization layers, by hooks.

    Attributes:
        layers: The modules with a trained scale along the last dimension.
    """

    def __init__(self, model: nn.Module, *, keeps_inputs: bool = False) -> None:
        """Find a model's layers.

        Args:
            model: That is trained.
            keeps_inputs: Whether to hold the layers' inputs until they are asked for, though blocks
                recompute: where weights are cut, those of a block are not there yet by then.
        """
        self._keeps_inputs = keeps_inputs
        self.layers = [module for module in model.modules() if _is_norm_layer(module)]
        self._wanted = False
        self._by_example: dict[nn.Module, Tensor] = {}  # [b, d] of the part in hand
        self._sums: Tensor | None = None
        self._fits = True
        self._unscaled = {layer: _unscaled(layer) for layer in self.layers}
        self._hooks: list[RemovableHandle] = []

    def start(self) -> None:
        """Record the backward passes that follow.

        Layers have hooks until `stop` alone, since a compiler would cut its graph at each of them.
        """
        self._remove_hooks()
        self._wanted, self._fits = bool(self.layers), True
        self._by_example, self._sums = {}, None
        self._hooks = [layer.register_forward_hook(self._after_forward) for layer in self.layers]

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def is_recording(self) -> bool:
        """Whether parts are being recorded."""
        return self._wanted

    def end_part(self, num_targets: NDArray[np.float64]) -> None:
        """Take in the part whose backward pass has just ended; its examples' targets, [b]."""
        recorded = [self._by_example.pop(layer, None) for layer in self.layers]
        fitting = [g for g in recorded if g is not None and len(g) == len(num_targets)]
        if len(fitting) < len(recorded):
            self._fits = False  # a layer's rows are not the examples, or it was not used
            return
        gradients_bd = torch.cat(fitting, 1).double()
        targets_b = torch.from_numpy(num_targets).to(gradients_bd, non_blocking=True)
        squares = torch.stack([gradients_bd.square().sum(), targets_b.square().sum()])
        sums = torch.cat([squares, gradients_bd.sum(0), targets_b @ gradients_bd])
        self._sums = sums if self._sums is None else self._sums + sums

    def stop(self) -> NDArray[np.float64]:
        """Sums over the examples since `start`, for `noise_of_sums`; empty where there are none.

        Returns:
            [2 + 2d] Σ |g|², Σ n², then Σ g [d] and Σ n g [d], where g is an example's gradient as
            it was recorded and n its targets. Those of several workers add up.
        """
        self._wanted = False
        self._by_example = {}
        self._remove_hooks()
        if not self._fits or self._sums is None:
            return np.zeros(0)
        return self._sums.cpu().numpy()  # read once, however many parts there were

    def _after_forward(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self._wanted and inputs and output.requires_grad:
            value = inputs[0].detach()
            read = (lambda: value) if self._keeps_inputs else _reader_of_saved(value)
            output.register_hook(lambda gradient: self._record(layer, read, gradient))

    def _record(self, layer: nn.Module, read: Callable[[], Tensor], gradient: Tensor) -> None:
        """Add a call of a layer; its output's gradient is [b, …, d]."""
        try:
            value = read()
        except RuntimeError as error:
            if "inplace operation" not in str(error):
                raise
            return  # its input is no longer what it was
        gradient = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32))
        with torch.no_grad():
            # Outside autocast a layer takes no input of another precision than its weights.
            normalized = self._unscaled[layer](value.to(gradient.dtype))
        own = [_over_positions(gradient * normalized)]
        if getattr(layer, "bias", None) is not None:
            own.append(_over_positions(gradient))
        own_bd = torch.cat(own, 1)
        before = self._by_example.get(layer)
        self._by_example[layer] = own_bd if before is None else before + own_bd


class _Saved(torch.autograd.Function):
    """Keeps a tensor for the backward pass as autograd does: blocks that recompute drop it."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(value)
        return anchor.clone()


def _reader_of_saved(value: Tensor) -> Callable[[], Tensor]:
    """Gives the tensor in the backward pass, once."""
    anchor = torch.zeros((), requires_grad=True)
    node: Any = _Saved.apply(anchor, value).grad_fn
    return lambda: node.saved_tensors[0]


def _is_norm_layer(module: nn.Module) -> bool:
    """A module whose own trained parameters are a scale, and perhaps a shift, of its last axis."""
    own = dict(module.named_parameters(recurse=False))
    return (
        "Norm" in type(module).__name__
        and "weight" in own
        and own.keys() <= {"weight", "bias"}
        and all(parameter.ndim == 1 and parameter.requires_grad for parameter in own.values())
        and not any(True for _ in module.buffers())  # a batch norm mixes examples
        and not isinstance(module, nn.GroupNorm | _NormBase)  # their scale is of channels
        and _is_of_last_axis(module, own["weight"])
    )


@torch.no_grad()
def _is_of_last_axis(module: nn.Module, weight: Tensor) -> bool:
    """Whether a module takes vectors along its last axis, of as many numbers as it has weights."""
    try:
        plain = _unscaled(module)  # the weights themselves may be cut among workers
        made = plain(
            torch.arange(2 * len(weight), dtype=weight.dtype, device=weight.device).view(2, -1)
        )
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    return isinstance(made, Tensor) and made.shape == (2, len(weight))


@torch.no_grad()
def _unscaled(layer: nn.Module) -> nn.Module:
    """A copy of a layer that only normalizes, also where its scale is 1 + weight."""
    found = copy.deepcopy(layer)
    for name, own in layer.named_parameters(recurse=False):
        zeros = torch.zeros(own.shape, dtype=own.dtype, device=own.device)
        setattr(found, name, nn.Parameter(zeros, requires_grad=False))
    weight = found.get_parameter("weight")
    if not found(torch.arange(len(weight)).to(weight)[None]).any():
        weight.fill_(1.0)
    return found


def _over_positions(gradient: Tensor) -> Tensor:
    """[b, …, d] summed to [b, d]."""
    return gradient.reshape(len(gradient), -1, gradient.shape[-1]).sum(1)


def noise_of_sums(
    sums: NDArray[np.float64],
    *,
    num_examples: int,
    num_targets: int,
    gradient_scale: float,
    num_train: int | None,
) -> NoiseEstimate:
    """The noise estimate of a global batch from the sums over all its examples.

    Args:
        sums: Of all workers, as `NormLayers.stop` gives them.
        num_examples: Of the global batch.
        num_targets: Of the global batch.
        gradient_scale: What the recorded loss sums were multiplied by before the backward pass,
            × `num_targets`.
        num_train: As for `estimate_noise`.
    """
    sq_norms, sq_targets = sums[:2] / num_examples
    gradients, products = sums[2:].reshape(2, -1) / num_examples
    by_gradient = num_examples / gradient_scale
    by_target = num_examples / num_targets
    mean = gradients * by_gradient
    return estimate_noise_by_example(
        mean_sq_norm=float(sq_norms) * by_gradient**2,
        mean_sq_weight=float(sq_targets) * by_target**2,
        whole_sq_norm=float(mean @ mean),
        weighted_product=float(mean @ products) * by_gradient * by_target,
        num_examples=num_examples,
        num_train=num_train,
    )
