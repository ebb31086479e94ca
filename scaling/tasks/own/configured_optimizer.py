"""The optimizer of a LightningModule's configure_optimizers, where a study asks for it."""

from scaling.optimizers.module import at_rate, configured_parts
from scaling.tasks.errors import DataError
from scaling.tasks.own.calling import own_code
from scaling.tasks.own.module_task import LossModule, ModuleTask


def require_own_optimizer(task: ModuleTask, seed: int, *, is_only_one: bool) -> None:
    """Check that a module configures an optimizer whose rate a study can set, and note it.

    Args:
        task: Its `optimizer_note` becomes what the report says.
        seed: Of the weights.
        is_only_one: Whether every trial has it.

    Raises:
        DataError: If the module's code raises, or gives no optimizer that can be used.
    """
    model = task.new_model(seed)
    assert isinstance(model, LossModule)
    with own_code(task.path, "configure_optimizers"):
        configured = model.configure_optimizers()
    try:
        optimizer = at_rate(configured, model, 1.0)
    except ValueError as error:
        raise DataError(task.path, f"configure_optimizers {error}") from error
    rates = [group["lr_ratio"] for group in optimizer.param_groups]
    note = f"configure_optimizers sets the optimizer ({type(optimizer).__name__})"
    if not is_only_one:
        note += " where optimizer is module"
    note += "; the study file sets its peak rate"
    if len(set(rates)) > 1:
        note += ", and the rates of its groups keep their ratios"
    note += "."
    if configured_parts(configured)[1]:
        note += " Its scheduler is not used: the study file sets the schedule."
    task.optimizer_note = note
