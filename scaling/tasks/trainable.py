"""What is tried of a task's model before it is trained."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from scaling.spec.resources import Resources
from scaling.tasks.model.layers import matrices_to_cut
from scaling.tasks.model.requirements import require_model
from scaling.tasks.own.certificate import require_certificate, require_layout
from scaling.tasks.own.configured_optimizer import require_own_optimizer
from scaling.tasks.own.module_task import ModuleTask
from scaling.tasks.task import Task
from scaling.tasks.trainer_functions import TrainerTask, require_functions

SMALL_MODEL = 10**6  # weights


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
    with _threads_for(model):
        if isinstance(task, TrainerTask):
            require_model(task.without_functions(), model, seed, lora_ranks)
            require_functions(task, seed)
        else:
            require_model(task, model, seed, lora_ranks)


@contextmanager
def _threads_for(model: nn.Module) -> Iterator[None]:
    """One thread for a small model: several wait for each other longer than they compute.

    Where other work holds a core they wait a hundred times as long.
    """
    before = torch.get_num_threads()
    if sum(weight.numel() for weight in model.parameters()) <= SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
