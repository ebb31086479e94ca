"""How far a split global batch is from the unsplit one: errors of gradients and updates.

`python -m tests.training.exactness > docs/exactness.md` writes the table anew.
"""

import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn

from scaling.spec import Strategy, Workload
from scaling.tasks.task import Task, prepare_task
from scaling.training.gradient import GradientOfBatch
from scaling.training.optimizers import build_optimizer
from scaling.training.parallel import Workers, data_parallel
from scaling.training.sharding import whole
from tests.recipes import (
    EVALUATION,
    part_of_speech,
    pronunciation,
    python_questions,
    recipe,
    spelling,
    tagging,
)

GLOBAL_BATCH_SIZE = 16
NUM_UPDATES = 3
# Some weights have a true gradient of zero, as the two biases of the span head, to which a softmax
# over places is blind. With 1e-8 AdamW would make full steps of what rounding leaves there.
EPS = 1e-6
FAMILIES: Mapping[str, Workload] = {
    "causal_lm": pronunciation(),
    "text_classification": part_of_speech(),
    "token_classification": tagging(),
    "question_answering": python_questions(),
    "seq2seq": spelling(),
}
"""Without dropout, and with examples of different lengths."""
BOUNDS = {"gradient_float64": 1e-12, "gradient_float32": 1e-6, "weights_float32": 1e-5}


@dataclass(frozen=True)
class Split:
    """One way to cut the global batch."""

    strategy: Strategy
    world_size: int
    micro_batch_size: int

    @property
    def grad_accum_steps(self) -> int:
        return GLOBAL_BATCH_SIZE // self.world_size // self.micro_batch_size


SPLITS = [
    Split(strategy, world_size, micro_batch_size)
    for strategy in get_args(Strategy)
    for world_size in (1, 2)
    for micro_batch_size in (1, 2, 4, 8, 16)
    if world_size * micro_batch_size <= GLOBAL_BATCH_SIZE
]
UNSPLIT = Split("ddp", 1, GLOBAL_BATCH_SIZE)
Vectors = dict[str, Tensor]


def trained(task: Task, split: Split, workers: Workers) -> Vectors:
    """The first batch's gradient in both precisions, the weights after some AdamW updates."""
    single, double = (
        _updates(task, split, workers, dtype) for dtype in (torch.float32, torch.float64)
    )
    return {
        "gradient_float64": next(double)[0],
        "gradient_float32": (first := next(single))[0],
        "weights_float32": [first, *single][-1][1],
    }


def _updates(
    task: Task, split: Split, workers: Workers, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """The gradient of each batch and the weights after its update, as vectors."""
    how = recipe(
        GLOBAL_BATCH_SIZE, 3e-4, NUM_UPDATES, world_size=split.world_size,
        micro_batch_size=split.micro_batch_size, strategy=split.strategy, eps=EPS,
    )  # fmt: skip
    model = task.new_model(0).to(dtype)
    wrapped, local_norm = data_parallel(model, workers, split.strategy)
    gradient = GradientOfBatch(task, model, wrapped, local_norm, how, workers)
    optimizer = build_optimizer(model, how)
    for step in range(NUM_UPDATES):
        optimizer.zero_grad()
        batch = np.arange(step * GLOBAL_BATCH_SIZE, (step + 1) * GLOBAL_BATCH_SIZE)
        gradient(batch, measure_noise=False)
        grads = _vector([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        yield grads, _vector(list(model.parameters()))


def _vector(tensors: list[Tensor] | list[nn.Parameter]) -> Tensor:
    return torch.cat([whole(t.detach(), keeps=True).flatten() for t in tensors])


def _on_two_workers(rank: int, port: int, path: str) -> None:
    """Every split over two gloo workers; the first one saves the vectors."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    vectors = {
        family: _of_splits(prepare_task(workload, EVALUATION), Workers(rank, 2))
        for family, workload in FAMILIES.items()
    }
    if rank == 0:
        torch.save(vectors, path)
    torch.distributed.destroy_process_group()


def _of_splits(task: Task, workers: Workers) -> list[Vectors]:
    splits = [split for split in SPLITS if split.world_size == workers.world_size]
    return [trained(task, split, workers) for split in splits]


def measured_errors(port: int) -> dict[str, dict[Split, dict[str, float]]]:
    """Distance of every split's vectors from the unsplit batch's, over the latter's norm."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "vectors.pt"))
        mp.spawn(_on_two_workers, args=(port, path), nprocs=2)
        on_two: dict[str, list[Vectors]] = torch.load(path)
    return {
        family: _errors(prepare_task(workload, EVALUATION), on_two[family])
        for family, workload in FAMILIES.items()
    }


def _errors(task: Task, on_two: list[Vectors]) -> dict[Split, dict[str, float]]:
    expected = trained(task, UNSPLIT, Workers())
    alone, together = iter(_of_splits(task, Workers())), iter(on_two)
    found: dict[Split, dict[str, float]] = {}
    for split in SPLITS:
        got = next(alone if split.world_size == 1 else together)
        found[split] = {
            name: float((got[name] - vector).norm() / vector.norm())
            for name, vector in expected.items()
        }
    return found


def table(errors: Mapping[str, Mapping[Split, Mapping[str, float]]]) -> str:
    """All errors in Markdown, the largest of each column first."""
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
norm, at a rate of 1e-3). One worker has nothing to share, so there both strategies are the same
computation.

Written by `python -m tests.training.exactness > docs/exactness.md`; held by
`tests/training/test_exactness.py`."""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main() -> None:
    torch.set_num_threads(1)
    print(table(measured_errors(_free_port())))


if __name__ == "__main__":
    main()
