"""What a trial leaves behind: the only thing that training and analysis both know.

Plain frozen data with an exact JSON form. A quantity that was not measured is None; NaN and
infinity are never stored (a diverged trial has status `diverged`, not a large number).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from scaling.batching import BatchRamp
from scaling.json_text import parse_mapping
from scaling.spec import Precision, Strategy, StudySpec, Target, is_finite

Phase = Literal["search", "transfer", "confirm", "branch"]
Status = Literal["running", "done", "stopped", "diverged", "failed"]
ENDED: tuple[Status, ...] = ("done", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trial's training, resolved; no choice is left open.

    Attributes:
        seed: Of the initial weights, the data order and dropout.
        global_batch_size: Examples per optimizer step (of the first ones, where the batch
            grows), `micro_batch_size × grad_accum_steps × data_parallel_size`.
        batch_ramp_at_examples: Where the batch grows by `batch_ramp_factor`, in examples seen;
            empty where it does not. The micro-batch stays and accumulation grows.
        num_steps: Optimizer steps of the whole run; None when the budget is in seconds.
        budget_seconds: Training seconds of the whole run; None for every other budget.
        peak_lr: Learning rate after warmup.
        warmup_steps: Steps of linear warmup.
        clip_norm: Largest norm of the global gradient; None leaves it alone.
        lora_rank: Rank of the adapters; None where all weights are trained.
        activation_checkpointing: Whether each block's activations are computed again in backward.
        compile: Whether each block is compiled.
        branch_from_examples: Of a branch: examples after which its batch is `branch_multiple`
            times as large and its rate `branch_lr_factor` times; None for any other trial.
        schedule_num_steps: Of a branch: steps of the whole run that it branches off, which its
            schedule is that of, by examples.
    """

    seed: int
    global_batch_size: int
    micro_batch_size: int
    grad_accum_steps: int
    world_size: int
    batch_ramp_at_examples: tuple[int, ...]
    batch_ramp_factor: int
    num_steps: int | None
    budget_seconds: float | None
    peak_lr: float
    base_lr: float | None
    base_batch_size: int | None
    lr_scaling_rule: str
    beta2_scaling: str
    weight_decay_scaling: str
    warmup_scaling: str
    warmup_steps: int
    warmup_ratio: float | None
    warmup_examples: int | None
    schedule: str
    decay_ratio: float
    decay_shape: str
    min_lr_ratio: float
    optimizer: str
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    momentum: float
    nesterov: bool
    clip_norm: float | None
    clip_value: float | None
    clip_percentile: float | None
    clip_history_steps: int
    dropout: float | None
    label_smoothing: float
    weight_average_half_life_examples: float | None
    strategy: Strategy
    precision: Precision
    activation_checkpointing: bool = False
    compile: bool = False
    lora_rank: int | None = None
    branch_from_examples: int | None = None
    branch_multiple: int = 1
    branch_lr_factor: float = 1.0
    schedule_num_steps: int | None = None

    @property
    def data_parallel_size(self) -> int:
        """Workers that share a batch; under tp all of them compute the whole of it together."""
        return 1 if self.strategy == "tp" else self.world_size

    @property
    def batch_ramp(self) -> BatchRamp:
        """The size of each step's batch."""
        return BatchRamp(
            self.global_batch_size, self.batch_ramp_at_examples, self.batch_ramp_factor
        )


@dataclass(frozen=True)
class Measurement:
    """What was measured after `step` optimizer steps.

    Losses are in nats per target (token or example), in evaluation mode, all at the same
    weights (the averaged ones where the recipe averages them). `*_stderr` is the standard error
    that comes from evaluating on a sample of the split, not from the seed.

    Attributes:
        step: Optimizer steps taken.
        examples: Training examples seen.
        tokens: Input tokens of those examples, padding not counted; None where they have none.
        seconds: Seconds of training so far, evaluation not counted.
        targets: Targets that counted in the training loss so far.
        evaluation_seconds: Seconds of evaluation so far, this one included.
        lr: Learning rate of the last step.
        step_loss: Mean training loss of the steps since the last measurement (training mode,
            label smoothing included).
        grad_norm: Mean norm of the global gradient before clipping, since the last measurement.
            Of noisy_quadratic it is that of one chain, the root of the mean square over them.
        clipped_fraction: Share of those steps whose gradient was clipped (with clip_value: one
            of its entries).
        num_skipped_steps: Steps so far whose float16 gradient overflowed and was not used; None
            in any other precision.
        grad_noise_scale: tr Σ / |G|² in examples, from running means of both.
        grad_noise_scale_stderr: Standard error of it, from the spread of the steps' estimates.
        norm_layer_noise_scale: The same ratio for the normalization layers' parameters alone, a
            proxy that follows `grad_noise_scale` up to a factor; None without such layers.
        grad_sq_norm: Running mean of the estimate of |G|², of the sampling distribution.
        grad_covariance_trace: Running mean of the estimate of tr Σ, for one example.
        sharpness: Largest rise of the training loss in a box around the weights, in percent of
            1 + the loss, after the last step alone.
        hessian_top_eigenvalue: Largest curvature of the training loss at these weights, likewise.
        examples_per_second: Training throughput since the last measurement.
        tokens_per_second: Input tokens a second, padding not counted, likewise.
        targets_per_second: Targets that counted in the loss a second, likewise.
        flops_per_example: Floating-point operations of a forward and backward pass, counted.
        peak_flops_per_second: The most that the workers' devices could do together: their data
            sheet's dense peak at this precision, or on a CPU a measured matrix product.
        model_flop_utilization: flops_per_example × examples_per_second over that peak, 0 … 1.
        num_parameters: Weights of the model.
        num_trained_parameters: Those of them that are trained.
        peak_memory_bytes: Most memory allocated on any worker's GPU in this trial; None on CPUs,
            where a process's memory is not one trial's.
        metrics: Further metrics of the task on the validation subset, as in accuracy.
    """

    step: int
    examples: int
    tokens: int | None
    seconds: float
    targets: int | None = None
    evaluation_seconds: float | None = None
    lr: float | None = None
    step_loss: float | None = None
    grad_norm: float | None = None
    clipped_fraction: float | None = None
    train_loss: float | None = None
    train_loss_stderr: float | None = None
    validation_loss: float | None = None
    validation_loss_stderr: float | None = None
    test_loss: float | None = None
    test_loss_stderr: float | None = None
    grad_noise_scale: float | None = None
    grad_noise_scale_stderr: float | None = None
    norm_layer_noise_scale: float | None = None
    grad_sq_norm: float | None = None
    grad_covariance_trace: float | None = None
    sharpness: float | None = None
    hessian_top_eigenvalue: float | None = None
    examples_per_second: float | None = None
    num_skipped_steps: float | None = None
    tokens_per_second: float | None = None
    targets_per_second: float | None = None
    flops_per_example: float | None = None
    peak_flops_per_second: float | None = None
    model_flop_utilization: float | None = None
    peak_memory_bytes: float | None = None
    num_parameters: float | None = None
    num_trained_parameters: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def scalars(self) -> dict[str, float]:
        """Every finite number measured, by name; `step` and `examples` included."""
        flat = {name: value for name, value in asdict(self).items() if name != "metrics"}
        flat |= self.metrics
        return {name: float(value) for name, value in flat.items() if is_finite(value)}

    @classmethod
    def from_scalars(cls, scalars: Mapping[str, float]) -> "Measurement":
        """The inverse of `scalars`; names that are not fields become `metrics`."""
        counts = ("step", "examples", "tokens", "targets")
        known = {f.name for f in fields(cls)} - {"metrics"}
        measured: dict[str, Any] = {"tokens": None}
        measured |= {n: int(v) if n in counts else v for n, v in scalars.items() if n in known}
        others = {n: v for n, v in scalars.items() if n not in known}
        return cls(**measured, metrics=others)


@dataclass(frozen=True)
class TrialRecord:
    """One trial: its recipe, how it ended, and all that was measured.

    Attributes:
        trial_id: Unique in the study, and the same when the study is resumed.
        cell: The scientific values that this trial belongs to, as in {"global_batch_size": 64};
            empty when the study has no scientific axis.
        choices: The nuisance values that the search drew (or the rule carried over).
        rule: In the transfer and branch phases, the rule that made the rate; else None.
        status: `done` ran to its budget, `stopped` was ended early by the search, `diverged`
            blew up, `failed` raised an error.
        error: One line, for `failed`.
        incidents: What happened to it besides training, each with its `kind`: `restarted` (its
            workers were lost; with the attempt and why), `resumed` (from the checkpoint of a
            step), `out_of_memory` (with the micro_batch_size from there on), `checkpoint_failed`
            (with why; the run went on), `checkpoint_passed_over` (with its step and what is wrong
            with it).
        measurements: By rising step.
        wall_seconds: From submission to the end.
        search_round: 0 in the ranges of the study file; 1 or 2 for a search trial beyond them.
    """

    trial_id: str
    phase: Phase
    cell: Mapping[str, Any]
    choices: Mapping[str, Any]
    recipe: Recipe
    status: Status = "running"
    rule: str | None = None
    measurements: tuple[Measurement, ...] = ()
    error: str | None = None
    wall_seconds: float | None = None
    incidents: tuple[Mapping[str, Any], ...] = ()
    search_round: int = 0

    @property
    def final(self) -> Measurement | None:
        """The last measurement that has a validation loss; None before the first."""
        evaluated = (m for m in reversed(self.measurements) if m.validation_loss is not None)
        return next(evaluated, None)

    @property
    def best_validation_loss(self) -> float | None:
        """The lowest validation loss along the run, in nats per target."""
        losses = [m.validation_loss for m in self.measurements if m.validation_loss is not None]
        return min(losses, default=None)

    def extended(self, measurements: Sequence[Measurement]) -> "TrialRecord":
        """This record with more measurements; a step measured before is kept as it was."""
        last = self.measurements[-1].step if self.measurements else -1
        new = tuple(m for m in measurements if m.step > last)
        return replace(self, measurements=self.measurements + new)

    def to_json(self) -> str:
        """One line of JSON, exact for every float."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "TrialRecord":
        """The inverse of `to_json`.

        Raises:
            ValueError: If the line is not a record, in one line that names the field.
        """
        raw = parse_mapping(line)
        try:
            _FORM.validate_json(line, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise ValueError(f"{name}: {first['msg']}" if name else first["msg"]) from None
        raw["recipe"]["batch_ramp_at_examples"] = tuple(raw["recipe"]["batch_ramp_at_examples"])
        raw["recipe"] = Recipe(**raw["recipe"])
        raw["measurements"] = tuple(Measurement(**m) for m in raw["measurements"])
        raw["incidents"] = tuple(raw["incidents"])
        return cls(**raw)


_FORM: Final = TypeAdapter(TrialRecord)


@dataclass(frozen=True)
class StudyRecord:
    """A study and its trials, from MLflow or from a run that just ended.

    Attributes:
        environment: Versions, hardware, commit, content hash of the data, start and end; what
            is needed to run it again, as plain strings and numbers.
        trial_urls: Where each trial's MLflow run can be read, by trial_id.
        notes: What was found with the study and left out, in sentences.
    """

    spec: StudySpec
    trials: tuple[TrialRecord, ...]
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trial_urls: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Crossing:
    """Where a run first reaches a target: steps, examples and training seconds, interpolated."""

    steps: float
    examples: float
    seconds: float


def crossing(measurements: Sequence[Measurement], target: Target) -> Crossing | None:
    """First point at which the validation loss is at or under the target.

    Between the evaluation before and the one that reaches it, steps are interpolated linearly
    in the logarithm of the loss (in the loss itself where it is not above zero). A loss that
    rises again afterwards changes nothing; measurements without a loss are passed over; where
    the first evaluation is there already, it counts, as an upper bound.

    Returns:
        None when no evaluation reaches the target (the trial is censored).
    """
    before: Measurement | None = None
    for now in measurements:
        loss = now.validation_loss
        if loss is None:
            continue
        if loss <= target.at_most:
            share = _log_share(before.validation_loss if before else None, loss, target.at_most)
            start = before or now
            return Crossing(
                steps=start.step + share * (now.step - start.step),
                examples=start.examples + share * (now.examples - start.examples),
                seconds=start.seconds + share * (now.seconds - start.seconds),
            )
        before = now
    return None


def _log_share(before: float | None, after: float, at_most: float) -> float:
    """How far between two losses, in log loss, the target lies; 1 when it is at the later one."""
    if before is None or before <= after:
        return 1.0
    if after <= 0:
        return (before - at_most) / (before - after)
    return math.log(before / at_most) / math.log(before / after)


CENSORED = 1e12  # above every number of steps or examples that a trial can take


def objective_value(record: TrialRecord, spec: StudySpec) -> float | None:
    """What the search minimizes, as one number; None for a trial with no finite outcome.

    For `steps_to_target` and `examples_to_target` a trial that reached the target is worth the
    steps or examples it took. A censored one is worth CENSORED × (1 + final loss / target), more
    than any that reached it, and of two censored trials the one with the lower final loss is
    better. This number only orders trials; it is never reported as a result.
    """
    final = record.final
    if record.status in ("diverged", "failed") or final is None or final.validation_loss is None:
        return None
    if spec.search.objective == "validation_loss" or spec.target is None:
        return final.validation_loss
    reached = crossing(record.measurements, spec.target)
    by_steps = spec.search.objective == "steps_to_target"
    if reached is not None:
        return reached.steps if by_steps else reached.examples
    return CENSORED * (1 + final.validation_loss / spec.target.at_most)


def best_trial(records: Sequence[TrialRecord], spec: StudySpec) -> TrialRecord | None:
    """The record with the lowest `objective_value`; of equals the first; None if none has one.

    A trial that was stopped early was measured at less than the budget, so it is the best only
    where none ran to its end.
    """
    if any(record.status == "done" for record in records):
        records = [record for record in records if record.status != "stopped"]
    valued = [(objective_value(record, spec), record) for record in records]
    finite = [
        (value, index, record) for index, (value, record) in enumerate(valued) if value is not None
    ]
    return min(finite, key=lambda entry: entry[:2])[2] if finite else None
