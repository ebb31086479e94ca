"""Measures how fast a batch trains on one worker and on several, on a real worker group."""

from collections.abc import Sequence
from dataclasses import replace

from scaling.records import Measurement, Recipe
from scaling.runner.broker import Job
from scaling.runner.worker_pool import WorkerPool
from scaling.space import Facts, cells, hyperparameters, resolve
from scaling.spec import StudySpec
from scaling.training.checkpoint import remove_checkpoints

PROBE_SECONDS = 2.0
# Too small to blow up: only the time of a step counts.
_PROBE_LR = 1e-6


def measured_speeds(
    spec: StudySpec, facts: Facts, pairs: Sequence[tuple[int, int]], pool: WorkerPool
) -> dict[tuple[int, int], float]:
    """Training examples a second by (global batch size, world size), a few seconds each.

    A pair that fails, since it does not fit into memory for example, is left out.
    """
    speeds: dict[tuple[int, int], float] = {}
    for batch, world_size in pairs:
        job = Job(f"probe-{batch}-{world_size}", _recipe(spec, facts, batch, world_size))
        events = pool.execute(job)
        remove_checkpoints(pool.checkpoints_of(job.trial_id))
        measured = [
            Measurement(**values)
            for event in events
            if event["kind"] == "measured"
            for values in event["measurements"]
        ]
        if events[-1]["kind"] == "ended" and measured[-1].step > 0:
            speeds[batch, world_size] = measured[-1].examples / measured[-1].seconds
    return speeds


def _recipe(spec: StudySpec, facts: Facts, batch: int, world_size: int) -> Recipe:
    values = hyperparameters(spec, cells(spec)[0], {}) | {
        "global_batch_size": batch,
        "batch_ramp_every_examples": None,
        "batch_ramp_at_examples": None,
        "peak_lr": _PROBE_LR,
        "base_lr": None,
        "base_batch_size": None,
        "lr_scaling_rule": "none",
        "schedule": "constant",
        "beta2_scaling": "none",
        "weight_decay_scaling": "none",
        "warmup_steps": 0,
        "warmup_ratio": None,
        "warmup_examples": None,
    }
    here = replace(facts, world_sizes={batch: world_size})
    recipe = resolve(spec, values, seed=spec.seed, facts=here)
    return replace(recipe, num_steps=None, budget_seconds=PROBE_SECONDS)
