"""A module of the user's own, with its data, loss and metrics, from a factory."""

from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import Custom
from scaling.tasks.own.calling import arguments, own_code
from scaling.tasks.own.code import imported
from scaling.tasks.own.contract import require_contract
from scaling.tasks.own.module_task import ModuleTask, module_task
from scaling.tasks.own.reading import fixed_chance


def prepare(workload: Custom, evaluation: Evaluation) -> ModuleTask:
    """Import the factory and call it with its options; raises DataError."""
    path = "workload.factory"
    factory = imported(workload.factory, workload, path)
    options = arguments(factory, workload.options, "workload.options", workload.factory)
    with own_code(path, workload.factory), fixed_chance(0):
        made = factory(**options)
    return module_task(require_contract(made, path), workload, evaluation, path)
