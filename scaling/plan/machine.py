"""What a study would have of this machine."""

import os

from scaling.process import without_garbage_collection
from scaling.runner.preflight import workers_on
from scaling.spec.study import StudySpec


def num_gpus_for(spec: StudySpec) -> int:
    """GPUs of this machine; zero where no trial of the study could have one.

    They are counted by torch, which is loaded only for a study that may use them.
    """
    if not (spec.workload.has_layers or spec.resources.num_gpus):
        return 0
    with without_garbage_collection():
        from scaling.training.memory.estimate import num_gpus_here

    return num_gpus_here()


def trials_at_once(spec: StudySpec) -> int:
    """Trials that run side by side on this machine, one worker each under auto."""
    num_gpus = num_gpus_for(spec)
    resources = spec.resources.with_gpus(num_gpus, trains=spec.workload.has_layers)
    here = {"CPU": os.cpu_count() or 1, "GPU": num_gpus}
    num_workers = 1 if resources.num_workers == "auto" else resources.num_workers
    at_once = workers_on(here, resources) // num_workers or 1
    return min(at_once, resources.max_slots or at_once)
