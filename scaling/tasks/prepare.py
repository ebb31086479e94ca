"""The one door to the task families.

A family is its section in `scaling.spec.workloads` and the module of its name here.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import TrainerFunctions
from scaling.spec.resources import Resources
from scaling.spec.study import StudySpec
from scaling.spec.workloads import Workload
from scaling.tasks.model.layers import matrices_to_cut
from scaling.tasks.model.requirements import require_model
from scaling.tasks.own.certificate import require_certificate, require_layout
from scaling.tasks.own.configured_optimizer import require_own_optimizer
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.task import AnyTask, Task
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainer_functions import (
    TrainerTask,
    require_functions,
    with_trainer_functions,
)


def prepare_task(workload: Workload, evaluation: Evaluation) -> AnyTask:
    """Read, split and encode a workload's data, by the family's own `prepare`.

    Raises:
        DataError: If the data cannot be used as the study file says.
    """
    family = import_module(f"scaling.tasks.{workload.task}")
    prepare: Callable[[Any, Evaluation], AnyTask] = family.prepare
    task = prepare(workload, evaluation)
    if isinstance(workload, TrainerFunctions) and workload.own_code:
        assert isinstance(task, TextTask)
        return with_trainer_functions(task, workload, family.FORWARD)
    return task


def prepare_tasks(spec: StudySpec) -> tuple[AnyTask, ...]:
    """The task of a study, or of each size of its ladder; raises as `prepare_task`."""
    return tuple(prepare_task(size.workload, size.evaluation) for size in spec.sizes or (spec,))


def require_trainable(
    task: Task,
    seed: int,
    *,
    dropout: float | None = None,
    resources: Resources = Resources(),  # noqa: B008  # immutable
    lora_ranks: Mapping[str, int] | None = None,
    optimizers: Collection[str] = (),
) -> None:
    """Build the model once, try it on a few training examples, and let it write where it will.

    Args:
        task: With its data.
        seed: Of the weights.
        dropout: One that the study sets, if any.
        resources: How it is to be trained.
        lora_ranks: Ranks that the study gives its adapters, by the dotted paths that say so; None
            for the model's own.
        optimizers: Names of those that trials may have.

    Raises:
        DataError: If the model cannot be built, or not read these data: a vocabulary or a length
            that it has no embeddings for, say; if it reads what it has to predict, or padding; or
            if its matrices cannot be cut. Of a module of the user's own: see `certificate`.
    """
    if isinstance(task, ModuleTask):
        require_certificate(task, seed)
        require_layout(task, resources)
        if "module" in optimizers:
            require_own_optimizer(task, seed, is_only_one=len(optimizers) == 1)
        return
    model = task.new_model(seed, dropout=dropout, lora_rank=1)
    if resources.num_parts > 1:
        matrices_to_cut(model, resources.num_parts)
    if isinstance(task, TrainerTask):
        require_model(task.without_functions(), model, seed, lora_ranks)
        require_functions(task, seed)
    else:
        require_model(task, model, seed, lora_ranks)
