"""What a study would do: cells, trials, batch arithmetic, steps, memory; nothing is started."""

import os
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from scaling.branching import require_branches_fit
from scaling.range_extension import most_extension_trials
from scaling.space import (
    Cell,
    Facts,
    batch_ramp_of,
    cell_name,
    cells,
    hyperparameters,
    num_steps_of,
    num_trials,
    split_of,
    world_size_of,
)
from scaling.spec import NoisyQuadratic, Optimizer, StudySpec

if TYPE_CHECKING:
    from scaling.tasks.task import Task


def print_plan(spec: StudySpec, console: Console | None = None) -> None:
    """Print the plan of a study.

    The data are read for the memory, where they and the model are on this machine; from a hub
    only where the budget is in epochs or tokens.

    Raises:
        DataError: If the data have to be read and cannot be.
        BranchError: If a branch would pass the end of the run that it leaves.
    """
    console = console or Console(width=None if Console().is_terminal else 110)
    console.print(f"study {spec.name}: {spec.question}", markup=False, highlight=False)
    for phase, count in num_trials(spec).items():
        console.print(f"  {phase}: {count} trials", highlight=False)
    if more := most_extension_trials(spec):
        console.print(
            f"  search beyond a range that is too short: up to {more} trials more", highlight=False
        )
    total = sum(num_trials(spec).values())
    workers = (
        "one worker each, or more where that ends the study sooner"
        if spec.resources.num_workers == "auto"
        else f"{spec.resources.num_workers} workers each"
    )
    console.print(f"  in all: {total} trials on {workers}")
    task = _task(spec)
    facts = _facts(spec, task)
    require_branches_fit(spec, facts)
    console.print(_batch_table(spec, facts))
    if not isinstance(task, str):
        console.print(
            f"  an example has {task.tokens_per_example:.1f} input tokens, without padding, and "
            f"{task.targets_per_example:.1f} targets on average",
            highlight=False,
        )
    _print_memory(spec, facts, task, console)
    _print_time(spec, facts, task, console)
    searched = ", ".join(spec.nuisance.distributions()) or "nothing"
    console.print(
        f"searched in every cell: {searched} ({spec.search.sampler}, "
        f"{spec.search.trials_per_cell} trials a cell)",
        highlight=False,
    )


def _task(spec: StudySpec) -> "Task | str":
    """The data and model; why they are not looked at, where only the memory needs them."""
    if isinstance(spec.workload, NoisyQuadratic):
        return "noisy_quadratic needs a few megabytes"
    from scaling.tasks.hub import is_on_hub
    from scaling.tasks.sources import DataError
    from scaling.tasks.task import prepare_task, require_trainable

    needs_data = spec.budget.measure in ("epochs", "tokens")
    if is_on_hub(spec.workload) and not needs_data:
        return "the data or the model are on a hub"
    try:
        task = prepare_task(spec.workload, spec.evaluation)
    except DataError as error:
        if needs_data:
            raise
        return str(error)
    if spec.resources.num_parts > 1:
        require_trainable(task, spec.seed, num_parts=spec.resources.num_parts)
    return task


def _facts(spec: StudySpec, task: "Task | str") -> Facts:
    if isinstance(task, str):
        return Facts(num_train=None, tokens_per_example=None)
    from scaling.training.footprint import study_micro_batch_size

    bound = study_micro_batch_size(task, spec.workload, spec.resources)
    return Facts(task.num_train, task.tokens_per_example, largest_micro_batch_size=bound)


def _print_memory(spec: StudySpec, facts: Facts, task: "Task | str", console: Console) -> None:
    """One row for each batch size: bytes on each worker, by what takes them."""
    if isinstance(task, str):
        console.print(f"memory: not estimated: {task}", markup=False, highlight=False)
        return
    from scaling.training.footprint import study_footprint, trial_memory, worker_memory_bytes

    values = _heaviest(spec)
    found = study_footprint(task, spec.workload, spec.resources, lora_rank=values["lora_rank"])
    table = Table("MiB a worker", box=None, pad_edge=False)
    headings = ("parameters", "gradients", "optimizer", "activations", "workspace", "total")
    for heading in headings:
        table.add_column(heading, justify="right")
    available = worker_memory_bytes(spec.resources)
    for size in spec.batch_sizes():
        memory = trial_memory(found, spec.resources, values, split_of(spec, size, facts))
        is_too_much = available is not None and memory.total > available
        table.add_row(
            f"global_batch_size={size}",
            *(f"{getattr(memory, heading) / 2**20:,.1f}" for heading in headings),
            "more than there is" if is_too_much else "",
        )
    console.print(table)
    has = "not known here" if available is None else f"{available / 2**20:,.0f} MiB"
    console.print(f"  memory of a worker: {has}; its process takes some of it", highlight=False)


def _print_time(spec: StudySpec, facts: Facts, task: "Task | str", console: Console) -> None:
    """What training and evaluation take on this machine, from a few steps timed here."""
    reason = _not_timed(spec, task)
    if isinstance(task, str) or reason:
        console.print(f"time: not estimated: {reason}", markup=False, highlight=False)
        return
    from scaling.training.timing import branch_seconds, study_speed, trial_seconds

    speed = study_speed(task, spec, facts)
    seconds = branch_seconds(spec, facts, task, speed) + sum(
        count * trial_seconds(spec, facts, task, speed, cell, size)
        for cell, size, count in _trials(spec)
    )
    num_workers = spec.resources.num_workers
    assert num_workers != "auto"
    at_once = int((os.cpu_count() or 1) // (num_workers * spec.resources.cpus_per_worker)) or 1
    at_once = min(at_once, spec.resources.max_slots or at_once)
    total = seconds / at_once
    words = f"{total / 60:.1f} min" if total < 5400 else f"{total / 3600:.1f} h"
    console.print(
        f"time: about {words} of training and evaluation on this machine, "
        f"{at_once} trials at once; start-up, workers' exchange and the report are not in it",
        highlight=False,
    )


def _not_timed(spec: StudySpec, task: "Task | str") -> str:
    resources = spec.resources
    if isinstance(task, str):
        return "only a workload with a model is timed" if "noisy" in task else task
    if resources.gpus_per_worker > 0:
        return "the workers train on GPUs"
    if resources.num_workers == "auto":
        return "the workers of a trial are decided when the study runs"
    return ""


def _trials(spec: StudySpec) -> list[tuple[Cell, int, float]]:
    """Each cell and batch size with its trials that run to the budget, those of branches apart.

    A searched batch size has its share of them.
    """
    counts = {phase: count for phase, count in num_trials(spec).items() if phase != "branch"}
    listed: list[tuple[Cell, int, float]] = []
    for cell in cells(spec):
        batch: int | None = hyperparameters(spec, cell, {})["global_batch_size"]
        sizes = [batch] if batch is not None else list(spec.batch_sizes())
        each = sum(counts.values()) / len(cells(spec)) / len(sizes)
        if spec.transfer is not None and batch is not None:
            each -= counts["transfer"] / len(cells(spec))
            if batch != spec.transfer.base_batch_size:
                each += len(spec.transfer.rules) * spec.transfer.num_seeds
        listed += [(cell, size, each) for size in sizes]
    return listed


def _heaviest(spec: StudySpec) -> dict[str, Any]:
    """Hyperparameters that take the most memory of all that the study may try."""
    from scaling.measures.memory import moments_of

    searched = spec.nuisance.distributions()
    all_values = [hyperparameters(spec, cell, {}) for cell in cells(spec)]
    averages = any(v["weight_average_half_life_examples"] is not None for v in all_values)
    has_momentum = any(v["momentum"] for v in all_values) or "momentum" in searched
    optimizers: list[Optimizer] = [v["optimizer"] for v in all_values]
    if spec.nuisance.optimizer is not None:
        optimizers = list(spec.nuisance.optimizer.choice)
    ranks = [v["lora_rank"] for v in all_values if v["lora_rank"] is not None]
    if spec.nuisance.lora_rank is not None:
        ranks = list(spec.nuisance.lora_rank.choice)
    return {
        "optimizer": max(optimizers, key=lambda o: moments_of(o, has_momentum=has_momentum)),
        "momentum": float(has_momentum),
        "lora_rank": max(ranks, default=None),
        "weight_average_half_life_examples": (
            1.0 if averages or "weight_average_half_life_examples" in searched else None
        ),
    }


def _batch_table(spec: StudySpec, facts: Facts) -> Table:
    """One row for each batch size of each cell: global = workers × micro-batch × accumulation."""
    table = Table("cell", box=None, pad_edge=False)
    for heading in (
        "global_batch_size", "workers", "micro_batch_size", "grad_accum_steps", "steps", "examples"
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for cell in cells(spec):
        values = hyperparameters(spec, cell, {})
        batch: int | None = values["global_batch_size"]
        for size in [batch] if batch is not None else spec.batch_sizes():
            split = split_of(spec, size, facts)
            ramp = batch_ramp_of({**values, "global_batch_size": size})
            steps = num_steps_of(spec, ramp, facts)
            table.add_row(
                cell_name(cell),
                str(size),
                str(world_size_of(spec, size, facts)),
                str(split.micro_batch_size),
                str(split.grad_accum_steps),
                "by time" if steps is None else str(steps),
                "by time" if steps is None else str(ramp.examples_after(steps)),
            )
    return table
