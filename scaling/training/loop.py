"""Training a Transformer at a given batch size, in seven steps: see `train`."""

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scaling.arithmetic.batching import next_smaller
from scaling.measures.throughput import flops_per_example, peak_flops_per_second
from scaling.optimizers.build import build_optimizer, set_lr
from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.space.branches import lr_of_step
from scaling.spec.evaluation import Evaluation
from scaling.spec.issues import first_line
from scaling.spec.resources import ZERO_STAGES
from scaling.tasks.data.rows import Split
from scaling.tasks.task import ExampleLosses, Task
from scaling.training.blocks import prepare_blocks
from scaling.training.checkpoint import CheckpointStore, newest, shared_steps
from scaling.training.checkpoint_check import State
from scaling.training.clipping import Clipping
from scaling.training.curvature import Curvature, measure_curvature
from scaling.training.data_order import DataOrder
from scaling.training.evaluation import Cadence, evaluate, written_metrics
from scaling.training.gradient import GradientOfBatch, Indices, StepGradient
from scaling.training.memory.out_of_memory import (
    is_out_of_memory,
    peak_memory_bytes,
    watch_peak_memory,
)
from scaling.training.noise_cadence import measures_noise_at
from scaling.training.parallel.base import data_parallel
from scaling.training.parallel.sharding import (
    own_part,
    placed_model_state,
    placed_optimizer_state,
    trained_state,
    whole,
    whole_weights,
    with_first_moments,
)
from scaling.training.parallel.tp import cut_matrices
from scaling.training.parallel.workers import Workers, release_memory
from scaling.training.parallel.zero import Zero
from scaling.training.progress import Progress, SinceMeasured
from scaling.training.supervision import Checks, Directive, Report, Supervision, agreed
from scaling.training.weight_average import WeightAverage

End = Literal["done", "stopped", "diverged", "paused"]

NUM_COUNTED_EXAMPLES = 8  # on which a trial's floating-point operations are counted


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
        validation loss that is not finite or exceeds the first one
        `evaluation.divergence_ratio`-fold, ends it as `diverged`; that is a result and not an
        error. Running out of memory is one only for several workers, or for a micro-batch of
        one example: else the micro-batch is halved.
    """
    run = _Run(task, recipe, evaluation, workers, report, supervision)
    try:
        return _to_its_end(run)
    finally:
        run.close()


def _to_its_end(run: "_Run") -> Outcome:
    """Every step and evaluation that a run still has."""
    if not run.goes_on_from_checkpoint():
        directive = run.measure(run.splits_along)
        if directive != "continue":
            return run.end_by(directive)
    checks = Checks(run.supervision, run.workers, run.progress.step)
    while not run.is_over():
        started = time.perf_counter()
        # 1 data: from the seed and the step alone.
        indices = run.order.indices(*run.positions())
        # 2 model, 3 batch, 4 forward, 5 loss, 6 backward: each worker's micro-batches.
        gradient = run.gradient_that_fits(indices)
        # 7 update: clip the global gradient, step, average the weights.
        if math.isfinite(gradient.grad_norm):
            run.update(gradient, indices, started)
        elif run.gradient.loss_scale.explains_overflow:
            run.skip(gradient, indices, started)
        else:
            return run.outcome("diverged")
        if run.is_evaluated() or run.is_over():
            directive = run.measure(run.task.splits if run.is_over() else run.splits_along)
            if run.has_diverged():
                return run.outcome("diverged")
            if directive != "continue" and not run.is_over():
                return run.end_by(directive)
        if checks.is_due(run.progress.step) and not run.is_over():
            check = checks.check(run.progress.step)
            if check.saves:
                run.save()
            if check.directive != "continue":
                return run.end_by(check.directive)
    return run.outcome("done")


class _Run:
    """The state of one trial's training on one worker."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        evaluation: Evaluation,
        workers: Workers,
        report: Report,
        supervision: Supervision,
    ) -> None:
        self.task, self.recipe, self.evaluation = task, recipe, evaluation
        self.workers, self.report, self.supervision = workers, report, supervision
        # Those that share a batch. Under tp each has all of it, as one that computes alone would.
        is_cut = recipe.layout.data_parallel_size < workers.world_size
        self.data_workers = workers.alone() if is_cut else workers
        watch_peak_memory(workers.device)
        self.model = self._new_model()
        self.flops_per_example = self._flops_per_example()
        self.peak_flops_per_second = self._peak_flops_per_second()
        torch.manual_seed(
            recipe.seed * 65_537 + self.data_workers.rank
        )  # dropout differs by worker
        prepare_blocks(
            self.model,
            recomputes=recipe.layout.activation_checkpointing,
            compiles=recipe.layout.compile,
        )
        if is_cut:
            cut_matrices(self.model, workers)
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.num_trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.zero = self._taken_by_zero()
        if self.zero is not None:
            wrapped, local_norm = self.zero.wrapped, self.zero.local_norm
            self.optimizer = self.zero.optimizer
        else:
            wrapped, local_norm = data_parallel(
                self.model, self.data_workers, recipe.layout.strategy
            )
            self.optimizer = build_optimizer(self.model, recipe.hyperparameters)
        self.gradient = GradientOfBatch(
            task, self.model, wrapped, local_norm, recipe, self.data_workers, self.zero
        )
        self.clipping = Clipping(recipe.hyperparameters)
        self.average = self._weight_average()
        self.order = DataOrder(recipe.seed, task.num_train)
        self.cadence = Cadence(evaluation)
        self.progress = Progress(self._nothing_since())
        self.measured: list[Measurement] = []
        self.incidents: list[dict[str, Any]] = []
        self.losses: dict[Split, ExampleLosses] = {}
        self.written: dict[str, float] = {}
        self.curvature: Curvature | None = None  # after the last step
        self.has_tokens = task.tokens_per_example is not None
        # The test split is read once, after the last step.
        self.splits_along = tuple(split for split in task.splits if split != "test")
        self._examples_before = 0  # the last step
        self._over = False

    def positions(self, ahead: int = 0) -> tuple[int, int]:
        """Where the next step's examples stand in the stream of training data."""
        ramp, start = self.recipe.hyperparameters.batch_ramp, self.progress.examples
        for _ in range(ahead):
            start += ramp.size_at(start)
        return start, start + ramp.size_at(start)

    def measures_noise(self) -> bool:
        """Whether the next step estimates the noise scale."""
        return measures_noise_at(
            self.progress.step, self.recipe, self.positions(), num_train=self.task.num_train
        )

    def gradient_that_fits(self, indices: Indices) -> StepGradient:
        """The gradient of a global batch, in micro-batches that fit into memory.

        Several workers cannot go on by themselves: the others wait in a collective.
        """
        share = len(indices) // self.data_workers.world_size
        looks_ahead = self.gradient.batches.looks_ahead
        following = self.order.indices(*self.positions(ahead=1)) if looks_ahead else None
        while True:
            try:
                self.optimizer.zero_grad()
                return self.gradient(
                    indices, measure_noise=self.measures_noise(), next_indices=following
                )
            except (RuntimeError, MemoryError) as error:
                smaller = next_smaller(self.gradient.micro_batch_size, share=share)
                alone = self.workers.world_size == 1
                if not is_out_of_memory(error) or not alone or smaller is None:
                    raise
            # Outside the handler, since the error's frames hold what is to be released.
            self.optimizer.zero_grad()
            release_memory(self.workers.device)
            self.gradient.micro_batch_size = smaller
            step = self.progress.step
            self.note({"kind": "out_of_memory", "step": step, "micro_batch_size": smaller})

    def note(self, incident: dict[str, Any]) -> None:
        """Tell and keep what happened besides training."""
        self.incidents.append(incident)
        self.supervision.note(incident)

    def update(self, gradient: StepGradient, indices: Indices, started: float) -> None:
        """Clip the global gradient, step at the schedule's rate, average; count it all."""
        progress = self.progress
        start, stop = self.positions()
        clipped = self.clipping(self.gradient.parameters, grad_norm=gradient.grad_norm)
        progress.lr = lr_of_step(
            self.recipe.hyperparameters, step=progress.step, examples=progress.examples
        )
        set_lr(self.optimizer, progress.lr)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(stop - start)
        if gradient.noise is not None:
            progress.noise.add(gradient.noise)
        if gradient.norm_layer_noise is not None:
            progress.norm_layer_noise.add(gradient.norm_layer_noise)
        self.gradient.loss_scale.update(is_finite=True)
        num_tokens = self.task.num_tokens(indices)
        seconds = self._count(gradient, num_tokens, started)
        progress.since.add(
            gradient, num_examples=stop - start, num_tokens=num_tokens, clipped=clipped,
            seconds=seconds,
        )  # fmt: skip

    def skip(self, gradient: StepGradient, indices: Indices, started: float) -> None:
        """Leave the weights as they are and try the next step with a smaller loss scale."""
        start, stop = self.positions()
        self.gradient.loss_scale.update(is_finite=False)
        self.progress.num_skipped += 1
        num_tokens = self.task.num_tokens(indices)
        seconds = self._count(gradient, num_tokens, started)
        self.progress.since.skip(num_examples=stop - start, num_tokens=num_tokens, seconds=seconds)

    def _count(self, gradient: StepGradient, num_tokens: int, started: float) -> float:
        """Count a step and what it saw; returns its seconds."""
        seconds = time.perf_counter() - started
        progress = self.progress
        self._examples_before, progress.examples = self.positions()
        progress.step += 1
        progress.tokens += num_tokens
        progress.targets += gradient.num_targets
        progress.seconds += seconds
        self._over = self._budget_is_spent()
        return seconds

    def is_evaluated(self) -> bool:
        """Whether to evaluate after the step just taken: at the cadence, and at each rung."""
        at_rung = self._is_at_rung()
        progress = self.progress
        due = self.cadence.is_due(
            progress.step, examples_before=self._examples_before, examples=progress.examples
        )
        return due or at_rung

    def _is_at_rung(self) -> bool:
        """Whether early stopping has a rung between the last measurement and now."""
        rule = self.supervision.early_stopping
        if rule is None or not self.measured or self._over:
            return False
        progress, last = self.progress, self.measured[-1]
        before = rule.rungs_passed(examples=last.examples, tokens=last.tokens)
        return rule.rungs_passed(examples=progress.examples, tokens=progress.tokens) > before

    def is_over(self) -> bool:
        """Whether the budget is spent; the same on all workers."""
        return self._over

    def _budget_is_spent(self) -> bool:
        if self.recipe.hyperparameters.budget_seconds is not None:
            spent = self.progress.seconds >= self.recipe.hyperparameters.budget_seconds
            return bool(self.workers.from_first(float(spent)))
        return self.progress.step >= (self.recipe.hyperparameters.num_steps or 0)

    def measure(self, splits: tuple[Split, ...]) -> Directive:
        """Evaluate and report; the directive is the same on all workers."""
        at_rung = self._is_at_rung()
        started = time.perf_counter()
        averaged = self.average.in_place() if self.average is not None else nullcontext()
        with averaged, self._whole_weights():
            self.losses = evaluate(
                self.task,
                self.model,
                splits,
                self.data_workers,
                precision=self.recipe.layout.precision,
            )
            if self._over:
                self.written = written_metrics(
                    self.task, self.model, self.data_workers, precision=self.recipe.layout.precision
                )
            if self._over and self.evaluation.sharpness is not None and not self.has_diverged():
                self.curvature = measure_curvature(
                    self.task, self._plain_model(), self.evaluation.sharpness, self.workers,
                    micro_batch_size=self.gradient.micro_batch_size,
                )  # fmt: skip
        self.progress.evaluation_seconds += time.perf_counter() - started
        measurement = self._measurement()
        self.measured.append(measurement)
        if self.progress.first_loss is None:
            self.progress.first_loss = measurement.validation_loss
        self.progress.since = self._nothing_since()
        return agreed(self.report(measurement, at_rung=at_rung), self.workers)

    def has_diverged(self) -> bool:
        """Whether the last evaluation shows a loss that blew up."""
        loss, first = self.losses["validation"].loss, self.progress.first_loss
        if not math.isfinite(loss):
            return True
        return first is not None and loss > first * self.evaluation.divergence_ratio

    def outcome(self, status: End) -> Outcome:
        """The end of the run."""
        return Outcome(status, self.losses)

    def end_by(self, directive: Directive) -> Outcome:
        """The end that a directive asks for; a run to go on later is saved first."""
        if directive == "pause":
            self.save()
            return self.outcome("paused")
        return self.outcome("stopped")

    def save(self) -> None:
        """Write a checkpoint, where the run has a place for it; called by all workers.

        One that cannot be written is an incident and not an end: the run itself is unharmed.
        """
        store = self.supervision.checkpoints
        if store is None:
            return
        per_worker = self.workers.gather_array(self.progress.own_numbers(self.workers.device))
        together = self.workers.agree(uuid.uuid4().hex)
        rank, in_parts = self.workers.rank, self._saves_in_parts
        if rank > 0 and not in_parts:
            return
        state = self._state(per_worker, together)
        failure = None
        if in_parts:
            # Weights that are cut among the workers never come together; the first writes last.
            own = self._failure_of_saving(store, state) if rank else None
            failure = next(filter(None, self.workers.gather(own)), None)
        if rank == 0:
            failure = failure or self._failure_of_saving(store, state)
            incident = {"kind": "checkpoint_failed", "cause": failure}
            if failure is not None and incident not in self.incidents:
                self.note(incident)

    def _failure_of_saving(self, store: CheckpointStore, state: State) -> str | None:
        try:
            store.save(self.progress.step, state, self.workers.rank)
        except OSError as error:
            return error.strerror or first_line(error)
        return None

    @property
    def _saves_in_parts(self) -> bool:
        return self.recipe.layout.strategy != "ddp" and self.workers.world_size > 1

    def _state(self, per_worker: Sequence[NDArray[np.float64]], together: str) -> State:
        """What this worker holds of everything that a checkpoint needs.

        Args:
            per_worker: `Progress.own_numbers` of each worker.
            together: The same in all parts of one checkpoint.
        """
        average = self.average.state() if self.average is not None else None
        return {
            "recipe": self._identity(),
            "strategy": self.recipe.layout.strategy,
            "precision": self.recipe.layout.precision,
            "micro_batch_size": self.gradient.micro_batch_size,
            **self._weights(),
            **self._moments(),
            "loss_scale": self.gradient.loss_scale.state(),
            "clipping": self.clipping.state(),
            "weight_average": own_part(average),
            "cadence_last_step": self.cadence.last_step,
            "progress": self.progress.state(),
            "per_worker": [torch.from_numpy(numbers) for numbers in per_worker],
            "incidents": json.dumps(self.incidents),
            "measured": json.dumps([asdict(measurement) for measurement in self.measured]),
            "written_together": together,
        }

    def _weights(self) -> State:
        """All trained weights; with ZeRO the moments too."""
        if self.zero is not None:
            return {"zero": self.zero.state()}
        return {"model": own_part(trained_state(self.model))}

    def _moments(self) -> State:
        """The optimizer's state, and which weights have one: those that ever had a gradient."""
        if self.zero is not None:
            return {}
        state = self.optimizer.state_dict()
        return {"optimizer": own_part(state), "with_moments": sorted(state["state"])}

    def _state_before_first_step(self) -> State:
        """What a checkpoint must be like; called by all workers."""
        own = self.progress.own_numbers(self.workers.device)
        state = self._state([own] * self.workers.world_size, "")
        if self.zero is None:
            return state | {"optimizer": with_first_moments(self.optimizer)}
        alone = with_first_moments(build_optimizer(nn.Linear(1, 1), self.recipe.hyperparameters))
        return state | {"zero": self.zero.state_after_first_step(alone["state"].get(0, {}))}

    def goes_on_from_checkpoint(self) -> bool:
        """Take up the newest whole checkpoint of this recipe; False where there is none.

        Newer ones are passed over, each with an incident.
        """
        store = self.supervision.checkpoints
        if store is None or not shared_steps(store, self.workers):
            return False
        passed_over: list[dict[str, Any]] = []
        state = newest(
            store, self.workers, in_parts=self._saves_in_parts,
            like=self._state_before_first_step(), passed_over=passed_over,
        )  # fmt: skip
        if state is not None:
            self._restore(state)
            passed_over = json.loads(state["incidents"]) + passed_over
        for incident in passed_over:
            if incident not in self.incidents:
                self.note(incident)
        if state is None:
            return False
        self.note({"kind": "resumed", "step": self.progress.step})
        for measurement in self.measured:  # whoever listens now may not have heard them
            self.report(measurement, at_rung=False)
        return True

    def _restore(self, state: State) -> None:
        smaller = min(state["micro_batch_size"], self.gradient.micro_batch_size)
        self.gradient.micro_batch_size = smaller
        if self.zero is not None:
            self.zero.restore(state["zero"])
        else:
            self.model.load_state_dict(placed_model_state(state["model"], self.model))
            moments = placed_optimizer_state(state["optimizer"], self.optimizer)
            self.optimizer.load_state_dict(moments)
        self.gradient.loss_scale.restore(state["loss_scale"])
        self.clipping.restore(state["clipping"])
        if self.average is not None:
            self.average.restore(state["weight_average"])
        self.cadence.last_step = state["cadence_last_step"]
        self.measured = [Measurement(**values) for values in json.loads(state["measured"])]
        own = state["per_worker"][self.workers.rank].numpy()
        self.progress.restore(state["progress"], own, self.workers.device)
        self._over = self._budget_is_spent()

    def _identity(self) -> str:
        """What a checkpoint must have been written by; how a batch is cut may differ."""
        identity = {"seed": self.recipe.seed, **asdict(self.recipe.hyperparameters)}
        return json.dumps(identity, sort_keys=True)

    def _new_model(self) -> nn.Module:
        hparams = self.recipe.hyperparameters
        model = self.task.new_model(
            self.recipe.seed, dropout=hparams.dropout, lora_rank=hparams.lora_rank
        )
        return model.to(self.workers.device)

    def _plain_model(self) -> nn.Module:
        """One with the same weights that no strategy has cut; inside `_whole_weights`."""
        if self.recipe.layout.strategy == "ddp" or self.workers.world_size == 1:
            return self.model
        plain = self._new_model()
        cut = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in plain.named_parameters():
                weight.copy_(whole(cut[name]))
        return plain

    def _taken_by_zero(self) -> Zero | None:
        """The model in DeepSpeed's hands, where the strategy is its and there is more than one."""
        stage = ZERO_STAGES.get(self.recipe.layout.strategy)
        if stage is None or self.data_workers.world_size == 1:
            return None
        return Zero(
            self.model, build_optimizer(self.model, self.recipe.hyperparameters), self.data_workers,
            stage=stage, precision=self.recipe.layout.precision,
        )  # fmt: skip

    def _whole_weights(self) -> AbstractContextManager[None]:
        """Every worker holds all the weights inside the block."""
        return self.zero.whole_weights() if self.zero is not None else whole_weights(self.model)

    def close(self) -> None:
        """Let go of what would outlive the run, and of workers that wait for this one."""
        if self.gradient.local_norm is not None:
            self.gradient.local_norm.close()
        if self.zero is not None:
            self.zero.close()

    def _weight_average(self) -> WeightAverage | None:
        half_life = self.recipe.hyperparameters.weight_average_half_life_examples
        if half_life is None:
            return None
        return WeightAverage(self.model, half_life_examples=half_life)

    def _flops_per_example(self) -> float | None:
        """Counted on a few examples; None where not even those fit into memory."""
        few = np.arange(min(NUM_COUNTED_EXAMPLES, self.recipe.layout.micro_batch_size))
        try:
            return flops_per_example(self.task, self.model, few)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory(self.workers.device)
        return None

    def _peak_flops_per_second(self) -> float | None:
        """Of all workers together; None where one of them has an unknown device."""
        own = peak_flops_per_second(self.workers.device, self.recipe.layout.precision)
        total, num_known = self.workers.sum(own or 0.0, float(own is not None))
        return total if num_known == self.workers.world_size else None

    def _throughput(self) -> dict[str, float | None]:
        """Since the last measurement."""
        since, flops, peak = self.progress.since, self.flops_per_example, self.peak_flops_per_second
        examples_per_second = since.num_examples / since.seconds
        used = flops * examples_per_second / peak if flops is not None and peak else None
        return {
            "examples_per_second": examples_per_second,
            "tokens_per_second": since.num_tokens / since.seconds if self.has_tokens else None,
            "targets_per_second": since.num_targets / since.seconds,
            "flops_per_example": flops,
            "peak_flops_per_second": peak,
            "model_flop_utilization": used,
        }

    def _peak_memory_bytes(self) -> float | None:
        """Of the worker with the most."""
        own = peak_memory_bytes(self.workers.device)
        if own is None:
            return None
        return max(self.workers.gather(float(own)))

    def _nothing_since(self) -> SinceMeasured:
        return SinceMeasured(torch.zeros((), device=self.workers.device))

    def _measurement(self) -> Measurement:
        progress, since = self.progress, self.progress.since
        [loss_sum] = self.data_workers.sum(float(since.loss_sum))
        noise, norm_layer_noise = progress.noise.mean, progress.norm_layer_noise.mean
        num_models = self.task.num_models
        values: dict[str, float | None] = {
            "lr": progress.lr,
            "grad_noise_scale": noise.noise_scale if noise else None,
            "grad_noise_scale_stderr": noise.stderr if noise else None,
            "norm_layer_noise_scale": norm_layer_noise.noise_scale if norm_layer_noise else None,
            "grad_sq_norm": noise.sq_norm / num_models if noise else None,
            "grad_covariance_trace": noise.covariance_trace / num_models if noise else None,
            "peak_memory_bytes": self._peak_memory_bytes(),
            "num_parameters": self.num_parameters,
            "num_trained_parameters": self.num_trained,
        }
        if self.recipe.layout.precision == "fp16":
            values["num_skipped_steps"] = progress.num_skipped
        if since.num_steps:
            values |= {
                "step_loss": loss_sum / since.num_targets,
                "grad_norm": since.grad_norm_sum / since.num_steps / math.sqrt(num_models),
                "clipped_fraction": since.num_clipped / since.num_steps,
                **self._throughput(),
            }
        for split, losses in self.losses.items():
            values |= {f"{split}_loss": losses.loss, f"{split}_loss_stderr": losses.stderr}
        if self.curvature is not None:
            values |= asdict(self.curvature)
        metrics = self.task.metrics(self.losses["validation"]) | self.written
        return Measurement(
            step=progress.step,
            examples=progress.examples,
            tokens=progress.tokens if self.has_tokens else None,
            targets=progress.targets,
            seconds=progress.seconds,
            evaluation_seconds=progress.evaluation_seconds,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            **{k: v for k, v in values.items() if v is not None and math.isfinite(v)},
        )
