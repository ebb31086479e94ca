"""Training a Transformer at a given batch size, in seven steps: see `train` and `_Run.to_its_end`.

What a step works with is built in `build`; what differs by strategy is in `parallel`.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from scaling.arithmetic.batching import next_smaller
from scaling.optimizers.build import set_lr
from scaling.records.recipe import Recipe
from scaling.space.branches import lr_of_step
from scaling.spec.evaluation import Evaluation
from scaling.tasks.data.rows import Split
from scaling.tasks.task import ExampleLosses, Task
from scaling.training import cold_start
from scaling.training.build import Setup, set_up
from scaling.training.data_order import order_of, set_chance
from scaling.training.evaluation import Cadence, matmul_precision
from scaling.training.gradient import Indices, StepGradient
from scaling.training.measuring import Measuring
from scaling.training.memory.out_of_memory import fixed_memory, is_out_of_memory
from scaling.training.noise_cadence import measures_noise_at
from scaling.training.parallel.workers import Workers, release_memory
from scaling.training.progress import Progress, SinceMeasured
from scaling.training.snapshot import Snapshots
from scaling.training.supervision import Checks, Directive, Incidents, Report, Supervision, agreed

End = Literal["done", "stopped", "diverged", "paused"]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: `done` at the end of the budget, `stopped` by a directive, `diverged`; `paused`
            when it was told to go on later.
        example_losses: Of each split's fixed subset at the last evaluation.
    """

    status: End
    example_losses: Mapping[Split, ExampleLosses]


def train(
    task: Task,
    recipe: Recipe,
    evaluation: Evaluation,
    workers: Workers,
    report: Report,
    supervision: Supervision = Supervision(),  # noqa: B008  # immutable
) -> Outcome:
    """Train one model by one recipe, measuring as the study file says.

    Args:
        task: Data, head and loss.
        recipe: Everything that determines the training.
        evaluation: When to evaluate and on how much.
        workers: This process among the trial's; all of them call this function.
        report: Called by every worker with each measurement, which is the same on all but for
            seconds; the directive that the first worker gets holds for all.
        supervision: What may interrupt the run. With checkpoints it goes on from the newest one,
            and reports the measurements before that again.

    Returns:
        How the run ended. A gradient that is not finite (with fp16, many in a row), or a
        validation loss that is not finite or exceeds a first one above 0
        `evaluation.divergence_ratio`-fold, ends it as `diverged`; that is a result and not an
        error. Running out of memory is one only for several workers, for a micro-batch of one
        example, or outside the forward and backward passes: else the micro-batch is halved.
    """
    setup, warm_up_seconds = _warm_setup(task, recipe, workers)
    try:
        run = _Run(setup, evaluation, report, supervision)
        run.progress.warm_up_seconds = warm_up_seconds
        try:
            with matmul_precision(recipe.layout.precision):
                return run.to_its_end()
        finally:
            run.snapshots.close()
    finally:
        setup.parallel.close()


def _warm_setup(task: Task, recipe: Recipe, workers: Workers) -> tuple[Setup, float]:
    """What a trial trains with, in a process that has trained alike, and the seconds for that."""
    with fixed_memory("building the model and its optimizer"):
        setup = set_up(task, recipe, workers)
    if not cold_start.is_cold(setup):
        return setup, 0.0
    num_parameters = setup.num_parameters
    seconds = cold_start.spend(setup)
    del setup
    cold_start.let_go(workers.device, num_parameters)
    with fixed_memory("building the model and its optimizer"):
        return set_up(task, recipe, workers), seconds


class _Run:
    """One trial's training on one worker."""

    def __init__(
        self, setup: Setup, evaluation: Evaluation, report: Report, supervision: Supervision
    ) -> None:
        self.setup, self.report, self.supervision = setup, report, supervision
        self.task, self.recipe, self.workers = setup.task, setup.recipe, setup.workers
        self.order = order_of(self.task, self.recipe.seed)
        self.cadence = Cadence(evaluation)
        self.progress = Progress(SinceMeasured(torch.zeros((), device=self.workers.device)))
        self.incidents = Incidents(supervision.note)
        self.measuring = Measuring(
            setup, evaluation, self.progress, self.incidents, supervision.model_folder
        )
        self.snapshots = Snapshots(
            setup, self.progress, self.cadence, self.incidents, supervision.checkpoints
        )
        self.noise_cost = cold_start.noise_cost(setup)
        self.is_over = False  # whether the budget is spent; the same on all workers
        self.started = 0.0  # clock time at which the step in hand began

    def to_its_end(self) -> Outcome:
        """Every step and evaluation that the run still has."""
        if self.snapshots.restore_newest():
            self.is_over = self.budget_is_spent()
            for measurement in self.progress.measured:  # who listens now may not have heard them
                self.report(measurement, at_rung=False)
        else:
            directive = self.measure()
            if directive != "continue":
                return self.end_by(directive)
        checks = Checks(self.supervision, self.workers, self.progress.step)
        while not self.is_over:
            self.started = time.perf_counter()
            # 1 data: from the seed and the step alone.
            indices = self.order.indices(*self.positions())
            set_chance(self.recipe.seed, self.progress.examples, self.setup.gradient.workers.rank)
            # 2 model, 3 batch, 4 forward, 5 loss, 6 backward: each worker's micro-batches.
            gradient = self.gradient_that_fits(indices)
            # 7 update: clip the global gradient, step, average the weights.
            if math.isfinite(gradient.grad_norm):
                clipped = self.update(gradient, num_examples=len(indices))
            elif self.setup.gradient.loss_scale.explains_overflow:
                # The weights stay as they are; the next step has a smaller loss scale.
                self.setup.gradient.loss_scale.update(is_finite=False)
                clipped = None
            else:
                return self.outcome("diverged")
            self.count(gradient, indices, clipped=clipped)
            if self.is_evaluated() or self.is_over:
                directive = self.measure()
                if self.measuring.has_diverged():
                    return self.outcome("diverged")
                if directive != "continue" and not self.is_over:
                    return self.end_by(directive)
            if checks.is_due(self.progress.step) and not self.is_over:
                directive, saves = checks.check(
                    self.progress.step,
                    may_save=not self.snapshots.is_busy,
                    saving_seconds=self.snapshots.cost_seconds,
                )
                self.snapshots.go_on()
                if saves:
                    self.snapshots.save()
                if directive != "continue":
                    return self.end_by(directive)
        return self.outcome("done")

    def positions(self, ahead: int = 0) -> tuple[int, int]:
        """Where the next step's examples stand in the stream of training data."""
        ramp, start = self.recipe.hyperparameters.batch_ramp, self.progress.examples
        for _ in range(ahead):
            start += ramp.size_at(start)
        return start, start + ramp.size_at(start)

    def gradient_that_fits(self, indices: Indices) -> StepGradient:
        """The gradient of a global batch, in micro-batches that fit into memory.

        Several workers cannot go on by themselves: the others wait in a collective.
        """
        gradient, optimizer = self.setup.gradient, self.setup.parallel.weights.optimizer
        step, num_train = self.progress.step, self.task.num_train
        measures_noise = measures_noise_at(
            step, self.recipe, self.positions(), num_train=num_train, added_ratio=self.noise_cost
        )
        looks_ahead = gradient.batches.looks_ahead
        following = self.order.indices(*self.positions(ahead=1)) if looks_ahead else None
        while True:
            try:
                optimizer.zero_grad()
                return gradient(indices, measure_noise=measures_noise, next_indices=following)
            except (RuntimeError, MemoryError) as error:
                share = len(indices) // gradient.workers.world_size
                smaller = next_smaller(gradient.micro_batch_size, share=share)
                alone = self.workers.world_size == 1
                if not is_out_of_memory(error) or not alone or smaller is None:
                    raise
            # Outside the handler, since the error's frames hold what is to be released.
            optimizer.zero_grad()
            release_memory(self.workers.device)
            gradient.micro_batch_size = smaller
            # A later trial begins with what fits: no step takes this long again.
            lost_until = time.perf_counter()
            self.progress.warm_up_seconds += lost_until - self.started
            self.started = lost_until
            self.incidents.add({"kind": "out_of_memory", "step": step, "micro_batch_size": smaller})

    def update(self, gradient: StepGradient, *, num_examples: int) -> bool:
        """Clip the global gradient, step at the schedule's rate, average; True where it clipped."""
        setup, progress, weights = self.setup, self.progress, self.setup.parallel.weights
        clipped = setup.clipping(weights.parameters, grad_norm=gradient.grad_norm)
        hparams = self.recipe.hyperparameters
        progress.lr = lr_of_step(hparams, step=progress.step, examples=progress.examples)
        set_lr(weights.optimizer, progress.lr)
        with fixed_memory("updating the weights"):
            weights.optimizer.step()
        if setup.average is not None:
            setup.average.update(num_examples)
        setup.gradient.loss_scale.update(is_finite=True)
        return clipped

    def count(self, gradient: StepGradient, indices: Indices, *, clipped: bool | None) -> None:
        """Count a step and what it saw."""
        num_tokens = self.task.num_tokens(indices)
        self.progress.add(
            gradient, num_examples=len(indices), num_tokens=num_tokens, clipped=clipped,
            seconds=time.perf_counter() - self.started,
        )  # fmt: skip
        self.is_over = self.budget_is_spent()

    def budget_is_spent(self) -> bool:
        """Whether to take no further step; the same on all workers."""
        hparams, progress = self.recipe.hyperparameters, self.progress
        if hparams.budget_seconds is not None:
            spent = progress.seconds >= hparams.budget_seconds
            return bool(self.workers.from_first(float(spent)))
        return progress.step >= (hparams.num_steps or 0)

    def is_evaluated(self) -> bool:
        """Whether to evaluate after the step just taken: at the cadence, and at each rung."""
        progress = self.progress
        due = self.cadence.is_due(
            progress.step, examples_before=progress.examples_before, examples=progress.examples
        )
        return due or self.is_at_rung()

    def is_at_rung(self) -> bool:
        """Whether early stopping has a rung between the last measurement and now."""
        rule, progress = self.supervision.early_stopping, self.progress
        if rule is None or not progress.measured or self.is_over:
            return False
        last = progress.measured[-1]
        before = rule.rungs_passed(examples=last.examples, tokens=last.tokens)
        return rule.rungs_passed(examples=progress.examples, tokens=progress.tokens) > before

    def measure(self) -> Directive:
        """Evaluate and report; the directive is the same on all workers."""
        at_rung = self.is_at_rung()
        measurement = self.measuring.measure(is_last=self.is_over)
        return agreed(self.report(measurement, at_rung=at_rung), self.workers)

    def outcome(self, status: End) -> Outcome:
        """The end of the run, with its last checkpoint written; called by all workers.

        None leaves before: whoever waits long for another takes the group for stuck.
        """
        self.snapshots.finish()
        return Outcome(status, self.measuring.losses)

    def end_by(self, directive: Directive) -> Outcome:
        """The end that a directive asks for; a run to go on later is saved first."""
        if directive == "pause":
            self.snapshots.save()
            return self.outcome("paused")
        return self.outcome("stopped")
