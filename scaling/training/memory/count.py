"""How large a run is: parameters with and without embeddings, and tokens."""

import torch
from torch import nn

from scaling.records.scale import NUM_EXAMPLES, NUM_PARAMETERS, NUM_TOKENS, WITHOUT_EMBEDDINGS
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask, FinishedTask


def scale_of_training(spec: StudySpec, task: AnyTask) -> dict[str, float]:
    """What makes a study's runs large: parameters counted both ways, and tokens of the budget.

    Examples take the place of tokens where a task has none.
    """
    assert not isinstance(task, FinishedTask)
    if spec.workload.model is not None and spec.workload.model.pretrained is None:
        with torch.device("meta"):
            model = task.new_model(0)
    else:
        model = task.new_model(0)
    counted, budget = num_parameters(model), spec.budget
    if budget.tokens is not None:
        return {**counted, NUM_TOKENS: float(budget.tokens)}
    return {**counted, NUM_EXAMPLES: float(budget.examples or 0)}


def num_parameters(model: nn.Module) -> dict[str, float]:
    """Parameters of a model in all, and without embeddings and the head that predicts tokens."""
    every = {id(weight): weight.numel() for weight in model.parameters()}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    tables += [head] if isinstance(head, nn.Module) else []
    of_tables = {id(w): w.numel() for table in tables for w in table.parameters()}
    total = float(sum(every.values()))
    return {NUM_PARAMETERS: total, WITHOUT_EMBEDDINGS: total - sum(of_tables.values())}
