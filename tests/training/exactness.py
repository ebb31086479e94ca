"""How far a split global batch is from the unsplit one: errors of gradients and updates.

`python -m tests.training.exactness > docs/generated/exactness.md` writes the table anew.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scaling.optimizers.build import build_optimizer
from scaling.records.recipe import Recipe
from scaling.spec.resources import ZERO_STAGES, Strategy
from scaling.spec.workloads import Workload
from scaling.tasks.errors import DataError
from scaling.tasks.model.layers import matrices_to_cut
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Indices, Task
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from tests.pairwise import covering
from tests.recipes import (
    EVALUATION,
    own_sequences,
    part_of_speech,
    pronunciation,
    python_questions,
    recipe,
    spelling,
    tagging,
)
from tests.together import case, on_workers
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
        "custom": own_sequences(),
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
    """Every split of the global batch, where the strategy can: see `_is_measured`."""
    all_splits = [
        Split(strategy, world_size, micro_batch_size)
        for strategy in get_args(Strategy)
        for world_size in (1, 2)
        for micro_batch_size in (1, 2, 4, 8, 16)
    ]
    return [split for split in all_splits if split.grad_accum_steps and _is_measured(task, split)]


def _is_measured(task: Task, split: Split) -> bool:
    """tp where the model has a plan; DeepSpeed, slow to start, with and without accumulation."""
    match split.strategy:
        case "tp":
            return _is_cut(task, split.world_size)
        case "zero1" | "zero2" | "zero3":
            return split.world_size == 2 and split.micro_batch_size in (4, 8)
        case "ddp" | "fsdp":
            return True


def _is_cut(task: Task, world_size: int) -> bool:
    try:
        return world_size > 1 and bool(matrices_to_cut(task.new_model(0), world_size))
    except DataError:
        return False


UNSPLIT = Split("ddp", 1, GLOBAL_BATCH_SIZE)
Vectors = dict[str, Tensor]


def trained(task: Task, split: Split, workers: Workers) -> Vectors:
    """The first batch's gradient in both precisions, the trained weights after some updates.

    DeepSpeed's optimizer has its weights in float32.
    """
    single = list(_updates(task, split, workers, torch.float32))
    vectors = {"gradient_float32": single[0][0], "weights_float32": single[-1][1]}
    if split.strategy not in ZERO_STAGES:
        vectors["gradient_float64"] = next(_updates(task, split, workers, torch.float64))[0]
    return vectors


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
    if split.strategy in ZERO_STAGES:
        yield from _updates_by_zero(task, model, how, workers)
        return
    parallel = parallelize(model, how, workers)
    gradient, optimizer = GradientOfBatch(task, parallel, how), parallel.weights.optimizer
    for batch in _batches():
        optimizer.zero_grad()
        gradient(batch, measure_noise=False)
        grads = _vector([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        yield grads, _vector(gradient.parameters)


def _batches() -> list[Indices]:
    return np.split(np.arange(NUM_UPDATES * GLOBAL_BATCH_SIZE), NUM_UPDATES)


def _updates_by_zero(
    task: Task, model: nn.Module, how: Recipe, workers: Workers
) -> Iterator[tuple[Tensor, Tensor]]:
    optimizer, stage = build_optimizer(model, how.hyperparameters), ZERO_STAGES[how.layout.strategy]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    order = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    shapes = {id(weight): weight.shape for weight in trained}
    groups = [[shapes[id(w)] for w in group["params"]] for group in optimizer.param_groups]
    zero = parallelize(model, how, workers)
    gradient = GradientOfBatch(task, zero, how)
    for batch in _batches():
        zero.weights.optimizer.zero_grad()
        gradient(batch, measure_noise=False)
        pieces = [
            piece
            for flat, group in zip(gradient.parameters, groups, strict=True)
            for piece in _pieces(flat.grad.full_tensor(), group, workers.world_size, stage)
        ]
        grads = dict(zip(order, pieces, strict=True))
        zero.weights.optimizer.step()
        with zero.whole_weights():
            weights = _vector(trained)
        yield torch.cat([grads[id(weight)] for weight in trained]), weights
    zero.close()


def _pieces(
    whole: Tensor, shapes: list[torch.Size], world_size: int, stage: int
) -> Iterator[Tensor]:
    """Each weight's entries of a group's; stage 3 cuts each weight, the others the whole group."""
    sizes = [math.prod(shape) for shape in shapes]
    if stage < 3:
        yield from whole[: sum(sizes)].split(sizes)
        return
    cut = [-(-size // world_size) for size in sizes]
    for size, parts in zip(sizes, whole.view(world_size, -1).split(cut, dim=1), strict=True):
        yield parts.flatten()[:size]


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
    }


def chosen_splits(tasks: Mapping[str, Task], *, whole: bool) -> dict[str, list[Split]]:
    """The splits of each family: all, or so many that every pair of values is among them.

    The values are those of family, strategy, number of workers and micro-batch.
    """
    rows = [
        (family, split.strategy, split.world_size, split.micro_batch_size)
        for family, task in tasks.items()
        for split in splits_of(task)
    ]
    chosen = rows if whole else covering(rows)
    return {family: [Split(*row[1:]) for row in chosen if row[0] == family] for family in tasks}


def _on_two_workers(workers: Workers, folder: str, whole: bool) -> dict[str, Any]:
    """The vectors of splits over two workers."""
    tasks = {name: prepare_task(work, EVALUATION) for name, work in families(folder).items()}
    vectors = {
        family: _of_splits(family, tasks[family], splits, workers)
        for family, splits in chosen_splits(tasks, whole=whole).items()
    }
    return {"families": vectors, "optimizers": list(_of_optimizers(workers).values())}


def _of_splits(
    family: str, task: Task, splits: Sequence[Split], workers: Workers
) -> dict[Split, Vectors]:
    """The vectors of those splits that have so many workers."""
    found: dict[Split, Vectors] = {}
    for split in splits:
        if split.world_size == workers.world_size:
            with case(family, split):
                found[split] = trained(task, split, workers)
    return found


@dataclass(frozen=True)
class Errors:
    """Distances of vectors from the unsplit batch's, over the latter's norm.

    Attributes:
        families: By family, split and name of the vector.
        optimizers: Of the weights, by optimizer and split.
    """

    families: Mapping[str, Mapping[Split, Mapping[str, float]]]
    optimizers: Mapping[tuple[str, Split], float]


def measured_errors(*, whole: bool) -> Errors:
    """The errors, each vector computed once, of all splits or of a choice (`chosen_splits`)."""
    with tempfile.TemporaryDirectory() as folder:
        workloads = families(folder)  # fills the folder before the workers read it
        on_two = on_workers(_on_two_workers, folder, whole)
        tasks = {name: prepare_task(work, EVALUATION) for name, work in workloads.items()}
        of_families = {
            family: _errors(family, tasks[family], splits, on_two["families"][family])
            for family, splits in chosen_splits(tasks, whole=whole).items()
        }
    return Errors(of_families, _errors_of_optimizers(on_two["optimizers"]))


def _errors_of_optimizers(on_two: list[Tensor]) -> dict[tuple[str, Split], float]:
    task = prepare_task(pronunciation(), EVALUATION)
    unsplit = {name: weights_by(name, task, UNSPLIT, Workers()) for name in OPTIMIZERS}
    keys = [
        (optimizer, split)
        for optimizer in OPTIMIZERS
        for split in OPTIMIZER_SPLITS
        if split.world_size == 2
    ]
    found = _of_optimizers(Workers()) | dict(zip(keys, on_two, strict=True))
    return {
        (optimizer, split): float((got - unsplit[optimizer]).norm() / unsplit[optimizer].norm())
        for (optimizer, split), got in found.items()
    }


def _errors(
    family: str, task: Task, splits: Sequence[Split], on_two: Mapping[Split, Vectors]
) -> dict[Split, dict[str, float]]:
    expected = trained(task, UNSPLIT, Workers())
    got = _of_splits(family, task, splits, Workers()) | dict(on_two)
    return {
        split: {
            name: float((vector - expected[name]).norm() / expected[name].norm())
            for name, vector in got[split].items()
        }
        for split in splits
    }


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
    all_errors = [error for splits in errors.values() for error in splits.values()]
    worst = {name: max(error.get(name, 0.0) for error in all_errors) for name in BOUNDS}
    lines.append(_row(["largest", *(f"{worst[n]:.1e}" for n in BOUNDS)]))
    lines.append(_row(["allowed", *(f"{bound:.0e}" for bound in BOUNDS.values())]))
    names = ["family", "strategy", "workers", "micro-batch", "accumulation"]
    lines += ["", _row([*names, *columns]), _row(["---"] * (len(names) + len(columns)))]
    for family, splits in errors.items():
        for split, error in splits.items():
            sizes = (split.world_size, split.micro_batch_size, split.grad_accum_steps)
            found = [f"{error[name]:.1e}" if name in error else "" for name in BOUNDS]
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
plan. DeepSpeed's stages (zero1 to zero3) have their optimizer's weights in float32 whatever the
model's. With LoRA, adapters beside the frozen weights of a model from a folder are trained (and a
classifier in full); gradient, weights and norm are theirs.

The noisy quadratic has no examples to share out: the noise of a micro-batch's mean is drawn at
once, so another cut of it draws other noise, of the same distribution, and its runs repeat bit for
bit only where they are cut alike.

Written by `python -m tests.training.exactness > docs/generated/exactness.md`; held by
`tests/training/test_exactness.py`."""


_OF_OPTIMIZERS = f"""## Optimizers

The weights of causal_lm after {NUM_UPDATES} updates by each optimizer, in float64, from the same
batches. Muon's orthogonalization is in bfloat16, where a gradient's last bits decide what is
rounded up."""


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # which DeepSpeed prints else, into the table
    torch.set_num_threads(1)
    errors = measured_errors(whole=True)
    print(table(errors.families))
    print()
    print(optimizer_table(errors.optimizers))


if __name__ == "__main__":
    main()
