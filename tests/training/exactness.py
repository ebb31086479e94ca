"""How far a split global batch is from the unsplit one: errors of gradients and updates.

`python -m tests.training.exactness > docs/exactness.md` writes the table anew.
"""

import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scaling.spec import Strategy, Workload
from scaling.tasks.model import matrices_to_cut
from scaling.tasks.sources import DataError
from scaling.tasks.task import Task, prepare_task
from scaling.training.gradient import GradientOfBatch
from scaling.training.optimizers import build_optimizer
from scaling.training.parallel import Workers, data_parallel
from scaling.training.tensor_parallel import cut_matrices
from tests.recipes import (
    EVALUATION,
    part_of_speech,
    pronunciation,
    python_questions,
    recipe,
    spelling,
    tagging,
)
from tests.training.adapted import adapted

GLOBAL_BATCH_SIZE = 16
NUM_UPDATES = 3
# Some weights have a true gradient of zero, as the two biases of the span head, to which a softmax
# over places is blind. With 1e-8 AdamW would make full steps of what rounding leaves there.
EPS = 1e-6
BOUNDS = {"gradient_float64": 1e-12, "gradient_float32": 1e-6, "weights_float32": 1e-5}
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {},
    "sgd": {"peak_lr": 0.1, "momentum": 0.9},
    "lamb": {"peak_lr": 1e-2},
    "lars": {"peak_lr": 10.0, "momentum": 0.9},
    "lion": {"beta2": 0.99},
    "adafactor": {"peak_lr": 1e-2},
    "muon": {"momentum": 0.95, "beta2": 0.95},
}
WHOLE = ("adafactor", "muon")
"""Optimizers that fsdp and tp are refused with: they go by a matrix's rows and columns."""
# Muon's orthogonalization is in bfloat16, where a gradient's last bits decide what is rounded up.
OPTIMIZER_BOUNDS = {**dict.fromkeys(OPTIMIZERS, 1e-12), "muon": 1e-5}


def families(folder: str) -> dict[str, Workload]:
    """Without dropout, and with examples of different lengths; trained models are in a folder."""
    return {
        "causal_lm": pronunciation(),
        "text_classification": part_of_speech(),
        "token_classification": tagging(),
        "question_answering": python_questions(),
        "seq2seq": spelling(),
        "causal_lm, LoRA": adapted("causal_lm", f"{folder}/causal_lm"),
        "text_classification, LoRA": adapted("text_classification", f"{folder}/classification"),
    }


@dataclass(frozen=True)
class Split:
    """One way to cut the global batch."""

    strategy: Strategy
    world_size: int
    micro_batch_size: int

    @property
    def grad_accum_steps(self) -> int:
        num_shares = 1 if self.strategy == "tp" else self.world_size
        return GLOBAL_BATCH_SIZE // num_shares // self.micro_batch_size


def splits_of(task: Task) -> list[Split]:
    """Every split of the global batch; under tp where the model has a plan for it."""
    all_splits = [
        Split(strategy, world_size, micro_batch_size)
        for strategy in get_args(Strategy)
        for world_size in (1, 2)
        for micro_batch_size in (1, 2, 4, 8, 16)
    ]
    return [
        split
        for split in all_splits
        if split.grad_accum_steps and (split.strategy != "tp" or _is_cut(task, split.world_size))
    ]


def _is_cut(task: Task, world_size: int) -> bool:
    try:
        return world_size > 1 and bool(matrices_to_cut(task.new_model(0), world_size))
    except DataError:
        return False


UNSPLIT = Split("ddp", 1, GLOBAL_BATCH_SIZE)
Vectors = dict[str, Tensor]


def trained(task: Task, split: Split, workers: Workers) -> Vectors:
    """The first batch's gradient in both precisions, the trained weights after some updates."""
    single, double = (
        _updates(task, split, workers, dtype) for dtype in (torch.float32, torch.float64)
    )
    return {
        "gradient_float64": next(double)[0],
        "gradient_float32": (first := next(single))[0],
        "weights_float32": [first, *single][-1][1],
    }


def weights_by(optimizer: str, task: Task, split: Split, workers: Workers) -> Tensor:
    """The trained weights after some updates by an optimizer, in float64."""
    changes = {"optimizer": optimizer, "weight_decay": 0.1, **OPTIMIZERS[optimizer]}
    return list(_updates(task, split, workers, torch.float64, **changes))[-1][1]


def _updates(
    task: Task, split: Split, workers: Workers, dtype: torch.dtype, **changes: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradient of each batch and the trained weights after its update, as vectors."""
    given: dict[str, Any] = {"peak_lr": 3e-4, "eps": EPS, **changes}
    how = recipe(
        GLOBAL_BATCH_SIZE, given.pop("peak_lr"), NUM_UPDATES, world_size=split.world_size,
        micro_batch_size=split.micro_batch_size, strategy=split.strategy, **given,
    )  # fmt: skip
    model = task.new_model(0).to(dtype)
    data_workers = workers
    if split.strategy == "tp":
        cut_matrices(model, workers)
        data_workers = workers.alone()
    wrapped, local_norm = data_parallel(model, data_workers, split.strategy)
    gradient = GradientOfBatch(task, model, wrapped, local_norm, how, data_workers)
    optimizer = build_optimizer(model, how)
    for step in range(NUM_UPDATES):
        optimizer.zero_grad()
        batch = np.arange(step * GLOBAL_BATCH_SIZE, (step + 1) * GLOBAL_BATCH_SIZE)
        gradient(batch, measure_noise=False)
        grads = _vector([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        yield grads, _vector(gradient.parameters)


def _vector(tensors: list[Tensor] | list[nn.Parameter]) -> Tensor:
    whole = (t.full_tensor() if isinstance(t, DTensor) else t for t in tensors)
    return torch.cat([tensor.detach().flatten() for tensor in whole])


OPTIMIZER_SPLITS = [
    Split("ddp", 1, 2), Split("ddp", 2, 2), Split("fsdp", 2, 2), Split("tp", 2, 2),
]  # fmt: skip


def _of_optimizers(workers: Workers) -> dict[tuple[str, Split], Tensor]:
    """The weights by each optimizer at each of these workers' splits of OPTIMIZER_SPLITS."""
    task = prepare_task(pronunciation(), EVALUATION)
    return {
        (optimizer, split): weights_by(optimizer, task, split, workers)
        for optimizer in OPTIMIZERS
        for split in OPTIMIZER_SPLITS
        if split.world_size == workers.world_size
        and not (split.strategy != "ddp" and optimizer in WHOLE)
    }


def _on_two_workers(rank: int, port: int, folder: str) -> None:
    """Every split over two gloo workers; the first one saves the vectors."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    vectors = {
        family: _of_splits(prepare_task(workload, EVALUATION), Workers(rank, 2))
        for family, workload in families(folder).items()
    }
    by_optimizer = list(_of_optimizers(Workers(rank, 2)).values())
    if rank == 0:
        torch.save({"families": vectors, "optimizers": by_optimizer}, f"{folder}/vectors.pt")
    torch.distributed.destroy_process_group()


def _of_splits(task: Task, workers: Workers) -> list[Vectors]:
    splits = [split for split in splits_of(task) if split.world_size == workers.world_size]
    return [trained(task, split, workers) for split in splits]


@dataclass(frozen=True)
class Errors:
    """Distances of vectors from the unsplit batch's, over the latter's norm.

    Attributes:
        families: By family, split and name of the vector.
        optimizers: Of the weights, by optimizer and split.
    """

    families: Mapping[str, Mapping[Split, Mapping[str, float]]]
    optimizers: Mapping[tuple[str, Split], float]


def measured_errors(port: int) -> Errors:
    """All errors, each vector computed once."""
    with tempfile.TemporaryDirectory() as folder:
        workloads = families(folder)  # fills the folder before the workers read it
        mp.spawn(_on_two_workers, args=(port, folder), nprocs=2)
        on_two = torch.load(f"{folder}/vectors.pt")
        of_families = {
            family: _errors(prepare_task(workload, EVALUATION), on_two["families"][family])
            for family, workload in workloads.items()
        }
    return Errors(of_families, _errors_of_optimizers(on_two["optimizers"]))


def _errors_of_optimizers(on_two: list[Tensor]) -> dict[tuple[str, Split], float]:
    task = prepare_task(pronunciation(), EVALUATION)
    unsplit = {name: weights_by(name, task, UNSPLIT, Workers()) for name in OPTIMIZERS}
    keys = [
        (optimizer, split)
        for optimizer in OPTIMIZERS
        for split in OPTIMIZER_SPLITS
        if split.world_size == 2 and not (split.strategy != "ddp" and optimizer in WHOLE)
    ]
    found = _of_optimizers(Workers()) | dict(zip(keys, on_two, strict=True))
    return {
        (optimizer, split): float((got - unsplit[optimizer]).norm() / unsplit[optimizer].norm())
        for (optimizer, split), got in found.items()
    }


def _errors(task: Task, on_two: list[Vectors]) -> dict[Split, dict[str, float]]:
    expected = trained(task, UNSPLIT, Workers())
    alone, together = iter(_of_splits(task, Workers())), iter(on_two)
    found: dict[Split, dict[str, float]] = {}
    for split in splits_of(task):
        got = next(alone if split.world_size == 1 else together)
        found[split] = {
            name: float((got[name] - vector).norm() / vector.norm())
            for name, vector in expected.items()
        }
    return found


def optimizer_table(errors: Mapping[tuple[str, Split], float]) -> str:
    """The errors of the optimizers in Markdown."""
    names = ["optimizer", "strategy", "workers", "micro-batch", "weights, float64", "allowed"]
    lines = [_OF_OPTIMIZERS, "", _row(names), _row(["---"] * len(names))]
    for (optimizer, split), error in sorted(errors.items(), key=lambda item: item[0][0]):
        sizes = (str(split.world_size), str(split.micro_batch_size))
        bound = f"{OPTIMIZER_BOUNDS[optimizer]:.0e}"
        lines.append(_row([optimizer, split.strategy, *sizes, f"{error:.1e}", bound]))
    return "\n".join(lines)


def table(errors: Mapping[str, Mapping[Split, Mapping[str, float]]]) -> str:
    """The errors of the families in Markdown, the largest of each column first."""
    columns = [name.replace("_", ", ") for name in BOUNDS]
    lines = [_INTRODUCTION, "", _row(["", *columns]), _row(["---"] * (len(columns) + 1))]
    worst = {n: max(e[n] for splits in errors.values() for e in splits.values()) for n in BOUNDS}
    lines.append(_row(["largest", *(f"{worst[n]:.1e}" for n in BOUNDS)]))
    lines.append(_row(["allowed", *(f"{bound:.0e}" for bound in BOUNDS.values())]))
    names = ["family", "strategy", "workers", "micro-batch", "accumulation"]
    lines += ["", _row([*names, *columns]), _row(["---"] * (len(names) + len(columns)))]
    for family, splits in errors.items():
        for split, error in splits.items():
            sizes = (split.world_size, split.micro_batch_size, split.grad_accum_steps)
            found = [f"{error[name]:.1e}" for name in BOUNDS]
            lines.append(_row([family, split.strategy, *map(str, sizes), *found]))
    return "\n".join(lines)


_INTRODUCTION = f"""# Exactness

What changes when a global batch of {GLOBAL_BATCH_SIZE} examples of different lengths is split
into workers × micro-batches × accumulation steps: the distance from the unsplit batch on one
worker, over the whole model's norm. No dropout; gloo on CPU. The gradient is that of the first
batch; the weights are those after {NUM_UPDATES} AdamW updates at a learning rate of 3e-4 with
eps 1e-6: some weights, such as the biases of question answering's span head, have a true gradient
of zero, and with 1e-8 AdamW makes full steps of what rounding leaves there (1.5e-4 of the
norm, at a rate of 1e-3). One worker has nothing to share, so there ddp and fsdp are the same
computation; under tp two workers compute every example together, where the architecture has a
plan. With LoRA, adapters beside the frozen weights of a model from a folder are trained (and a
classifier in full); gradient, weights and norm are theirs.

Written by `python -m tests.training.exactness > docs/exactness.md`; held by
`tests/training/test_exactness.py`."""


_OF_OPTIMIZERS = f"""## Optimizers

The weights of causal_lm after {NUM_UPDATES} updates by each optimizer, in float64, from the same
batches. Muon's orthogonalization is in bfloat16, where a gradient's last bits decide what is
rounded up. fsdp and tp are refused with Adafactor and Muon, which go by the rows and columns of
whole matrices."""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    torch.set_num_threads(1)
    errors = measured_errors(_free_port())
    print(table(errors.families))
    print()
    print(optimizer_table(errors.optimizers))


if __name__ == "__main__":
    main()
