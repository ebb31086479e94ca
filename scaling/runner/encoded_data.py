"""Data that the driver has read and encoded, for the workers: in each node's memory once.

Reading and encoding takes minutes for some hundred thousand texts, and each worker would do it
anew and keep its own copy. Ray's object store maps the arrays into every process of a node.
"""

from collections.abc import Sequence
from typing import Any

import ray

from scaling.spec.study import StudySpec
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import AnyTask


def shared_tasks(spec: StudySpec, tasks: Sequence[AnyTask]) -> tuple[Any, ...]:
    """What workers get of a study's tasks, of a ladder one a size.

    Returns:
        A reference each, or None for what only a file of the user's own can make: each worker
        prepares that by itself.
    """
    return tuple(None if spec.workload.own_code else ray.put(task) for task in tasks)


def received_tasks(specs: Sequence[StudySpec], references: Sequence[Any]) -> tuple[AnyTask, ...]:
    """The tasks of a study, or of each size of its ladder, on a worker.

    Args:
        specs: With code of the user's own where this machine has it.
        references: From `shared_tasks`.
    """
    return tuple(
        prepare_task(spec.workload, spec.evaluation) if reference is None else ray.get(reference)
        for spec, reference in zip(specs, references, strict=True)
    )
