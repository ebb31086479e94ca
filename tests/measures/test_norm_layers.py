"""Per-example gradients of normalization layers, against backward passes one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from scaling.measures.noise_scale import estimate_noise_by_example
from scaling.measures.norm_layers import NormLayers, noise_of_sums
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, part_of_speech, pronunciation, quadratic, recipe


def test_known_answer() -> None:
    # Gradients 1 and 3 of examples with 1 target each: G = 2, variance 2.
    even = estimate_noise_by_example(
        mean_sq_norm=5.0, mean_sq_weight=1.0, whole_sq_norm=4.0, weighted_product=4.0,
        num_examples=2, num_train=None,
    )  # fmt: skip
    assert (even.covariance_trace, even.sq_norm) == (2.0, 3.0)
    # Gradients 1 and 3 of examples with 1 and 3 targets are the same per target: no spread.
    uneven = estimate_noise_by_example(
        mean_sq_norm=(0.25 + 2.25) / 2, mean_sq_weight=(0.25 + 2.25) / 2, whole_sq_norm=1.0,
        weighted_product=(0.25 + 2.25) / 2, num_examples=2, num_train=None,
    )  # fmt: skip
    assert (uneven.covariance_trace, uneven.sq_norm) == (0.0, 1.0)


class _StrictNorm(nn.LayerNorm):
    """As on a GPU, where a layer takes no input of another precision outside autocast."""

    def forward(self, input: Tensor) -> Tensor:  # as torch names it
        if not torch.is_autocast_enabled("cpu") and input.dtype != self.weight.dtype:
            raise RuntimeError(f"expected scalar type {self.weight.dtype} but found {input.dtype}")
        return super().forward(input)


def test_inputs_in_16_bits_are_normalized_in_32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), _StrictNorm(6))
    layers, x = NormLayers(model), torch.randn(5, 6)
    layers.start()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x).float().square().sum()
    loss.backward()
    layers.end_part(np.ones(5))
    squares, _, *sums = layers.stop()
    assert squares > 0
    weight = model[1].weight.grad
    assert weight is not None
    np.testing.assert_allclose(sums[:6], weight.numpy(), rtol=5e-3)  # that is of 8 bits


class _Stack(nn.Module):
    """A layer, a position-wise map and the same layer again: its gradients add up."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.map = nn.Linear(6, 6, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.map(self.layer(x)))).square().flatten(1).sum(1)


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(6), nn.LayerNorm(6, bias=False), nn.RMSNorm(6), LlamaRMSNorm(6), GemmaRMSNorm(6)],
    ids=repr,
)
@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (5, 2, 3, 6)])
def test_gradients_are_those_of_single_examples(layer: nn.Module, shape: Any) -> None:
    torch.manual_seed(0)
    layer = layer.double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    model, x = _Stack(layer), torch.randn(shape, dtype=torch.float64)
    norms = NormLayers(model)
    assert norms.layers == [layer]
    norms.start()
    model(x).sum().backward()
    norms.end_part(np.arange(1, 6))
    sums = norms.stop()
    single = []
    for example in x:
        model.zero_grad()
        model(example[None]).sum().backward()
        single.append(torch.cat([p.grad for p in layer.parameters()]))  # type: ignore[misc]
    g = torch.stack(single).numpy()
    n = np.arange(1, 6)
    expected = np.concatenate([[(g**2).sum(), (n**2).sum()], g.sum(0), n @ g])
    if isinstance(layer, LlamaRMSNorm | GemmaRMSNorm):  # they normalize in float32
        np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_allclose(sums, expected, rtol=1e-10)


def test_nothing_is_recorded_unasked_nor_of_a_batch_norm() -> None:
    norms = NormLayers(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 6)))
    norms.start()
    assert not norms.is_recording
    norms = NormLayers(_Stack(nn.LayerNorm(6).double()))
    assert not norms.is_recording
    assert len(norms.stop()) == 0


def test_rows_that_are_not_examples_give_nothing() -> None:
    model = _Stack(nn.LayerNorm(6).double())
    norms = NormLayers(model)
    norms.start()
    model(torch.randn(6, 6, dtype=torch.float64)).sum().backward()
    norms.end_part(np.ones(3, dtype=np.int64))
    assert len(norms.stop()) == 0


def exact(task: Task, model: nn.Module) -> tuple[float, float]:
    """|G|² and tr Σ of the normalization layers over the whole train set."""
    layers = NormLayers(model).layers
    gradients, targets = [], []
    for number in range(task.num_train or 0):
        model.zero_grad()
        indices = np.array([number])
        task.loss_sum(model, task.collate(indices, 0)).backward()
        own = [p.grad for layer in layers for p in layer.parameters()]
        gradients.append(torch.cat(own).double().numpy())  # type: ignore[arg-type]
        targets.append(task.num_targets(indices))
    g, n = np.stack(gradients), np.array(targets)[:, None]
    mean = g.sum(0) / n.sum()
    residuals = (g - n * mean) / n.mean()
    return float(mean @ mean), float((residuals**2).sum() / (len(n) - 1))


@pytest.mark.parametrize("workload", [pronunciation(32), part_of_speech(32)], ids=lambda w: w.task)
@pytest.mark.parametrize("micro_batch_size", [32, 8, 1])
def test_the_whole_train_set_as_one_batch_gives_the_exact_noise(
    workload: Any, micro_batch_size: int
) -> None:
    task = prepare_task(workload, EVALUATION)
    model = task.new_model(0).double()
    split = recipe(32, 1e-3, 1, micro_batch_size=micro_batch_size)
    gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
    noise = gradient(np.arange(32), measure_noise=True).norm_layer_noise
    assert noise is not None
    model.zero_grad()
    sq_norm, trace = exact(task, model)
    assert noise.sq_norm == pytest.approx(sq_norm, rel=1e-4)
    assert noise.covariance_trace == pytest.approx(trace, rel=1e-4)


def test_scale_of_the_loss_does_not_matter() -> None:
    # Recorded 1 and 3, of losses divided by 2 targets: gradients 2 and 6.
    sums = np.array([10.0, 2.0, 4.0, 4.0])
    once = noise_of_sums(sums, num_examples=2, num_targets=2, gradient_scale=1, num_train=None)
    halved = sums * np.array([0.25, 1.0, 0.5, 0.5])
    half = noise_of_sums(halved, num_examples=2, num_targets=2, gradient_scale=0.5, num_train=None)
    assert half == once
    assert (once.covariance_trace, once.sq_norm) == (8.0, 12.0)


def test_a_model_without_such_layers_has_no_proxy() -> None:
    task = prepare_task(quadratic(num_chains=3), EVALUATION)
    model = task.new_model(0)
    how = recipe(4, 1e-3, 1)
    gradient = GradientOfBatch(task, parallelize(model, how, Workers()), how)
    step = gradient(np.arange(4), measure_noise=True)
    assert step.noise is not None
    assert step.norm_layer_noise is None


def test_a_layer_whose_input_is_changed_after_it_is_left_out() -> None:
    """A layer that computes in float32 keeps a copy of its own, so the model trains."""

    class FloatNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x_bd: Tensor) -> Tensor:
            wide_bd = x_bd.float()
            scale_b1 = torch.rsqrt(wide_bd.square().mean(-1, keepdim=True) + 1e-6)
            return (self.weight * (wide_bd * scale_b1)).to(x_bd.dtype)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = FloatNorm(), nn.Linear(8, 8)

        def forward(self, x_bd: Tensor) -> Tensor:
            hidden_bd = self.linear(x_bd)
            hidden_bd += self.linear(self.norm(hidden_bd))
            return hidden_bd

    model = Residual()
    layers = NormLayers(model)
    layers.start()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(4, 8)).float().square().sum()
    loss.backward()
    assert model.norm.weight.grad is not None
    layers.end_part(np.ones(4))
    assert len(layers.stop()) == 0
