"""FLOPs against counts by hand, and the peak that they are compared with."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from scaling.measures.throughput import flops_per_example, peak_flops_per_second, sheet_peak
from scaling.records.measurement import Measurement
from scaling.spec.evaluation import Evaluation
from scaling.tasks.prepare import prepare_task
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive
from tests.recipes import EVALUATION, part_of_speech, pronunciation, quadratic, recipe


class _Task:
    """Loss of a model's outputs for rows of 5."""

    def collate(self, indices: Any, seed: int) -> dict[str, Tensor]:
        return {"x": torch.ones(len(indices), 5)}

    def loss_sum(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch["x"]).sum()


def test_two_linear_layers() -> None:
    # Forward 2 (5·7 + 7·3) = 112; backward the weights' 112 and the inner input's 2·7·3 = 42.
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False))
    task: Any = _Task()
    assert flops_per_example(task, model, np.arange(4)) == 112 + 112 + 42
    assert all(p.grad is None for p in model.parameters())


def test_counting_computes_nothing_unless_the_model_reads_contents() -> None:
    class Reads(nn.Linear):
        __module__ = "transformers.made_up"
        reads = False

        def forward(self, x: Tensor) -> Tensor:
            fakes.append(isinstance(self.weight, FakeTensor))
            return super().forward(x) * (2.0 if self.reads and x.sum().item() > 0 else 1.0)

    task, fakes, layer = cast("Any", _Task()), list[bool](), Reads(5, 7, bias=False)
    assert flops_per_example(task, layer, np.arange(4)) == 2 * 2 * 5 * 7
    assert fakes == [True]
    layer.reads = True
    assert flops_per_example(task, layer, np.arange(4)) == 2 * 2 * 5 * 7
    assert fakes == [True, True, False]
    Reads.__module__ = "of_the_user"  # it may keep what it was given
    assert flops_per_example(task, layer, np.arange(4)) == 2 * 2 * 5 * 7
    assert fakes == [True, True, False, False]


def test_a_decoder_is_near_six_flops_a_weight_and_position() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    model = task.new_model(0)
    length = task.collate(np.arange(8), 0)["input_ids"].shape[1]
    in_matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2)
    in_matrices -= model.get_input_embeddings().weight.numel()  # type: ignore[operator,union-attr]
    attention = 12 * 1 * length**2 * 16  # one layer of width 16
    expected = 6 * in_matrices * length + attention
    assert flops_per_example(task, model, np.arange(8)) == expected


def test_counting_leaves_the_random_numbers_alone() -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    model = task.new_model(0)
    before = torch.get_rng_state()
    assert flops_per_example(task, model, np.arange(8))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.0),
        ("NVIDIA H100 PCIe", "tf32", 378.0),
        ("NVIDIA H200", "bf16", 989.0),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("NVIDIA A10", "fp32", 31.2),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("NVIDIA A100X of tomorrow", "bf16", None),
        ("AMD Instinct MI300X", "bf16", 1307.4),
        ("AMD Instinct MI400", "bf16", None),
        ("NVIDIA A10G", "bf16", 70.0),
        ("NVIDIA B200", "tf32", 1125.0),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16", 312.0 * 3 / 7),
    ],
)
def test_sheet_peaks(name: str, precision: str, tflops: float | None) -> None:
    expected = None if tflops is None else pytest.approx(tflops * 1e12)
    assert sheet_peak(name, precision) == expected


def test_a_cpu_is_measured_once() -> None:
    peak = peak_flops_per_second(torch.device("cpu"), "fp32")
    assert peak is not None
    assert 1e8 < peak < 1e14
    assert peak_flops_per_second(torch.device("cpu"), "bf16") == peak


def test_utilization_is_what_its_parts_make() -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    measured: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measured.append(measurement)
        return "continue"

    evaluation = Evaluation(every_steps=3, num_examples=20)
    train(task, recipe(16, 1e-3, 3), evaluation, Workers(), report)
    first, last = measured
    assert first.model_flop_utilization is None
    assert last.examples_per_second is not None
    assert last.flops_per_example is not None
    assert last.peak_flops_per_second is not None
    used = last.examples_per_second * last.flops_per_example / last.peak_flops_per_second
    assert last.model_flop_utilization == pytest.approx(used)
    assert 0 < used < 1
    assert last.targets_per_second == pytest.approx(last.examples_per_second)  # one target each
    assert last.tokens_per_second == pytest.approx(
        last.examples_per_second * (last.tokens or 0) / last.examples
    )
    assert last.peak_memory_bytes is None  # on a CPU


def test_what_has_no_matrix_product_has_no_flops() -> None:
    task = prepare_task(quadratic(num_chains=3), EVALUATION)
    assert flops_per_example(task, task.new_model(0), np.arange(8)) is None
