"""Training a Transformer at a given batch size, in seven steps: see `train`."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from scaling.measures.noise_scale import RunningNoise
from scaling.records import Measurement, Recipe
from scaling.schedules import lr_at_step
from scaling.spec import Evaluation
from scaling.tasks.sources import Split
from scaling.tasks.task import ExampleLosses, Task
from scaling.training.data_order import DataOrder
from scaling.training.evaluation import Cadence, evaluate
from scaling.training.gradient import GradientOfBatch, StepGradient, clip_global_norm
from scaling.training.optimizers import build_optimizer, set_lr
from scaling.training.parallel import Workers, data_parallel
from scaling.training.weight_average import WeightAverage

Directive = Literal["continue", "stop"]
Report = Callable[[Measurement], Directive]

# About this many steps of a run measure the noise scale; measuring costs a little.
NUM_NOISE_ESTIMATES = 32
NOISE_PERIOD = 16  # steps, where the number of steps is not known


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `done` at the end of the budget, `stopped` by a directive, `diverged`.
        example_losses: Of each split's fixed subset at the last evaluation.
    """

    status: Literal["done", "stopped", "diverged"]
    example_losses: Mapping[Split, ExampleLosses]


@dataclass
class _SinceMeasured:
    """Sums over the steps since the last measurement."""

    loss_sum: torch.Tensor
    num_targets: int = 0
    num_steps: int = 0
    num_clipped: int = 0
    grad_norm_sum: float = 0.0
    seconds: float = 0.0

    def add(self, gradient: StepGradient, *, clipped: bool, seconds: float) -> None:
        self.loss_sum += gradient.loss_sum
        self.num_targets += gradient.num_targets
        self.num_steps += 1
        self.num_clipped += clipped
        self.grad_norm_sum += gradient.grad_norm
        self.seconds += seconds


@dataclass
class _Progress:
    """How far a run is, and what was measured on the way."""

    since: _SinceMeasured
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    lr: float | None = None
    first_loss: float | None = None
    noise: RunningNoise = field(default_factory=RunningNoise)


def train(
    task: Task, recipe: Recipe, evaluation: Evaluation, workers: Workers, report: Report
) -> Outcome:
    """Train one model by one recipe, measuring as the study file says.

    Args:
        task: Data, head and loss.
        recipe: Everything that determines the training.
        evaluation: When to evaluate and on how much.
        workers: This process among the trial's; all of them call this function.
        report: Called by every worker with each measurement, which is the same on all but for
            seconds; the directive that the first worker gets holds for all.

    Returns:
        How the run ended. A gradient that is not finite, or a validation loss that is not
        finite or exceeds the first one `evaluation.divergence_ratio`-fold, ends it as
        `diverged`; that is a result and not an error.
    """
    run = _Run(task, recipe, evaluation, workers, report)
    if not run.measure(run.splits_along):
        return run.outcome("stopped")
    while not run.is_over():
        started = time.perf_counter()
        # 1 data: from the seed and the step alone.
        indices = run.order.indices(*run.positions())
        # 2 model, 3 batch, 4 forward, 5 loss, 6 backward: each worker's micro-batches.
        run.optimizer.zero_grad()
        gradient = run.gradient(indices, measure_noise=run.measures_noise())
        if not math.isfinite(gradient.grad_norm):
            return run.outcome("diverged")
        # 7 update: clip the global gradient, step, average the weights.
        run.update(gradient, started)
        if run.cadence.is_due(run.progress.step) or run.is_over():
            splits = run.task.splits if run.is_over() else run.splits_along
            goes_on = run.measure(splits)
            if run.has_diverged():
                return run.outcome("diverged")
            if not goes_on and not run.is_over():
                return run.outcome("stopped")
    return run.outcome("done")


class _Run:
    """The state of one trial's training on one worker."""

    def __init__(
        self, task: Task, recipe: Recipe, evaluation: Evaluation, workers: Workers, report: Report
    ) -> None:
        self.task, self.recipe, self.evaluation = task, recipe, evaluation
        self.workers, self.report = workers, report
        self.model: nn.Module = task.new_model(recipe.seed).to(workers.device)
        torch.manual_seed(recipe.seed * 65_537 + workers.rank)  # dropout differs by worker
        wrapped, local_norm = data_parallel(self.model, workers)
        self.gradient = GradientOfBatch(task, self.model, wrapped, local_norm, recipe, workers)
        self.optimizer = build_optimizer(self.model, recipe)
        self.average = self._weight_average()
        self.order = DataOrder(recipe.seed, task.num_train)
        self.cadence = Cadence(evaluation, recipe.global_batch_size)
        self.progress = _Progress(self._nothing_since())
        self.losses: dict[Split, ExampleLosses] = {}
        # The test split is read once, after the last step.
        self.splits_along = tuple(split for split in task.splits if split != "test")
        self._over = False

    def positions(self) -> tuple[int, int]:
        """Where the next step's examples stand in the stream of training data."""
        size = self.recipe.global_batch_size
        return self.progress.step * size, (self.progress.step + 1) * size

    def measures_noise(self) -> bool:
        """Whether the next step estimates the noise scale.

        A batch that crosses into the next epoch is not one sample without replacement, which is
        what the estimator's correction for a finite train set assumes.
        """
        num_steps = self.recipe.num_steps
        period = NOISE_PERIOD if num_steps is None else max(1, num_steps // NUM_NOISE_ESTIMATES)
        start, stop = self.positions()
        num_train = self.task.num_train
        is_one_sample = num_train is None or start // num_train == (stop - 1) // num_train
        return is_one_sample and self.progress.step % period == 0

    def update(self, gradient: StepGradient, started: float) -> None:
        """Clip by the global norm, step at the schedule's rate, average; count it all."""
        recipe, progress = self.recipe, self.progress
        clipped = clip_global_norm(
            self.gradient.parameters, grad_norm=gradient.grad_norm, clip_norm=recipe.clip_norm
        )
        progress.lr = lr_at_step(
            progress.step, peak_lr=recipe.peak_lr, schedule=recipe.schedule,
            warmup_steps=recipe.warmup_steps, num_steps=recipe.num_steps,
            min_lr_ratio=recipe.min_lr_ratio,
        )  # fmt: skip
        set_lr(self.optimizer, progress.lr)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        if gradient.noise is not None:
            progress.noise.add(gradient.noise)
        seconds = time.perf_counter() - started
        progress.step += 1
        progress.tokens += gradient.num_targets
        progress.seconds += seconds
        progress.since.add(gradient, clipped=clipped, seconds=seconds)
        self._over = self._budget_is_spent()

    def is_over(self) -> bool:
        """Whether the budget is spent; the same on all workers."""
        return self._over

    def _budget_is_spent(self) -> bool:
        if self.recipe.budget_seconds is not None:
            spent = self.progress.seconds >= self.recipe.budget_seconds
            return bool(self.workers.from_first(float(spent)))
        return self.progress.step >= (self.recipe.num_steps or 0)

    def measure(self, splits: tuple[Split, ...]) -> bool:
        """Evaluate and report; False when the run is told to stop."""
        with self.average.in_place() if self.average is not None else nullcontext():
            self.losses = evaluate(
                self.task, self.model, splits, self.workers, precision=self.recipe.precision
            )
        measurement = self._measurement()
        if self.progress.first_loss is None:
            self.progress.first_loss = measurement.validation_loss
        self.progress.since = self._nothing_since()
        directive = self.report(measurement)
        return not self.workers.from_first(float(directive == "stop"))

    def has_diverged(self) -> bool:
        """Whether the last evaluation shows a loss that blew up."""
        loss, first = self.losses["validation"].loss, self.progress.first_loss
        if not math.isfinite(loss):
            return True
        return first is not None and loss > first * self.evaluation.divergence_ratio

    def outcome(self, status: Literal["done", "stopped", "diverged"]) -> Outcome:
        """The end of the run."""
        return Outcome(status, self.losses)

    def _weight_average(self) -> WeightAverage | None:
        half_life = self.recipe.weight_average_half_life_examples
        if half_life is None:
            return None
        return WeightAverage(
            self.model,
            half_life_examples=half_life,
            global_batch_size=self.recipe.global_batch_size,
        )

    def _nothing_since(self) -> _SinceMeasured:
        return _SinceMeasured(torch.zeros((), device=self.workers.device))

    def _measurement(self) -> Measurement:
        progress, since = self.progress, self.progress.since
        [loss_sum] = self.workers.sum(float(since.loss_sum))
        noise = progress.noise.mean
        values: dict[str, float | None] = {
            "lr": progress.lr,
            "grad_noise_scale": noise.noise_scale if noise else None,
            "grad_sq_norm": noise.sq_norm if noise else None,
            "grad_covariance_trace": noise.covariance_trace if noise else None,
        }
        if since.num_steps:
            num_examples = since.num_steps * self.recipe.global_batch_size
            values |= {
                "step_loss": loss_sum / since.num_targets,
                "grad_norm": since.grad_norm_sum / since.num_steps,
                "clipped_fraction": since.num_clipped / since.num_steps,
                "examples_per_second": num_examples / since.seconds,
            }
        for split, losses in self.losses.items():
            values |= {f"{split}_loss": losses.loss, f"{split}_loss_stderr": losses.stderr}
        metrics = self.task.metrics(self.losses["validation"])
        return Measurement(
            step=progress.step,
            examples=progress.step * self.recipe.global_batch_size,
            tokens=progress.tokens,
            seconds=progress.seconds,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            **{k: v for k, v in values.items() if v is not None and math.isfinite(v)},
        )
