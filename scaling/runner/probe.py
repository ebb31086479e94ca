"""Measures how fast a batch trains on one worker and on several, on a real worker group."""

from collections.abc import Sequence
from dataclasses import replace

from scaling.records.measurement import Measurement
from scaling.runner.jobs import Job
from scaling.runner.worker_pool import WorkerPool
from scaling.space.layout import Facts
from scaling.space.recipe import timing_recipe
from scaling.spec.study import StudySpec
from scaling.training.checkpoint import remove_checkpoints

PROBE_SECONDS = 2.0


def measured_speeds(
    spec: StudySpec, facts: Facts, pairs: Sequence[tuple[int, int]], pool: WorkerPool
) -> dict[tuple[int, int], float]:
    """Training examples a second by (global batch size, world size), a few seconds each.

    A pair that fails, since it does not fit into memory for example, is left out.
    """
    speeds: dict[tuple[int, int], float] = {}
    for batch, world_size in pairs:
        recipe = timing_recipe(spec, facts, batch, world_size=world_size)
        limited = replace(recipe.hyperparameters, budget_seconds=PROBE_SECONDS)
        job = Job(f"probe-{batch}-{world_size}", replace(recipe, hyperparameters=limited))
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
