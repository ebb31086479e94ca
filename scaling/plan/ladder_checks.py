"""What must hold of a ladder's sizes before the first trial."""

from collections.abc import Sequence
from dataclasses import replace

from scaling.plan.facts import scale_of
from scaling.records.scale import scale_names
from scaling.space.ladder import MIN_STEPS, flops_of, size_cells
from scaling.space.layout import Facts
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError
from scaling.tasks.task import AnyTask


def require_ladder(spec: StudySpec, tasks: Sequence[AnyTask]) -> None:
    """Check that sizes differ, each has a batch with steps enough, and one can pay and predict.

    Raises:
        DataError: If not.
    """
    sizes = tuple(
        Facts(task.num_train, task.tokens_per_example, scale=scale_of(size, task))
        for size, task in zip(spec.sizes, tasks, strict=True)
    )
    scales = [size.scale for size in sizes]
    if not scale_names(scales):
        raise DataError("ladder.sizes", "differ neither in parameters nor in tokens or examples")
    for number, scale in enumerate(scales):
        for name, value in scale.items():
            if value <= 0:
                message = f"{name} is {value:g}; it must be above 0"
                raise DataError(f"ladder.sizes.{number}", message)
    by_size = size_cells(spec, replace(Facts(None, None), sizes=sizes))
    for number, cells_of_size in enumerate(by_size):
        if not cells_of_size:
            remedy = "raise its budget, or list smaller batches"
            message = f"no batch size leaves a run {MIN_STEPS} steps; {remedy}"
            raise DataError(f"ladder.sizes.{number}", message)
    budget = spec.search.budget_flops
    least = sum(flops_of(scales[n]) for n in spec.ladder.searched) if spec.ladder else 0.0
    if budget is not None and budget < least:
        message = f"one trial of each size takes {least:.3g} operations (got {budget:.3g})"
        raise DataError("search.budget_flops", message)
    for number, size in enumerate(spec.predicted_sizes):
        try:
            scale_of(size)
        except DataError as error:
            raise error.within(f"ladder.predict.{number}") from error
