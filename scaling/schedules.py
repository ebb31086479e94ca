"""Learning rate against optimizer step; pure functions."""

import math


def schedule_value(
    position: float,
    *,
    schedule: str,
    warmup_steps: int,
    num_steps: int | None,
    min_lr_ratio: float = 0.0,
) -> float:
    """Learning rate over peak_lr at a real position of the run: warmup, then the schedule.

    Args:
        position: Optimizer steps since the start, not necessarily whole.
        schedule: What follows warmup: `constant` at 1; `linear` or `cosine` (half a period,
            Loshchilov & Hutter 2017, arXiv:1608.03983 eq. 5) from 1 at `warmup_steps` to
            `min_lr_ratio` at `num_steps`.
        warmup_steps: Steps over which the value rises linearly from 0 to 1.
        num_steps: Optimizer steps of the whole run; may be None for `constant`.
        min_lr_ratio: Value at the end of decay, and after it.

    Returns:
        A number between 0 and 1.

    Raises:
        ValueError: If the position or the warmup is negative, the schedule is unknown, or it
            decays and `num_steps` is None.
    """
    if not position >= 0 or warmup_steps < 0:
        raise ValueError(f"position {position} and warmup {warmup_steps} must not be negative")
    decay = _decay(schedule, position, warmup_steps, num_steps)
    if position < warmup_steps:
        return position / warmup_steps
    return min_lr_ratio + (1 - min_lr_ratio) * decay


def lr_at_step(
    step: int,
    *,
    peak_lr: float,
    schedule: str,
    warmup_steps: int,
    num_steps: int | None,
    min_lr_ratio: float = 0.0,
) -> float:
    """Learning rate with which one optimizer step is taken.

    Warmup is read at the end of the step and decay at its start, so that no step of the run is
    taken at a rate of 0: step 0 has `peak_lr / warmup_steps`, step `warmup_steps − 1` the peak,
    and step `num_steps − 1` still a rate above `min_lr_ratio × peak_lr`.

    Args:
        step: Index of the step, from 0.
        peak_lr: Learning rate at the end of warmup.
        schedule: As in `schedule_value`.
        warmup_steps: As in `schedule_value`.
        num_steps: As in `schedule_value`.
        min_lr_ratio: As in `schedule_value`.

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
    )
    return peak_lr * value


def _decay(schedule: str, position: float, warmup_steps: int, num_steps: int | None) -> float:
    """What is left of the decaying part of the rate, from 1 (end of warmup) to 0 (the end)."""
    if schedule == "constant":
        return 1.0
    if schedule not in ("linear", "cosine"):
        raise ValueError(f"unknown schedule {schedule!r}; known: constant, linear, cosine")
    if num_steps is None:
        raise ValueError(f"the {schedule} schedule needs num_steps, the length of the run")
    if position <= warmup_steps:
        return 1.0
    if position >= num_steps:
        return 0.0
    progress = (position - warmup_steps) / (num_steps - warmup_steps)
    return 1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
