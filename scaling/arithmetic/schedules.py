"""Learning rate against optimizer step; pure functions."""

import math


def schedule_value(
    position: float,
    *,
    schedule: str,
    warmup_steps: int,
    num_steps: int | None,
    min_lr_ratio: float = 0.0,
    decay_ratio: float = 0.2,
    decay_shape: str = "linear",
) -> float:
    """Learning rate over peak_lr at a real position of the run: warmup, then the schedule.

    Args:
        position: Optimizer steps since the start, not necessarily whole.
        schedule: What follows warmup: `constant` at 1; `linear` or `cosine` (half a period,
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

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: If the position or the warmup is negative, the schedule or the shape of its
            decay is unknown, it decays towards an end and `num_steps` is None, or `decay_ratio`
            is not above 0 and at most 1.
    """
    if not position >= 0 or warmup_steps < 0:
        raise ValueError(f"position {position} and warmup {warmup_steps} must not be negative")
    start = _decay_start(schedule, warmup_steps, num_steps, decay_ratio)
    if position < warmup_steps:
        return position / warmup_steps
    if schedule == "inverse_sqrt":
        return math.sqrt(max(warmup_steps, 1) / max(position, warmup_steps, 1))
    if start is None or num_steps is None or position <= start:
        return 1.0
    shape = decay_shape if schedule == "wsd" else schedule
    share = min(1.0, (position - start) / (num_steps - start)) if num_steps > start else 1.0
    return min_lr_ratio + (1 - min_lr_ratio) * _left_of_decay(shape, share)


def lr_at_step(
    step: float,
    *,
    peak_lr: float,
    schedule: str,
    warmup_steps: int,
    num_steps: int | None,
    min_lr_ratio: float = 0.0,
    decay_ratio: float = 0.2,
    decay_shape: str = "linear",
) -> float:
    """Learning rate with which one optimizer step is taken.

    Warmup is read at the end of the step and decay at its start, so that no step of the run is
    taken at a rate of 0: step 0 has `peak_lr / warmup_steps`, step `warmup_steps − 1` the peak,
    and step `num_steps − 1` still a rate above `min_lr_ratio × peak_lr`.

    Args:
        step: Index of the step, from 0; of a branch, in steps of the run that it left, which
            need not be whole.
        peak_lr: Learning rate at the end of warmup.
        schedule: As in `schedule_value`.
        warmup_steps: As in `schedule_value`.
        num_steps: As in `schedule_value`.
        min_lr_ratio: As in `schedule_value`.
        decay_ratio: As in `schedule_value`.
        decay_shape: As in `schedule_value`.

    Returns:
        A rate in the unit of `peak_lr`.

    Raises:
        ValueError: As `schedule_value`.
    """
    value = schedule_value(
        step + 1 if 0 <= step < warmup_steps else step,
        schedule=schedule,
        warmup_steps=warmup_steps,
        num_steps=num_steps,
        min_lr_ratio=min_lr_ratio,
        decay_ratio=decay_ratio,
        decay_shape=decay_shape,
    )
    return peak_lr * value


def _decay_start(
    schedule: str, warmup_steps: int, num_steps: int | None, decay_ratio: float
) -> float | None:
    """Where the decay towards the end of the run starts, in steps; None for no such decay."""
    if schedule in ("constant", "inverse_sqrt"):
        return None
    if schedule not in ("linear", "cosine", "wsd"):
        raise ValueError(
            f"unknown schedule {schedule!r}; known: constant, linear, cosine, inverse_sqrt, wsd"
        )
    if num_steps is None:
        raise ValueError(f"the {schedule} schedule needs num_steps, the length of the run")
    if schedule != "wsd":
        return warmup_steps
    if not 0 < decay_ratio <= 1:
        raise ValueError(f"decay_ratio {decay_ratio} must be above 0 and at most 1")
    return max(warmup_steps, num_steps * (1 - decay_ratio))


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
