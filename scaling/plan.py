"""What a study would do: cells, trials, batch arithmetic and steps; nothing is started."""

from rich.console import Console
from rich.table import Table

from scaling.batching import split_batch
from scaling.space import (
    Facts,
    batch_ramp_of,
    cell_name,
    cells,
    hyperparameters,
    num_steps_of,
    num_trials,
    world_size_of,
)
from scaling.spec import StudySpec


def print_plan(spec: StudySpec, console: Console | None = None) -> None:
    """Print the plan of a study.

    Only a budget in epochs or tokens needs the data to be read for it.

    Raises:
        DataError: If the data have to be read and cannot be.
    """
    console = console or Console(width=None if Console().is_terminal else 110)
    console.print(f"study {spec.name}: {spec.question}", markup=False, highlight=False)
    for phase, count in num_trials(spec).items():
        console.print(f"  {phase}: {count} trials", highlight=False)
    total = sum(num_trials(spec).values())
    workers = (
        "one worker each, or more where that ends the study sooner"
        if spec.resources.num_workers == "auto"
        else f"{spec.resources.num_workers} workers each"
    )
    console.print(f"  in all: {total} trials on {workers}")
    console.print(_batch_table(spec, _facts(spec)))
    searched = ", ".join(spec.nuisance.distributions()) or "nothing"
    console.print(
        f"searched in every cell: {searched} ({spec.search.sampler}, "
        f"{spec.search.trials_per_cell} trials a cell)",
        highlight=False,
    )


def _facts(spec: StudySpec) -> Facts:
    if spec.budget.measure not in ("epochs", "tokens"):
        return Facts(num_train=None, targets_per_example=1.0)
    from scaling.tasks.task import prepare_task

    task = prepare_task(spec.workload, spec.evaluation)
    return Facts(task.num_train, task.targets_per_example)


def _batch_table(spec: StudySpec, facts: Facts) -> Table:
    """One row for each batch size of each cell: global = workers × micro-batch × accumulation."""
    table = Table("cell", box=None, pad_edge=False)
    for heading in (
        "global_batch_size", "workers", "micro_batch_size", "grad_accum_steps", "steps", "examples"
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    resources = spec.resources
    for cell in cells(spec):
        values = hyperparameters(spec, cell, {})
        batch: int | None = values["global_batch_size"]
        for size in [batch] if batch is not None else spec.batch_sizes():
            world_size = world_size_of(spec, size, facts)
            split = split_batch(
                size, world_size=world_size, micro_batch_size=resources.micro_batch_size
            )
            ramp = batch_ramp_of({**values, "global_batch_size": size})
            steps = num_steps_of(spec, ramp, facts)
            table.add_row(
                cell_name(cell),
                str(size),
                str(split.world_size),
                str(split.micro_batch_size),
                str(split.grad_accum_steps),
                "by time" if steps is None else str(steps),
                "by time" if steps is None else str(ramp.examples_after(steps)),
            )
    return table
