"""Muon for hidden matrices, and AdamW for all other weights."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scaling.optimizers.tensors import cut_as, decay_groups, trained_weights, whole, with_gradients


def build(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> torch.optim.Optimizer:
    """Muon and AdamW for a model's trained weights; weight decay is decoupled.

    Raises:
        ValueError: If the model has no hidden matrix.
    """
    hidden = hidden_matrices(model)
    if not hidden:
        raise ValueError("optimizer muon: the model has no hidden matrix to train")
    known = {id(parameter) for parameter in hidden}
    others = [parameter for parameter in trained_weights(model) if id(parameter) not in known]
    return MuonWithAdamW(
        decay_groups(hidden, weight_decay), decay_groups(others, weight_decay),
        lr=lr, momentum=momentum, betas=(beta1, beta2), eps=eps,
    )  # fmt: skip


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon for the hidden matrices and its AdamW for all else, as one optimizer.

    Both go by one learning rate: Muon's step is scaled to the root mean square of AdamW's. Of a
    matrix that is cut among workers each makes the whole step and takes its part.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); the scale, Liu et al. 2025
        (arXiv:2502.16982) sec. 2.2.
    """

    def __init__(
        self,
        hidden: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                hidden, lr=lr, momentum=momentum, nesterov=True, adjust_lr_fn="match_rms_adamw"
            )
        ]
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        # The groups and the state are this object's, so that it is saved, loaded and set as one.
        for part in self._parts:
            is_muon = isinstance(part, torch.optim.Muon)
            part.state = self.state
            groups = [g for g in self.param_groups if ("ns_steps" in g) == is_muon]
            part.param_groups = [g for g in groups if not (is_muon and _is_cut(g))]
            part.step()
            for group in groups:
                if is_muon and _is_cut(group):
                    self._step_of_parts(group)

    @torch.no_grad()
    def _step_of_parts(self, group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        for weight, gradient in with_gradients(group):
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            direction = whole(gradient.lerp(mean, momentum))  # Nesterov's
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(cut_as(weight, _muon_step(direction, group["lr"])))


def _is_cut(group: dict[str, Any]) -> bool:
    """Whether a group's weights are parts; they all are, or none."""
    return isinstance(group["params"][0], DTensor)


def _muon_step(direction: Tensor, lr: float) -> Tensor:
    """What torch's Muon adds to a whole matrix, but for momentum and decay."""
    start = nn.Parameter(torch.zeros_like(direction))
    start.grad = direction
    alone = torch.optim.Muon(
        [start], lr=lr, momentum=0.0, nesterov=False, weight_decay=0.0,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    alone.step()
    return start.detach()


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained matrices that Muon is for: all but the embeddings' and the head's.

    Of a module of the user's own nothing says which matrix is the head: it is among these.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    # transformers keeps the head beside the body, which it calls base_model.
    body = cast("nn.Module", getattr(model, "base_model", model))
    return [
        parameter
        for parameter in body.parameters()
        if parameter.requires_grad and parameter.ndim == 2 and id(parameter) not in embeddings
    ]
