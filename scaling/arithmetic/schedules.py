"""Learning rate against optimizer step; pure functions."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate over peak_lr along a run: warmup, then what the schedule's name says.

    Attributes:
        name: What follows warmup: `constant` at 1; `linear` or `cosine` (half a period,
            Loshchilov & Hutter 2017, arXiv:1608.03983 eq. 5) from 1 at `warmup_steps` to
            `min_lr_ratio` at `num_steps`; `inverse_sqrt`, √(warmup_steps / position) with
            warmup_steps 1 for 0 (Vaswani et al. 2017, arXiv:1706.03762 eq. 3, over its peak);
            `wsd`, at 1 until the last `decay_ratio` of the steps, which fall to `min_lr_ratio`
            (Hu et al. 2024, arXiv:2404.06395).
        warmup_steps: Steps over which the value rises linearly from 0 to 1.
        num_steps: Optimizer steps of the whole run; may be None for `constant`, `inverse_sqrt`.
        min_lr_ratio: Value at the end of decay, and after it.
        decay_ratio: Share of `num_steps` that decays at the end of `wsd`; what warmup leaves of
            it where the two overlap.
        decay_shape: How `wsd` falls with the share s of its decay: `linear`, `cosine` as above,
            or `one_minus_sqrt`, 1 − √s (Hägele et al. 2024, arXiv:2405.18392).
    """

    name: str
    warmup_steps: int
    num_steps: int | None
    min_lr_ratio: float = 0.0
    decay_ratio: float = 0.2
    decay_shape: str = "linear"

    def value(self, position: float) -> float:
        """A number between 0 and 1, at so many optimizer steps, not necessarily whole.

        Raises:
            ValueError: If the position or the warmup is negative, the schedule or the shape of its
                decay is unknown, it decays towards an end and `num_steps` is None, or
                `decay_ratio` is not above 0 and at most 1.
        """
        warmup_steps, num_steps = self.warmup_steps, self.num_steps
        if not position >= 0 or warmup_steps < 0:
            raise ValueError(f"position {position} and warmup {warmup_steps} must not be negative")
        start = self._decay_start()
        if position < warmup_steps:
            return position / warmup_steps
        if self.name == "inverse_sqrt":
            return math.sqrt(max(warmup_steps, 1) / max(position, warmup_steps, 1))
        if start is None or num_steps is None or position <= start:
            return 1.0
        shape = self.decay_shape if self.name == "wsd" else self.name
        share = min(1.0, (position - start) / (num_steps - start)) if num_steps > start else 1.0
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * _left_of_decay(shape, share)

    def of_step(self, step: float) -> float:
        """The value with which one optimizer step is taken.

        Warmup is read at the end of the step and decay at its start, so that no step of the run
        is taken at a rate of 0: step 0 has 1 / `warmup_steps`, step `warmup_steps` − 1 has 1, and
        step `num_steps` − 1 still more than `min_lr_ratio`.

        Args:
            step: Index of the step, from 0; of a branch, in steps of the run that it left, which
                need not be whole.

        Raises:
            ValueError: As `value`.
        """
        return self.value(step + 1 if 0 <= step < self.warmup_steps else step)

    def _decay_start(self) -> float | None:
        """Where the decay towards the end of the run starts, in steps; None for no such decay."""
        if self.name in ("constant", "inverse_sqrt"):
            return None
        if self.name not in ("linear", "cosine", "wsd"):
            raise ValueError(
                f"unknown schedule {self.name!r}; known: constant, linear, cosine, inverse_sqrt, "
                "wsd"
            )
        if self.num_steps is None:
            raise ValueError(f"the {self.name} schedule needs num_steps, the length of the run")
        if self.name != "wsd":
            return self.warmup_steps
        if not 0 < self.decay_ratio <= 1:
            raise ValueError(f"decay_ratio {self.decay_ratio} must be above 0 and at most 1")
        return max(self.warmup_steps, self.num_steps * (1 - self.decay_ratio))


def _left_of_decay(shape: str, share: float) -> float:
    """What is left, from 1 to 0, when a share of the decay is over."""
    match shape:
        case "linear":
            return 1 - share
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        case "one_minus_sqrt":
            return 1 - math.sqrt(share)
        case _:
            raise ValueError(
                f"unknown decay_shape {shape!r}; known: linear, cosine, one_minus_sqrt"
            )
