"""How long a study's trials take on this machine, from a few steps taken here."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from scaling.arithmetic.batching import BatchRamp
from scaling.records.recipe import Recipe
from scaling.space.branches import branch_work
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import Cell, hyperparameters
from scaling.space.layout import Facts, data_parallel_size_of, world_size_of
from scaling.space.recipe import timing_recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.study import StudySpec
from scaling.tasks.task import Task
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers

MAX_EXAMPLES = 512  # of one timed step
NUM_EVALUATED = 128
_MAX_LISTED_STEPS = 1_000_000
LONG_SECONDS = 2.0  # a step that takes so long is timed once and not again
STEADY_SECONDS = 0.1  # one that takes so long is not moved by a moment's hesitation


@dataclass(frozen=True)
class Speed:
    """A worker's seconds.

    Attributes:
        shares: Examples a worker in a step, rising.
        step_seconds: Of a step at each.
        evaluated_seconds: Of an evaluated example.
    """

    shares: tuple[int, ...]
    step_seconds: tuple[float, ...]
    evaluated_seconds: float

    def step(self, share: float) -> float:
        """Seconds of a step, interpolated; in proportion beyond the largest share timed."""
        if share > self.shares[-1]:
            return self.step_seconds[-1] * share / self.shares[-1]
        return float(np.interp(share, self.shares, self.step_seconds))


def study_speed(task: Task, spec: StudySpec, facts: Facts) -> Speed:
    """Time a step at the smallest, a middle and the largest batch, and the evaluation."""
    sizes = spec.batch_sizes()
    seconds: dict[int, float] = {}
    with _threads(max(1, int(spec.resources.cpus_per_worker))):
        for size in sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]}):
            world_size = world_size_of(spec, size, facts)
            recipe = timing_recipe(spec, facts, size, world_size=world_size)
            share = min(
                size // recipe.layout.data_parallel_size,
                MAX_EXAMPLES,
                task.num_train or MAX_EXAMPLES,
            )
            seconds[share] = _step_seconds(
                task, replace(recipe, layout=replace(recipe.layout, world_size=1)), share
            )
        evaluated = _evaluated_seconds(task)
    shares = tuple(sorted(seconds))
    return Speed(shares, tuple(seconds[share] for share in shares), evaluated)


def trial_seconds(
    spec: StudySpec, facts: Facts, task: Task, speed: Speed, cell: Cell, global_batch_size: int
) -> float:
    """Training and evaluation of one trial that runs to its budget."""
    ramp = batch_ramp_of(hyperparameters(spec, cell, {"global_batch_size": global_batch_size}))
    num_steps = num_steps_of(spec, ramp, facts)
    if num_steps is None:
        return spec.budget.seconds or 0.0
    return _run_seconds(spec, facts, task, speed, ramp, num_steps)


def branch_seconds(spec: StudySpec, facts: Facts, task: Task, speed: Speed) -> float:
    """All trials of the branch phase, as if their batch did not grow, which is the slowest."""
    work = Counter(branch_work(spec.branch) if spec.branch else ())
    return sum(
        count * _run_seconds(spec, facts, task, speed, BatchRamp(batch), examples // batch)
        for (batch, examples), count in work.items()
    )


def _run_seconds(
    spec: StudySpec, facts: Facts, task: Task, speed: Speed, ramp: BatchRamp, num_steps: int
) -> float:
    data_parallel_size = data_parallel_size_of(spec, ramp.first, facts)
    training = sum(
        steps * speed.step(size / data_parallel_size) for size, steps in ramp.sizes(num_steps)
    )
    along = sum(task.num_evaluated(split) for split in task.splits if split != "test")
    once = task.num_evaluated("test") if "test" in task.splits else 0
    evaluated = along * num_evaluations(spec.evaluation, ramp, num_steps) + once
    return training + evaluated * speed.evaluated_seconds / data_parallel_size


def num_evaluations(evaluation: Evaluation, ramp: BatchRamp, num_steps: int) -> int:
    """Evaluations of a run: the first one, those of the cadence, and the last.

    Exact, but for a growth_ratio in a run of more than a million steps: then within a tenth.
    """
    if evaluation.growth_ratio is not None:
        return _num_growing(evaluation.growth_ratio, num_steps)
    if evaluation.every_steps is not None:
        return 1 + -(-num_steps // evaluation.every_steps)
    every = evaluation.every_examples
    assert every is not None
    examples, count, is_due = 0, 1, False
    for size, steps in ramp.sizes(num_steps):
        end = examples + size * steps
        count += steps if size > every else end // every - examples // every
        is_due = end // every > (end - size) // every
        examples = end
    return count + (not is_due)


def _num_growing(ratio: float, num_steps: int) -> int:
    """Evaluations each time the number of steps has grown by a ratio, and by one at least."""
    step, count = 0, 1
    while step < num_steps:
        if num_steps > _MAX_LISTED_STEPS and step * (ratio - 1) > 1:
            return count + math.ceil(math.log(num_steps / step) / math.log(ratio))
        if num_steps > _MAX_LISTED_STEPS:  # one at a time, up to where the ratio is more
            ones = min(num_steps - step, math.floor(1 / (ratio - 1)) + 1 - step)
            step, count = step + ones, count + ones
        else:
            step, count = max(step + 1, math.ceil(step * ratio)), count + 1
    return count


def _step_seconds(task: Task, recipe: Recipe, share: int) -> float:
    model = task.new_model(0, lora_rank=recipe.hyperparameters.lora_rank)
    parallel = parallelize(model, recipe, Workers())
    gradient, optimizer = GradientOfBatch(task, parallel, recipe), parallel.weights.optimizer
    indices = np.random.default_rng(0).permutation(task.num_train or share)[:share]

    def step() -> None:
        optimizer.zero_grad()
        gradient(indices, measure_noise=False)
        optimizer.step()

    return _seconds(step)


def _evaluated_seconds(task: Task) -> float:
    model = task.new_model(0).eval()
    count = min(NUM_EVALUATED, task.num_evaluated("validation"))
    with torch.no_grad():
        seconds = _seconds(
            lambda: task.example_losses(model, "validation", slice(0, count), torch.device("cpu"))
        )
    return seconds / count


def _seconds(work: Callable[[], object]) -> float:
    """The faster of the second and third time, or the second; a very long one is not repeated.

    One thread is timed by the processor's clock, which other work on the machine does not move.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: list[float] = []
    for enough in (LONG_SECONDS, STEADY_SECONDS, 0.0):
        started = clock()
        work()
        taken.append(clock() - started)
        if taken[-1] > enough:
            break
    return min(taken[1:] or taken)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
