"""How far a run is, and what it has counted: all of it goes into a checkpoint."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.measures.noise_scale import RunningNoise
from scaling.records.measurement import Measurement
from scaling.training.gradient import StepGradient


@dataclass
class SinceMeasured:
    """Sums over the steps since the last measurement; `loss_sum` is this worker's own.

    Attributes:
        num_targets: Of the steps whose gradient was used, as `loss_sum` is.
        num_seen_targets: Of all steps, as `num_examples` and `seconds` are.
    """

    loss_sum: torch.Tensor
    num_targets: int = 0
    num_seen_targets: int = 0
    num_tokens: int = 0
    num_examples: int = 0
    num_steps: int = 0
    num_skipped: int = 0
    num_clipped: int = 0
    grad_norm_sum: float = 0.0
    seconds: float = 0.0


@dataclass
class Progress:
    """How far a run is, and what was measured on the way.

    Attributes:
        tokens: Input tokens read, padding not counted.
        targets: Targets that counted in the loss.
        seconds: Of training.
        evaluation_seconds: Of evaluation.
        warm_up_seconds: Of steps that were discarded before training began, or went on.
        examples_before: Examples seen before the last step.
        first_loss: Validation loss before the first step.
        num_skipped: Steps so far whose gradient was not finite and not used.
        measured: All measurements so far.
    """

    since: SinceMeasured
    step: int = 0
    examples: int = 0
    tokens: int = 0
    targets: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    warm_up_seconds: float = 0.0
    lr: float | None = None
    first_loss: float | None = None
    num_skipped: int = 0
    noise: RunningNoise = field(default_factory=RunningNoise)
    norm_layer_noise: RunningNoise = field(default_factory=RunningNoise)
    examples_before: int = 0
    measured: list[Measurement] = field(default_factory=list[Measurement])

    def add(
        self,
        gradient: StepGradient,
        *,
        num_examples: int,
        num_tokens: int,
        seconds: float,
        clipped: bool | None,
    ) -> None:
        """Count a step.

        Args:
            gradient: Of its batch.
            num_examples: In the batch.
            num_tokens: In the batch, padding not counted.
            seconds: That it took.
            clipped: Whether the gradient was clipped; None where it was not finite and not used,
                which leaves it out of all means over steps.
        """
        self.step += 1
        self.examples_before = self.examples
        self.examples += num_examples
        self.tokens += num_tokens
        self.targets += gradient.num_targets
        self.seconds += seconds
        since = self.since
        since.num_seen_targets += gradient.num_targets
        since.num_examples += num_examples
        since.num_tokens += num_tokens
        since.seconds += seconds
        if clipped is None:
            self.num_skipped += 1
            since.num_skipped += 1
            return
        since.loss_sum += gradient.loss_sum
        since.num_targets += gradient.num_targets
        since.num_steps += 1
        since.num_clipped += clipped
        since.grad_norm_sum += gradient.grad_norm
        if gradient.noise is not None:
            self.noise.add(gradient.noise)
        if gradient.norm_layer_noise is not None:
            self.norm_layer_noise.add(gradient.norm_layer_noise)

    def add_measurement(self, measurement: Measurement) -> None:
        """Keep one, and begin to sum up anew."""
        self.measured.append(measurement)
        if self.first_loss is None:
            self.first_loss = measurement.validation_loss
        self.since = SinceMeasured(torch.zeros_like(self.since.loss_sum))

    def state(self) -> dict[str, Any]:
        """What is the same on all workers, as plain numbers."""
        # asdict would copy the tensor, which differs by worker.
        since = asdict(replace(self.since, loss_sum=torch.zeros(())))
        del since["loss_sum"]
        names = (
            "step", "examples", "tokens", "targets", "seconds", "evaluation_seconds",
            "warm_up_seconds", "lr", "first_loss", "num_skipped",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        noise = {"noise": self.noise.state(), "norm_layer_noise": self.norm_layer_noise.state()}
        return {**own, "since": since, **noise}

    def own_numbers(self, device: torch.device) -> NDArray[np.float64]:
        """What differs by worker: the running loss, then the states of the random generators.

        One array, so that workers exchange it like any other numbers.
        """
        states = [torch.get_rng_state()]
        if device.type == "cuda":
            states.append(torch.cuda.get_rng_state(device))
        numbers = torch.cat([state.double() for state in states])
        return np.concatenate([[float(self.since.loss_sum)], numbers.numpy()])

    def restore(
        self, state: dict[str, Any], own: NDArray[np.float64], device: torch.device
    ) -> None:
        """Go on from what `state` and `own_numbers` gave; this attempt's own warm-up counts too."""
        values = dict(state)
        values["warm_up_seconds"] += self.warm_up_seconds
        self.noise.restore(values.pop("noise"))
        self.norm_layer_noise.restore(values.pop("norm_layer_noise"))
        since: dict[str, Any] = values.pop("since")
        loss_sum = self.since.loss_sum + float(own[0])
        self.since = SinceMeasured(loss_sum, **since)
        for name, value in values.items():
            setattr(self, name, value)
        generators = torch.from_numpy(own[1:]).to(torch.uint8)
        num_cpu = len(torch.get_rng_state())
        torch.set_rng_state(generators[:num_cpu])
        if device.type == "cuda":
            torch.cuda.set_rng_state(generators[num_cpu:], device)
