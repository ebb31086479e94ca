"""What a study would have of this machine."""

import os

from scaling.process import without_garbage_collection
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
    """Trials that run side by side on this machine's CPUs, one worker each under auto."""
    num_workers = spec.resources.num_workers
    num_cpus = (1 if num_workers == "auto" else num_workers) * spec.resources.cpus_per_worker
    at_once = int((os.cpu_count() or 1) // num_cpus) or 1
    return min(at_once, spec.resources.max_slots or at_once)
