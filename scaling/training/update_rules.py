"""Optimizers that torch does not have, or has with a schedule or scope of their own.

Each is the algorithm of its paper with the learning rate left to the trial's schedule. Trust
ratios are per tensor. Where workers hold whole tensors nothing is exchanged beyond the gradient
itself. Where they hold parts of them (fsdp, tp), LAMB and LARS add up the parts' squared norms,
Adafactor the means of rows and columns, and Muon gathers one matrix's momentum at a time.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from scaling.training.parallel.sharding import whole

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]

LARS_TRUST_COEFFICIENT = 0.001
"""The paper's η; as it only multiplies the rate, it is no hyperparameter of its own."""
ADAFACTOR_EPS = (1e-30, 1e-3)
"""The paper's ε₁, added to the squared gradient, and ε₂, the least scale of a tensor."""
ADAFACTOR_DECAY_EXPONENT = 0.8
"""The second moment of step t forgets by 1 − t^−0.8."""


class Lamb(torch.optim.Optimizer):
    """Adam whose step of each matrix is as long as the matrix times the rate.

    With bias correction and φ(z) = z; vectors take Adam's own step, as in the authors' code.

    Source: You et al. 2020 (arXiv:1904.00962) algorithm 2.
    """

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight, gradient in _trained(group):
                state = self.state[weight]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(weight)
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                state["step"] += 1
                count = int(state["step"])
                mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
                square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
                root = (square / (1 - beta2**count)).sqrt_().add_(group["eps"])
                update = (mean / (1 - beta1**count)).div_(root)
                update.add_(weight, alpha=group["weight_decay"])
                if weight.ndim >= 2:
                    update.mul_(_ratio(_norm(weight), _norm(update)))
                weight.add_(update, alpha=-group["lr"])


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose rate for each matrix is η |w| / (|g| + λ |w|) times the global one.

    Vectors take SGD's own step: biases start at 0 and would never move.

    Source: You et al. 2017 (arXiv:1708.03888) eq. 6 and algorithm 1.
    """

    def __init__(
        self, params: Parameters, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weight, gradient in _trained(group):
                update = gradient.add(weight, alpha=decay)
                if weight.ndim >= 2:
                    norms = _norm(weight), _norm(gradient)
                    update.mul_(local_rate(*norms, weight_decay=decay))
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                # The rate is inside the momentum, as in the paper.
                velocity = state["momentum_buffer"]
                velocity.mul_(group["momentum"]).add_(update, alpha=group["lr"])
                weight.sub_(velocity)


def local_rate(weight_norm: Tensor, gradient_norm: Tensor, *, weight_decay: float) -> Tensor:
    """LARS' rate of one tensor, over the global rate: η |w| / (|g| + λ |w|); 1 where |w| = 0.

    Source: You et al. 2017 (arXiv:1708.03888) eq. 6.
    """
    length = gradient_norm + weight_decay * weight_norm
    return _ratio(LARS_TRUST_COEFFICIENT * weight_norm, length)


class Lion(torch.optim.Optimizer):
    """The sign of an interpolation between momentum and gradient; decoupled weight decay.

    Source: Chen et al. 2023 (arXiv:2302.06675) algorithm 2.
    """

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight, gradient in _trained(group):
                state = self.state[weight]
                if not state:
                    state["exp_avg"] = torch.zeros_like(weight)
                mean = state["exp_avg"]
                update = mean.lerp(gradient, 1 - beta1).sign_()
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"])
                mean.lerp_(gradient, 1 - beta2)


class Adafactor(torch.optim.Optimizer):
    """Adam's scaling from row and column means of the squared gradient, without momentum.

    A tensor moves by lr × its root mean square (at least ε₂). The rate is the schedule's, not
    capped at 1 / √t as torch.optim.Adafactor does, which would be a schedule within the schedule;
    up to that cap the two agree. Weight decay is decoupled, lr × decay.

    Source: Shazeer & Stern 2018 (arXiv:1804.04235) algorithms 4 and 5.
    """

    def __init__(self, params: Parameters, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            for weight, gradient in _trained(group):
                state = self.state[weight]
                if not state:
                    state["step"] = torch.tensor(0.0)
                state["step"] += 1
                forgets = float(state["step"]) ** -ADAFACTOR_DECAY_EXPONENT
                square = gradient.square().add_(ADAFACTOR_EPS[0])
                update = gradient / _second_moment(state, square, forgets).sqrt()
                update.div_(_root_mean_square(update).clamp(min=1.0))  # the paper's d = 1
                scale = _root_mean_square(weight).clamp(min=ADAFACTOR_EPS[1])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update.mul_(group["lr"] * scale))


def _second_moment(state: dict[str, Any], square: Tensor, forgets: float) -> Tensor:
    """The running mean of a tensor's squared gradient; of rows × columns where it is a matrix."""
    if square.ndim < 2:
        if "exp_avg_sq" not in state:
            state["exp_avg_sq"] = torch.zeros_like(square)
        return state["exp_avg_sq"].lerp_(square, forgets).clone()
    rows, columns = whole(square.mean(-1)), whole(square.mean(-2))
    if "row_mean" not in state:
        state["row_mean"], state["column_mean"] = torch.zeros_like(rows), torch.zeros_like(columns)
    row_mean = state["row_mean"].lerp_(rows, forgets)
    column_mean = state["column_mean"].lerp_(columns, forgets)
    row_share = row_mean / row_mean.mean(-1, keepdim=True)
    return _cut_as(square, row_share.unsqueeze(-1) * column_mean.unsqueeze(-2))


def _root_mean_square(tensor: Tensor) -> Tensor:
    return _norm(tensor) / tensor.numel() ** 0.5


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
        for weight, gradient in _trained(group):
            state = self.state[weight]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            direction = whole(gradient.lerp(mean, momentum))  # Nesterov's
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(_cut_as(weight, _muon_step(direction, group["lr"])))


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
    """The trained matrices that Muon is for: all but the embeddings' and the head's."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    # transformers keeps the head beside the body, which it calls base_model.
    body = cast("nn.Module", getattr(model, "base_model", model))
    return [
        parameter
        for parameter in body.parameters()
        if parameter.requires_grad and parameter.ndim == 2 and id(parameter) not in embeddings
    ]


def _trained(group: dict[str, Any]) -> Iterable[tuple[nn.Parameter, Tensor]]:
    """A group's weights with their gradients."""
    return [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]


def _norm(tensor: Tensor) -> Tensor:
    """The length of a tensor, of which this worker may hold a part; shape []."""
    return whole(tensor.norm())


def _cut_as(like: Tensor, value: Tensor) -> Tensor:
    """This worker's part of a tensor that every worker has, where `like` is cut."""
    if not isinstance(like, DTensor):
        return value
    everywhere = [Replicate()] * like.device_mesh.ndim
    held = DTensor.from_local(value, like.device_mesh, everywhere, run_check=False)
    return held.redistribute(placements=like.placements)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio; 1 where one of them is 0, so that a tensor of zeros can start to move."""
    usable = (numerator > 0) & (denominator > 0)
    return torch.where(usable, numerator / denominator, 1.0)
