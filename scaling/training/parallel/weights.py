"""Trained weights that a model and torch's optimizer share, whole or cut by fsdp or tp."""

from typing import Any

from torch import Tensor, nn, optim

from scaling.measures.norm_layers import NormLayers
from scaling.optimizers.tensors import trained_weights
from scaling.training.parallel.sharding import cut_like, own_part, with_first_moments


class TorchWeights:
    """See `scaling.training.parallel.base.Weights`."""

    def __init__(
        self, model: nn.Module, optimizer: optim.Optimizer, *, keeps_inputs: bool = False
    ) -> None:
        """A model's trained weights; `keeps_inputs` as in `NormLayers`."""
        self._model, self.optimizer = model, optimizer
        self.parameters = trained_weights(model)
        self.held = self.parameters  # which know of themselves what is cut
        self.norm_layers = NormLayers(model, keeps_inputs=keeps_inputs)

    def state(self) -> dict[str, Any]:
        """Trained weights, moments, and which weights have some: those that had a gradient."""
        moments = self.optimizer.state_dict()
        return {
            "model": own_part(self._trained_state()),
            "optimizer": own_part(moments),
            "with_moments": sorted(moments["state"]),
        }

    def state_after_first_step(self) -> dict[str, Any]:
        """The same with the moments that every weight would have."""
        return self.state() | {"optimizer": with_first_moments(self.optimizer)}

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` gave, each part where the weight is that it belongs to."""
        held = self._model.state_dict()
        saved: dict[str, Tensor] = state["model"]
        held_weights = {name: cut_like(value, held[name]) for name, value in saved.items()}
        self._model.load_state_dict(held | held_weights)
        self.optimizer.load_state_dict(self._held_moments(state["optimizer"]))

    def _trained_state(self) -> dict[str, Tensor]:
        """The model's state without frozen weights: those are as they were when it was built."""
        frozen = {
            name
            for name, weight in self._model.named_parameters(remove_duplicate=False)
            if not weight.requires_grad
        }
        state = self._model.state_dict()
        return {name: value for name, value in state.items() if name not in frozen}

    def _held_moments(self, saved: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state whose moments lie where their weights do."""
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        state = {
            number: {
                name: cut_like(value, weights[number])
                if isinstance(value, Tensor) and value.shape == own_part(weights[number]).shape
                else value
                for name, value in moments.items()
            }
            for number, moments in saved["state"].items()
        }
        return {**saved, "state": state}
