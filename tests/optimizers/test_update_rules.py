"""Optimizers against case 6, against torch's or hand-written steps, and through a checkpoint."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from scaling.optimizers.adafactor import Adafactor
from scaling.optimizers.build import build_optimizer, set_lr
from scaling.optimizers.lars import local_rate
from scaling.optimizers.muon import hidden_matrices
from scaling.tasks.prepare import prepare_task
from tests.recipes import EVALUATION, part_of_speech, pronunciation, recipe

ALL = ["adamw", "sgd", "lamb", "lars", "adafactor", "lion", "muon"]
Array = NDArray[np.float64]


def linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    model = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weight))
        model.bias.copy_(torch.tensor(bias))
    return model


def first_step(optimizer: str, **changes: Any) -> list[float]:
    """Case 6: w = (3, 4), g = (.6, .8), decay .1, rate .01; a bias of 5 has gradient 0."""
    model = linear([[3.0, 4.0]], [5.0])
    how = recipe(1, 0.01, 1, optimizer=optimizer, weight_decay=0.1, **changes).hyperparameters
    built = build_optimizer(model, how)
    model.weight.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    model.bias.grad = torch.zeros(1, dtype=torch.float64)
    built.step()
    assert float(model.bias.detach()) == 5.0  # a vector does not decay
    return model.weight.detach().flatten().tolist()


@pytest.mark.parametrize(
    ("optimizer", "changes", "expected"),
    [
        ("adamw", {}, (2.987, 3.986)),
        ("lamb", {"eps": 1e-6}, (2.965977, 3.963360)),
        # 3 − .01 × .0033333 × (.6 + .3), 4 − .01 × .0033333 × (.8 + .4)
        ("lars", {"momentum": 0.9}, (2.99997, 3.99996)),
        ("sgd", {}, (2.991, 3.988)),
        # (3, 4) × (1 − .001) − .01
        ("lion", {"beta2": 0.99}, (2.987, 3.986)),
        # R = .5, C = (.36, .64), mean R = .5: U = (1, 1); RMS(w) = 5 / √2 scales the rate
        ("adafactor", {}, (2.997 - 0.05 / math.sqrt(2), 3.996 - 0.05 / math.sqrt(2))),
    ],
)
def test_first_step(optimizer: str, changes: dict[str, Any], expected: tuple[float, float]) -> None:
    assert first_step(optimizer, **changes) == pytest.approx(expected, abs=5e-7)


def test_local_rate_of_lars() -> None:
    norms = torch.tensor(5.0), torch.tensor(1.0)
    assert float(local_rate(*norms, weight_decay=0.1)) == pytest.approx(0.0033333, abs=5e-8)
    assert float(local_rate(torch.tensor(0.0), torch.tensor(1.0), weight_decay=0.1)) == 1.0


# --- many steps against a second implementation --------------------------------------------------


class Reference:
    """The papers' updates of one tensor, step by step in numpy, with nothing shared."""

    def __init__(self, how: Any) -> None:
        self.how = how
        self.first: Any = 0.0
        self.second: Any = 0.0

    def step(self, w: Array, g: Array, t: int, lr: float) -> Array:
        how = self.how
        decay = how.weight_decay if w.ndim == 2 else 0.0
        match how.optimizer:
            case "lamb":
                self.first = how.beta1 * self.first + (1 - how.beta1) * g
                self.second = how.beta2 * self.second + (1 - how.beta2) * g**2
                mean = self.first / (1 - how.beta1**t)
                root = np.sqrt(self.second / (1 - how.beta2**t))
                update = mean / (root + how.eps) + decay * w
                ratio = np.sqrt((w**2).sum() / (update**2).sum()) if w.ndim == 2 else 1.0
                return w - lr * ratio * update
            case "lars":
                w_norm, g_norm = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
                local = 0.001 * w_norm / (g_norm + decay * w_norm) if w.ndim == 2 else 1.0
                self.first = how.momentum * self.first + lr * local * (g + decay * w)
                return w - self.first
            case "lion":
                update = np.sign(how.beta1 * self.first + (1 - how.beta1) * g)
                self.first = how.beta2 * self.first + (1 - how.beta2) * g
                return w - lr * (update + decay * w)
            case "adafactor":
                beta2 = 1 - t**-0.8
                square = g**2 + 1e-30
                if w.ndim == 2:
                    # The paper's sums over rows and columns: V = R C / (1ᵀ R).
                    self.first = beta2 * self.first + (1 - beta2) * square.sum(1)
                    self.second = beta2 * self.second + (1 - beta2) * square.sum(0)
                    moment = np.outer(self.first, self.second) / self.first.sum()
                else:
                    self.second = moment = beta2 * self.second + (1 - beta2) * square
                update = g / np.sqrt(moment)
                update /= max(1.0, np.sqrt((update**2).mean()))
                scale = max(1e-3, np.sqrt((w**2).mean()))
                return w - lr * decay * w - lr * scale * update
            case _:
                raise AssertionError


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("lamb", {"beta2": 0.95, "eps": 1e-6}),
        ("lars", {"momentum": 0.9, "peak_lr": 2.0}),
        ("lion", {"beta2": 0.99}),
        ("adafactor", {"peak_lr": 0.9}),  # far above torch's cap of 1 / √t
    ],
)
def test_twenty_steps_equal_the_papers_written_out(optimizer: str, changes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    model = linear(rng.normal(size=(3, 4)).tolist(), rng.normal(size=3).tolist())
    peak = changes.pop("peak_lr", 0.02)
    how = recipe(1, peak, 20, optimizer=optimizer, weight_decay=0.1, **changes).hyperparameters
    built = build_optimizer(model, how)
    expected = [p.detach().numpy().copy() for p in (model.weight, model.bias)]
    references = [Reference(how), Reference(how)]
    for t in range(1, 21):
        lr = peak / t
        gradients = [rng.normal(size=w.shape) for w in expected]
        model.weight.grad, model.bias.grad = map(torch.from_numpy, gradients)
        set_lr(built, lr)
        built.step()
        expected = [
            reference.step(w, g, t, lr)
            for reference, w, g in zip(references, expected, gradients, strict=True)
        ]
    assert model.weight.detach().numpy() == pytest.approx(expected[0], rel=1e-10)
    assert model.bias.detach().numpy() == pytest.approx(expected[1], rel=1e-10)


def test_adafactor_equals_torchs_below_its_cap() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    built = Adafactor([ours], lr=0.01, weight_decay=0.1)
    reference = torch.optim.Adafactor([theirs], lr=0.01, weight_decay=0.1)
    for _ in range(50):
        gradient = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        built.step()
        reference.step()
    assert ours.detach().numpy() == pytest.approx(theirs.detach().numpy(), rel=1e-9)


# --- muon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_muon_is_for_the_hidden_matrices_alone(workload: Any) -> None:
    model = prepare_task(workload, EVALUATION).new_model(0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden = {names[id(parameter)] for parameter in hidden_matrices(model)}
    assert hidden
    left_out = {name for name, p in model.named_parameters() if p.ndim == 2} - hidden
    assert all("embed" in name or "lm_head" in name or "classifier" in name for name in left_out)
    assert not any("embed" in name or "head" in name or "classifier" in name for name in hidden)


def test_muon_steps_like_muon_and_adamw_on_their_own() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.hidden = nn.Embedding(5, 4), nn.Linear(4, 6)

    torch.manual_seed(0)
    together, apart = Model(), Model()
    apart.load_state_dict(together.state_dict())
    how = recipe(
        1, 0.1, 10, optimizer="muon", momentum=0.95, beta2=0.95, weight_decay=0.1
    ).hyperparameters
    built = build_optimizer(together, how)
    muon = torch.optim.Muon(
        [apart.hidden.weight], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW([apart.embedding.weight], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
    bias = torch.optim.AdamW([apart.hidden.bias], lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, 11):
        for ours, theirs in zip(together.parameters(), apart.parameters(), strict=True):
            ours.grad = torch.randn_like(ours)
            theirs.grad = ours.grad.clone()
        for optimizer in (built, muon, adamw, bias):
            set_lr(optimizer, 0.1 / step)
            optimizer.step()
    for ours, theirs in zip(together.parameters(), apart.parameters(), strict=True):
        wanted = pytest.approx(theirs.detach().numpy(), rel=1e-5, abs=1e-7)
        assert ours.detach().numpy() == wanted


def test_muon_moves_a_matrix_by_nearly_orthogonal_steps() -> None:
    # Newton–Schulz brings singular values to 0.5 … 1.5; 0.2 √max(m, n) matches AdamW's size.
    torch.manual_seed(0)
    model = nn.Linear(16, 8, bias=False)
    before = model.weight.detach().clone()
    built = build_optimizer(
        model, recipe(1, 1.0, 1, optimizer="muon", weight_decay=0.0).hyperparameters
    )
    model.weight.grad = torch.randn(8, 16)
    built.step()
    values = torch.linalg.svdvals(before - model.weight.detach()) / (0.2 * math.sqrt(16))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.5


def test_muon_without_a_hidden_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="no hidden matrix"):
        build_optimizer(nn.Embedding(3, 2), recipe(1, 0.1, 1, optimizer="muon").hyperparameters)


# --- all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ALL)
def test_a_loaded_state_goes_on_exactly(optimizer: str) -> None:
    how = recipe(1, 0.01, 10, optimizer=optimizer, momentum=0.9).hyperparameters
    gradients = [torch.randn(6, 4) for _ in range(6)]

    def model() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(4, 6)

    def steps(trained: nn.Linear, built: torch.optim.Optimizer, part: slice) -> None:
        for gradient in gradients[part]:
            trained.weight.grad, trained.bias.grad = gradient.clone(), gradient[:, 0].clone()
            set_lr(built, 0.02)
            built.step()

    whole = model()
    steps(whole, build_optimizer(whole, how), slice(0, 6))
    first = model()
    built = build_optimizer(first, how)
    steps(first, built, slice(0, 3))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": built.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second = model()
    second.load_state_dict(state["model"])
    again = build_optimizer(second, how)
    again.load_state_dict(state["optimizer"])
    steps(second, again, slice(3, 6))
    assert torch.equal(second.weight, whole.weight)
    assert torch.equal(second.bias, whole.bias)


@pytest.mark.parametrize("optimizer", ALL)
def test_an_embedding_decays_and_a_bias_does_not(optimizer: str) -> None:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
    decays = {
        id(parameter): group["weight_decay"]
        for group in build_optimizer(
            model, recipe(1, 0.1, 1, optimizer=optimizer).hyperparameters
        ).param_groups
        for parameter in group["params"]
    }
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.01, "1.weight": 0.01, "1.bias": 0.0,
    }  # fmt: skip


def test_nesterov_looks_ahead() -> None:
    # m = .5: first step g + .5 g, second step .5 × 1 + 1 = 1.5 in momentum, 1 + .75 in all.
    model = linear([[0.0]], [0.0])
    how = recipe(
        1, 1.0, 2, optimizer="sgd", momentum=0.5, nesterov=True, weight_decay=0.0
    ).hyperparameters
    built = build_optimizer(model, how)
    for expected in (-1.5, -3.25):
        model.weight.grad = torch.ones(1, 1, dtype=torch.float64)
        built.step()
        assert float(model.weight.detach()) == pytest.approx(expected)
