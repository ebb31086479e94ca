"""What is measured along a trial."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from scaling.spec.fields import is_finite


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
