"""What a study would do: cells, trials, batch arithmetic, steps, memory; nothing is started."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaling.command.ladder_plan import print_sizes
from scaling.command.start import Start
from scaling.command.start_checks import describe_place, require_tasks, start_notes
from scaling.optimizers.catalog import num_moments
from scaling.search.proposals import limit_words, surface_search
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import Cell, cells, hyperparameters
from scaling.space.extension import most_extension_trials
from scaling.space.layout import Facts, split_of, world_size_of
from scaling.space.rounds import default_round_size
from scaling.space.trials import num_trials
from scaling.spec.checks.sizes import num_cells
from scaling.spec.hyperparameters import Given
from scaling.spec.issues import shown
from scaling.spec.study import StudySpec
from scaling.tasks.data.overview import SplitSummary
from scaling.tasks.task import AnyTask, FinishedTask, TaskData, described
from scaling.training import timing
from scaling.training.memory.count import scale_of
from scaling.training.memory.estimate import (
    num_gpus_here,
    study_footprint,
    study_micro_batch_size,
    trial_memory,
    worker_memory_bytes,
)

_MAX_ROWS = 100  # of batches
_MAX_CLASSES = 20
_MAX_TIMED = 1000  # cells and batch sizes whose trials are estimated, evenly spread over all


def print_plan(
    spec: StudySpec,
    console: Console | None = None,
    *,
    start: Start | None = None,
    tasks: Sequence[AnyTask] | None = None,
) -> None:
    """Print the plan of a study: trials, batches, data, memory and time.

    Args:
        spec: The study.
        console: Where to; standard output where left out.
        start: How it is asked to start, for what a plan cannot know.
        tasks: The study's, from `require_tasks`; read here where left out.

    Raises:
        DataError, BranchError: As `require_tasks`.
    """
    console = console or Console(width=None if Console().is_terminal else 110)
    tasks = tasks or require_tasks(spec)
    gpus = num_gpus_here()
    spec = spec.with_gpus(gpus) if start is None else start.with_gpus(gpus)
    task = tasks[0]
    print_line(console, f"study {spec.name}: {spec.question}")
    for phase, count in num_trials(spec).items():
        how = f"{count} trials"
        if phase == "search" and spec.search.is_joint:
            how = f"{'at most ' if may_stop(spec) else ''}{how} {_rounds(spec, task)}"
        print_line(console, f"  {phase}: {how}")
    if more := most_extension_trials(spec):
        print_line(console, f"  search beyond a range that is too short: up to {more} trials more")
    total = sum(num_trials(spec).values())
    workers = (
        "one worker each, or more where that ends the study sooner"
        if spec.resources.num_workers == "auto"
        else f"{spec.resources.num_workers} worker{'s' * (spec.resources.num_workers > 1)} each"
    )
    at_most = "at most " if may_stop(spec) else ""
    print_line(console, f"  in all: {at_most}{total} trials on {workers}, {_gpus(spec)}")
    facts = facts_of(spec, tasks)
    if spec.ladder is None:
        _print_batches(spec, facts, console)
    else:
        print_sizes(spec, facts, tasks, console)
    print_data(task, console)
    if task.tokens_per_example is not None:
        print_line(
            console,
            f"  an example has {task.tokens_per_example:.1f} input tokens, without padding, and "
            f"{task.targets_per_example:.1f} targets on average",
        )
    for note in (*start_notes(spec, task), *(describe_place(start) if start else ())):
        print_line(console, f"  {note}")
    # Of a ladder the largest size takes the most memory; its times stand with the sizes.
    largest = spec.sizes[-1] if spec.sizes else spec
    _print_memory(largest, facts.sizes[-1] if facts.sizes else facts, tasks[-1], console)
    if spec.ladder is None:
        _print_time(spec, facts, task, console)
    where = "at every size" if spec.ladder else "in every cell"
    searched = ", ".join(spec.nuisance.distributions()) or "nothing"
    print_line(
        console,
        f"searched {where}: {searched} ({spec.search.sampler}, {_how_many(spec)})",
    )


def _gpus(spec: StudySpec) -> str:
    """What its workers have of GPUs."""
    gpus = spec.resources.gpus_per_worker
    if gpus == "auto":
        return "with a GPU a worker if the cluster has any"
    return f"with {gpus:g} GPU{'s' * (gpus > 1)} a worker" if gpus else "without GPUs"


def may_stop(spec: StudySpec) -> bool:
    """Whether the search may end before all of its trials have run."""
    return spec.search.is_joint and spec.search.stop is not None


def round_size_of(spec: StudySpec) -> int:
    """Trials of a round of a search by the surface, where it starts on this machine."""
    search = spec.search
    return search.round_size or default_round_size(search.most_trials, trials_at_once(spec))


def _how_many(spec: StudySpec) -> str:
    search = spec.search
    if not search.is_joint:
        return f"{search.trials_per_cell} trials a cell"
    if search.budget_flops is not None:
        return f"trials of {search.budget_flops:.3g} floating-point operations in all"
    return f"{'at most ' if search.stop else ''}{search.most_trials} trials over all cells"


def _rounds(spec: StudySpec, task: AnyTask) -> str:
    """How a search by the surface goes, and when it stops."""
    size = round_size_of(spec)
    if spec.ladder is not None:
        return f"over all sizes, in rounds of {size} after a first design"
    first = surface_search(spec, size).num_in_design
    stop = f"; stops once {limit}" if (limit := limit_words(spec, described(task))) else ""
    return f"over all cells, {first} at first and then in rounds of {size}{stop}"


def print_line(console: Console, line: str) -> None:
    """Print a line as it is, without markup."""
    console.print(line, markup=False, highlight=False)


def facts_of(spec: StudySpec, tasks: Sequence[AnyTask]) -> Facts:
    """What a plan needs to know beside the study file."""
    sizes = tuple(
        _facts_of_one(size, task, scale_of(size, task))
        for size, task in zip(spec.sizes, tasks, strict=False)
    )
    predicted = tuple(map(scale_of, spec.predicted_sizes))
    return replace(_facts_of_one(spec, tasks[0], {}), sizes=sizes, predicted=predicted)


def _facts_of_one(spec: StudySpec, task: AnyTask, scale: Mapping[str, float]) -> Facts:
    bound = study_micro_batch_size(task, spec.workload, spec.resources)
    return Facts(
        task.num_train, task.tokens_per_example, largest_micro_batch_size=bound, scale=scale,
        metrics=described(task),
    )  # fmt: skip


def _print_memory(spec: StudySpec, facts: Facts, task: AnyTask, console: Console) -> None:
    """One row for each batch size: bytes on each worker, by what takes them."""
    if isinstance(task, FinishedTask) or not spec.workload.has_layers:
        what = f"{spec.workload.task} needs a few megabytes"
        print_line(console, f"memory: not estimated: {what}")
        return
    heaviest = _heaviest(spec)
    found = study_footprint(task, spec.workload, spec.resources, lora_rank=heaviest.lora_rank)
    if found is None:
        print_line(console, "memory: not estimated: the loss reads values of tensors")
        return
    table = Table("MiB a worker", box=None, pad_edge=False)
    headings = ("parameters", "gradients", "optimizer", "activations", "workspace", "total")
    for heading in headings:
        table.add_column(heading, justify="right")
    available = worker_memory_bytes(spec.resources)
    for size in spec.batch_sizes():
        memory = trial_memory(found, spec.resources, heaviest, split_of(spec, size, facts))
        is_too_much = available is not None and memory.total > available
        table.add_row(
            f"global_batch_size={size}",
            *(f"{getattr(memory, heading) / 2**20:,.1f}" for heading in headings),
            "more than there is" if is_too_much else "",
        )
    console.print(table)
    has = "not known here" if available is None else f"{available / 2**20:,.0f} MiB"
    console.print(f"  memory of a worker: {has}; its process takes some of it", highlight=False)


def _print_time(spec: StudySpec, facts: Facts, task: AnyTask, console: Console) -> None:
    """What training and evaluation take on this machine, from a few steps timed here."""
    if isinstance(task, FinishedTask):
        print_line(console, "time: some seconds, since nothing is trained")
        return
    if reason := _not_timed(spec):
        print_line(console, f"time: not estimated: {reason}")
        return
    speed = timing.study_speed(task, spec, facts)
    trials = _trials(spec)
    timed = trials[:: -(-len(trials) // _MAX_TIMED)]
    share = sum(count for *_, count in timed) / sum(count for *_, count in trials)
    seconds = timing.branch_seconds(spec, facts, task, speed) + sum(
        count * timing.trial_seconds(spec, facts, task, speed, cell, size) / share
        for cell, size, count in timed
    )
    at_once = trials_at_once(spec)
    at_most = "at most " if may_stop(spec) else ""
    console.print(
        f"time: {at_most}about {duration(seconds / at_once)} of training and evaluation on this "
        f"machine, {at_once} trials at once; start-up, workers' exchange and the report are not in "
        "it",
        highlight=False,
    )


def trials_at_once(spec: StudySpec) -> int:
    """Trials that run side by side on this machine's CPUs, one worker each under auto."""
    num_workers = spec.resources.num_workers
    num_cpus = (1 if num_workers == "auto" else num_workers) * spec.resources.cpus_per_worker
    at_once = int((os.cpu_count() or 1) // num_cpus) or 1
    return min(at_once, spec.resources.max_slots or at_once)


def duration(seconds: float) -> str:
    """A duration in minutes or hours."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _not_timed(spec: StudySpec) -> str:
    resources = spec.resources
    if not spec.workload.has_layers:
        return "only a workload with a model is timed"
    if resources.gpus_per_worker == "auto":
        return "whether the workers train on GPUs is known when the study joins the cluster"
    if resources.num_gpus > 0:
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
    all_cells = cells(spec)
    for cell in all_cells:
        batch = hyperparameters(spec, cell, {}).given.global_batch_size
        sizes = [batch] if batch is not None else list(spec.batch_sizes())
        each = sum(counts.values()) / len(all_cells) / len(sizes)
        if spec.transfer is not None and batch is not None:
            each -= counts["transfer"] / len(all_cells)
            if batch != spec.transfer.base_batch_size:
                each += len(spec.transfer.rules) * spec.transfer.num_seeds
        listed += [(cell, size, each) for size in sizes]
    return listed


def _heaviest(spec: StudySpec) -> Given:
    """Hyperparameters that take the most memory of all that the study may try."""
    searched = spec.nuisance.distributions()
    of_cells = [hyperparameters(spec, cell, {}).given for cell in cells(spec)]
    has_momentum = any(given.momentum for given in of_cells) or "momentum" in searched
    half_life = "weight_average_half_life_examples"
    averages = any(getattr(given, half_life) is not None for given in of_cells)
    optimizers: list[str] = [given.optimizer for given in of_cells]
    if "optimizer" in searched:
        optimizers = list(searched["optimizer"].choice or ())
    ranks = [given.lora_rank for given in of_cells if given.lora_rank is not None]
    if "lora_rank" in searched:
        ranks = list(searched["lora_rank"].choice or ())
    return Given(
        optimizer=max(optimizers, key=lambda o: num_moments(o, has_momentum=has_momentum)),
        momentum=float(has_momentum),
        lora_rank=max(ranks, default=None),
        weight_average_half_life_examples=1.0 if averages or half_life in searched else None,
    )


def _print_batches(spec: StudySpec, facts: Facts, console: Console) -> None:
    """One row for each batch size of each cell: global = workers × micro-batch × accumulation."""
    axes = list(dict.fromkeys(name for cell in cells(spec) for name in cell))
    others = [name for name in axes if name != "global_batch_size"]
    table = Table(*others, box=None, pad_edge=False)
    for heading in (
        "global_batch_size", "workers", "micro_batch_size", "grad_accum_steps", "steps",
        "examples", "epochs",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    rows = (
        (cell, size)
        for cell in cells(spec)
        for size in _sizes_of(spec, hyperparameters(spec, cell, {}).given.global_batch_size)
    )
    for cell, size in islice(rows, _MAX_ROWS):
        split = split_of(spec, size, facts)
        ramp = batch_ramp_of(hyperparameters(spec, cell, {"global_batch_size": size}))
        steps = num_steps_of(spec, ramp, facts)
        examples = None if steps is None else ramp.examples_after(steps)
        table.add_row(
            *(shown(cell[name]).strip('"') if name in cell else "" for name in others),
            str(size),
            str(world_size_of(spec, size, facts)),
            str(split.micro_batch_size),
            str(split.grad_accum_steps),
            "by time" if steps is None else str(steps),
            "by time" if examples is None else str(examples),
            _epochs(examples, facts.num_train),
        )
    console.print(table)
    is_searched = "global_batch_size" in spec.nuisance.distributions()
    more = num_cells(spec) * (len(spec.batch_sizes()) if is_searched else 1) - _MAX_ROWS
    if more > 0:
        print_line(console, f"  … and {more:,} rows more")


def _sizes_of(spec: StudySpec, batch: int | None) -> tuple[int, ...]:
    return spec.batch_sizes() if batch is None else (batch,)


def _epochs(examples: int | None, num_train: int | None) -> str:
    """Passes over the training examples; nothing where they have no end."""
    if examples is None:
        return "by time"
    return "" if num_train is None else f"{examples / num_train:.3g}"


def print_data(task: TaskData, console: Console) -> None:
    """Rows, examples and lengths of each split, and how often each has every class."""
    summary = task.data_summary
    if summary is None or not summary.splits:
        return
    table = Table("data", box=None, pad_edge=False)
    headings = ("rows", "examples", "evaluated", "tokens min", "median", "max", "rows cut off")
    for heading in headings:
        table.add_column(heading, justify="right")
    for part in summary.splits:
        table.add_row(
            part.split,
            f"{part.num_rows:,}",
            f"{part.num_examples:,}",
            f"{task.num_evaluated(part.split):,}" if part.split in task.splits else "",
            str(part.tokens_min),
            f"{part.tokens_median:g}",
            str(part.tokens_max),
            f"{part.num_truncated:,}",
        )
    console.print(table)
    _print_classes(summary.splits, console)


def _print_classes(splits: Sequence[SplitSummary], console: Console) -> None:
    totals = sum((Counter(part.class_counts) for part in splits), Counter[str]())
    if not totals:
        return
    table = Table("class", box=None, pad_edge=False)
    for part in splits:
        table.add_column(part.split, justify="right")
    for name, _ in totals.most_common(_MAX_CLASSES):
        counts = (f"{part.class_counts.get(name, 0):,}" for part in splits)
        table.add_row(Text(shown(name)), *counts)
    console.print(table)
    if len(totals) > _MAX_CLASSES:
        print_line(console, f"  … and {len(totals) - _MAX_CLASSES:,} classes more")
