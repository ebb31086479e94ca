"""The one door to the task families.

A family is its section in `scaling.spec.workloads` and the module of its name here, which is
imported when its data are asked for: a study loads what its own family needs.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from scaling.process import without_garbage_collection
from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import TrainerFunctions
from scaling.spec.study import StudySpec
from scaling.spec.workloads import Workload
from scaling.tasks.task import AnyTask


def prepare_task(workload: Workload, evaluation: Evaluation) -> AnyTask:
    """Read, split and encode a workload's data, by the family's own `prepare`.

    Raises:
        DataError: If the data cannot be used as the study file says.
    """
    with without_garbage_collection():
        family = import_module(f"scaling.tasks.{workload.task}")
    prepare: Callable[[Any, Evaluation], AnyTask] = family.prepare
    task = prepare(workload, evaluation)
    if isinstance(workload, TrainerFunctions) and workload.own_code:
        from scaling.tasks.text_task import TextTask
        from scaling.tasks.trainer_functions import with_trainer_functions

        assert isinstance(task, TextTask)
        return with_trainer_functions(task, workload, family.FORWARD)
    return task


def prepare_tasks(spec: StudySpec) -> tuple[AnyTask, ...]:
    """The task of a study, or of each size of its ladder; raises as `prepare_task`."""
    return tuple(prepare_task(size.workload, size.evaluation) for size in spec.sizes or (spec,))
