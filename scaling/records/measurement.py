"""What is measured along a trial and what a trial comes to: the one table of measurements."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

from scaling.records.metrics import Metric, metrics_of
from scaling.spec.fields import is_finite

_LOSS = "Mean per target (token or example), in evaluation mode on fixed examples"


@dataclass(frozen=True)
class Measurement:
    """What was measured after `step` optimizer steps.

    Each field says of itself what it is; a field that is added here is recorded, told to MLflow,
    shown in the table it names and explained among the report's terms. All losses of one
    measurement are at the same weights, the averaged ones where the recipe averages them; their
    `*_stderr` is the error of evaluating on a sample of the split, not of the seed.

    Attributes:
        metrics: Further metrics of the task on the validation subset, as in accuracy; the task
            says of them what the annotations say of the fields.
    """

    step: Annotated[int, Metric(
        "optimizer steps", "Optimizer steps taken.",
        unit="steps", is_count=True,
    )]  # fmt: skip
    examples: Annotated[int, Metric(
        "examples seen", "Training examples seen so far.",
        unit="examples", is_count=True,
    )]  # fmt: skip
    tokens: Annotated[int | None, Metric(
        "tokens", "Input tokens of the examples seen so far, padding not counted.",
        unit="tokens", is_count=True,
    )]  # fmt: skip
    seconds: Annotated[float, Metric(
        "training time", "Seconds of training so far, evaluation not counted.",
        unit="seconds", table="hardware", direction="minimize", least=0,
    )]  # fmt: skip
    targets: Annotated[int | None, Metric(
        "targets", "Targets that counted in the training loss so far.",
        unit="targets", is_count=True,
    )] = None  # fmt: skip
    evaluation_seconds: Annotated[float | None, Metric(
        "evaluation time", "Seconds of evaluation so far, the last one included.",
        unit="seconds", table="hardware", direction="minimize", least=0,
    )] = None  # fmt: skip
    warm_up_seconds: Annotated[float | None, Metric(
        "warm-up time", "Seconds of discarded steps before training began, or went on: kernels "
        "are loaded and blocks compiled; 0 in a process that trained alike before.",
        unit="seconds", over_seeds="max", direction="minimize",
    )] = None  # fmt: skip
    lr: Annotated[float | None, Metric(
        "final learning rate", "Learning rate of the last step.",
        over_seeds="max", table="optimization",
    )] = None  # fmt: skip
    step_loss: Annotated[float | None, Metric(
        "loss in training mode", "Mean training loss per target over the steps since the "
        "evaluation before the last, with dropout and label smoothing, which train_loss is "
        "without.",
        unit="nats", table="optimization",
    )] = None  # fmt: skip
    grad_norm: Annotated[float | None, Metric(
        "gradient norm", "Mean norm of the global gradient before clipping. Of noisy_quadratic it "
        "is that of one chain, the root of the mean square over them.",
        over_run="mean_over_steps", table="optimization", least=0,
    )] = None  # fmt: skip
    clipped_fraction: Annotated[float | None, Metric(
        "clipped steps", "Share of the steps whose gradient was clipped (with clip_value: one of "
        "its entries).",
        unit="fraction", over_run="mean_over_steps", table="optimization", least=0, most=1,
    )] = None  # fmt: skip
    train_loss: Annotated[float | None, Metric(
        "training loss", f"{_LOSS} of the training split.",
        unit="nats", direction="minimize", by_examples=True, table="cells",
    )] = None  # fmt: skip
    train_loss_stderr: float | None = None
    validation_loss: Annotated[float | None, Metric(
        "validation loss", f"{_LOSS}, at the end of the budget. Search picks on it.",
        unit="nats", direction="minimize", by_examples=True, table="cells",
    )] = None  # fmt: skip
    validation_loss_stderr: float | None = None
    test_loss: Annotated[float | None, Metric(
        "test loss", f"{_LOSS}, read once after the last step. Confirm reports it.",
        unit="nats", direction="minimize", by_examples=True, table="cells",
    )] = None  # fmt: skip
    test_loss_stderr: float | None = None
    grad_noise_scale: Annotated[float | None, Metric(
        "gradient noise scale", "Spread of single-example gradients over the size of their mean, "
        "tr Σ / |G|², from running means of both: near it, averaging more examples stops helping.",
        unit="examples", table="cells",
    )] = None  # fmt: skip
    grad_noise_scale_stderr: float | None = None
    norm_layer_noise_scale: Annotated[float | None, Metric(
        "noise scale of the normalization layers", "tr Σ / |G|² for the normalization layers' "
        "weights alone, a proxy that follows the gradient noise scale up to a factor.",
        unit="examples", over_seeds="geometric_mean", table="optimization",
    )] = None  # fmt: skip
    grad_sq_norm: Annotated[float | None, Metric(
        "|G|²", "Running mean of the estimate of the squared norm of the mean gradient.",
    )] = None  # fmt: skip
    grad_covariance_trace: Annotated[float | None, Metric(
        "tr Σ", "Running mean of the estimate of the trace of the covariance of single-example "
        "gradients.",
    )] = None  # fmt: skip
    sharpness: Annotated[float | None, Metric(
        "sharpness", "Largest rise of the training loss in a box around the weights, in percent "
        "of 1 + the loss, after the last step.",
        unit="percent", table="optimization", least=0,
    )] = None  # fmt: skip
    hessian_top_eigenvalue: Annotated[float | None, Metric(
        "largest curvature", "Top eigenvalue of the training loss's Hessian after the last step.",
        table="optimization",
    )] = None  # fmt: skip
    examples_per_second: Annotated[float | None, Metric(
        "examples per second", "Training examples per second, evaluation not counted.",
        unit="examples/s", over_run="mean_over_seconds", over_seeds="geometric_mean",
        table="hardware", direction="maximize",
    )] = None  # fmt: skip
    num_skipped_steps: Annotated[float | None, Metric(
        "skipped steps", "Steps whose float16 gradient overflowed and was not used.",
        unit="steps", is_count=True, table="optimization", direction="minimize", least=0,
    )] = None  # fmt: skip
    tokens_per_second: Annotated[float | None, Metric(
        "tokens per second", "Input tokens per second, padding and evaluation not counted.",
        unit="tokens/s", over_run="mean_over_seconds", over_seeds="geometric_mean",
        table="hardware", direction="maximize",
    )] = None  # fmt: skip
    targets_per_second: Annotated[float | None, Metric(
        "targets per second", "Targets that counted in the training loss, a second of training.",
        unit="targets/s", over_run="mean_over_seconds", over_seeds="geometric_mean",
        table="hardware", direction="maximize",
    )] = None  # fmt: skip
    flops_per_example: Annotated[float | None, Metric(
        "work per example", "Floating-point operations of a forward and backward pass, counted.",
        unit="FLOP", over_seeds="max", table="hardware",
    )] = None  # fmt: skip
    peak_flops_per_second: Annotated[float | None, Metric(
        "hardware peak", "The most that the workers' devices could do together: their data "
        "sheet's dense peak at this precision, or on a CPU a measured matrix product.",
        unit="FLOP/s", table="hardware", least=0,
    )] = None  # fmt: skip
    model_flop_utilization: Annotated[float | None, Metric(
        "model FLOP utilization", "FLOP per example × examples per second over the hardware peak "
        "(Chowdhery et al. 2022). What is computed again to save memory does not count.",
        unit="fraction", over_run="mean_over_seconds", over_seeds="geometric_mean",
        table="hardware", direction="maximize",
    )] = None  # fmt: skip
    peak_memory_bytes: Annotated[float | None, Metric(
        "peak memory", "Most memory allocated on any worker's GPU, with any seed. Not measured on "
        "CPUs, where a process's memory is not one trial's.",
        unit="bytes", over_run="max", over_seeds="max", table="hardware", direction="minimize",
    )] = None  # fmt: skip
    num_parameters: Annotated[float | None, Metric(
        "parameters", "Weights of the model.",
        is_count=True, over_seeds="max", table="hardware",
    )] = None  # fmt: skip
    num_trained_parameters: Annotated[float | None, Metric(
        "trained parameters", "Weights that are trained: with LoRA, those of the adapters.",
        is_count=True, over_seeds="max", table="hardware",
    )] = None  # fmt: skip
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    def scalars(self) -> dict[str, float]:
        """Every finite number measured, by name; `step` and `examples` included."""
        flat = {name: value for name, value in asdict(self).items() if name != "metrics"}
        flat |= self.metrics
        return {name: float(value) for name, value in flat.items() if is_finite(value)}

    @classmethod
    def from_scalars(cls, scalars: Mapping[str, float]) -> "Measurement":
        """The inverse of `scalars`; names that are not fields become `metrics`."""
        known = {f.name for f in fields(cls)} - {"metrics"}
        counts = {name for name, metric in MEASURED.items() if metric.is_count}
        measured: dict[str, Any] = {"tokens": None}
        measured |= {n: int(v) if n in counts else v for n, v in scalars.items() if n in known}
        others = {n: v for n, v in scalars.items() if n not in known}
        return cls(**measured, metrics=others)


@dataclass(frozen=True)
class TrialResult:
    """What a trial comes to at its end, derived from its measurements; None is what is not known.

    MLflow gets it beside the measurements, once a trial.
    """

    best_validation_loss: Annotated[float | None, Metric(
        "lowest validation loss", "The lowest validation loss along a run.",
        unit="nats", direction="minimize",
    )] = None  # fmt: skip
    generalization_gap: Annotated[float | None, Metric(
        "generalization gap", "Held-out loss − training loss: test in confirm, validation in "
        "search.",
        unit="nats", direction="minimize", table="cells",
    )] = None  # fmt: skip
    steps_to_target: Annotated[float | None, Metric(
        "steps to target", "Optimizer steps until the loss, or the target's metric, first reaches "
        "the target, interpolated between evaluations (of a loss in its logarithm); examples are "
        "steps × batch. A mean "
        "over the runs of the recipe for the target; beside it those of the fastest recipe of the "
        "search, biased low (selected and measured on the same trials). “> n”: a run went n steps "
        "without reaching it. A seed that nearly reached it has the steps expected of it.",
        unit="steps", direction="minimize", table="cells",
    )] = None  # fmt: skip
    examples_to_target: Annotated[float | None, Metric(
        "examples to target", "Training examples seen until the target is first reached.",
        unit="examples", direction="minimize", table="cells",
    )] = None  # fmt: skip
    seconds_to_target: Annotated[float | None, Metric(
        "time to target", "Seconds of training, evaluation not counted, until the target is first "
        "reached.",
        unit="seconds", direction="minimize", table="cells",
    )] = None  # fmt: skip


MEASURED: dict[str, Metric] = metrics_of(Measurement)
"""What is said of each field of `Measurement`, but for standard errors."""

RESULTS: dict[str, Metric] = metrics_of(TrialResult)
"""What is said of each field of `TrialResult`."""

RESERVED = frozenset(
    {f.name for f in fields(Measurement)} | {f"{name}_stderr" for name in MEASURED} | set(RESULTS)
)
"""Names that no metric of a task can have, since MLflow and the tables know them as others."""
