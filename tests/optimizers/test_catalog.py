"""The table of optimizers says what the files beside it do."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

import scaling.optimizers
from scaling.optimizers.build import build_optimizer
from scaling.optimizers.catalog import OPTIMIZERS, num_moments
from tests.recipes import recipe

ALWAYS = {"model", "lr", "weight_decay"}
NAMES = sorted(OPTIMIZERS.keys() - {"module"})  # that is whatever a module configures


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_is_built_from_what_it_reads(name: str) -> None:
    parameters = inspect.signature(import_module(f"scaling.optimizers.{name}").build).parameters
    assert parameters.keys() == ALWAYS | OPTIMIZERS[name].reads.keys()


def test_every_file_of_an_optimizer_is_in_the_table() -> None:
    folder = Path(scaling.optimizers.__path__[0])
    files = {path.stem for path in folder.glob("*.py")}
    assert files - {"__init__", "build", "catalog", "tensors"} == set(OPTIMIZERS)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_moments_are_as_many_as_the_table_says(name: str, momentum: float) -> None:
    model = two_layers()
    optimizer = build_optimizer(
        model, recipe(4, 1e-3, 1, optimizer=name, momentum=momentum).hyperparameters
    )
    model(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    for weight in model.parameters():
        state = optimizer.state[weight].values()
        same_size = sum(isinstance(m, torch.Tensor) and m.shape == weight.shape for m in state)
        if name == "adafactor" and weight.ndim < 2:
            assert same_size == 1  # of a vector there are no rows and columns
        else:
            expected = num_moments(name, has_momentum=momentum > 0)
            assert same_size == expected or (name == "muon" and same_size == 1)


@pytest.mark.parametrize("name", NAMES)
def test_an_elementwise_step_is_the_same_for_a_part_of_the_weights(name: str) -> None:
    """Halves of a matrix that are trained apart end where the whole one does."""
    torch.manual_seed(1)
    start, gradients = torch.randn(6, 4), torch.randn(3, 6, 4)

    def trained(rows: slice) -> torch.Tensor:
        model = nn.Linear(4, 6, bias=False)
        model.weight = nn.Parameter(start[rows].clone())
        optimizer = build_optimizer(
            model, recipe(4, 0.1, 1, optimizer=name, weight_decay=0.1).hyperparameters
        )
        for gradient in gradients:
            model.weight.grad = gradient[rows].clone()
            optimizer.step()
        return model.weight.detach()

    halves = torch.cat([trained(slice(0, 3)), trained(slice(3, 6))])
    is_same = torch.allclose(halves, trained(slice(0, 6)), rtol=1e-6, atol=1e-7)
    assert is_same == OPTIMIZERS[name].is_elementwise


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_rule_follows_from_how_a_step_grows_with_the_gradient(name: str) -> None:
    """A gradient ten times as large moves the weights ten times as far only where it is linear."""

    def moved(factor: float) -> float:
        model = two_layers()
        before = [weight.detach().clone() for weight in model.parameters()]
        optimizer = build_optimizer(
            model, recipe(4, 1e-3, 1, optimizer=name, weight_decay=0.0).hyperparameters
        )
        for weight in model.parameters():
            weight.grad = factor * torch.ones_like(weight)
        optimizer.step()
        after = model[0].bias if isinstance(model, nn.Sequential) else None
        assert after is not None
        return float((after.detach() - before[1]).norm())

    grows = moved(10.0) / moved(1.0)
    assert (grows > 5) == (OPTIMIZERS[name].usual_lr_rule == "linear")
