"""What a study would do: cells, trials, batch arithmetic, steps; nothing is started.

What is said of a model, of a search by the surface and of a ladder is in files of their own, which
are imported for studies that have one: a plan without a model loads no torch.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scaling.plan.facts import facts_of
from scaling.plan.machine import trials_at_once
from scaling.plan.start import Start
from scaling.plan.start_checks import describe_place, start_notes
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import cells, hyperparameters
from scaling.space.extension import most_extension_trials
from scaling.space.layout import Facts, split_of, world_size_of
from scaling.space.rounds import default_round_size
from scaling.spec.checks.sizes import num_cells, num_trials
from scaling.spec.issues import shown
from scaling.spec.study import StudySpec
from scaling.tasks.data.overview import SplitSummary
from scaling.tasks.task import AnyTask, FinishedTask, TaskData

_MAX_ROWS = 100  # of batches
_MAX_CLASSES = 20


def print_plan(start: Start, tasks: Sequence[AnyTask], console: Console) -> None:
    """Print the plan of a study: trials, batches, data, memory and time.

    Args:
        start: How it is asked to start.
        tasks: The study's, from `require_tasks`.
        console: Where to.
    """
    spec, task = start.with_gpus(), tasks[0]
    console.print(f"study {spec.name}: {spec.question}")
    at_most = "at most " if spec.search.may_stop else ""
    for phase, count in num_trials(spec).items():
        how = f"{count} trials"
        if phase == "search" and spec.search.is_joint:
            from scaling.plan.surface_plan import rounds_words

            how = f"{at_most}{how} {rounds_words(spec, task, round_size_of(spec))}"
        console.print(f"  {phase}: {how}")
    if more := most_extension_trials(spec):
        console.print(f"  search beyond a range that is too short: up to {more} more trials")
    total = sum(num_trials(spec).values())
    workers = (
        "one worker each, or more where that ends the study sooner"
        if spec.resources.num_workers == "auto"
        else f"{spec.resources.num_workers} worker{'s' * (spec.resources.num_workers > 1)} each"
    )
    console.print(f"  in all: {at_most}{total} trials on {workers}, {_gpus(spec)}")
    facts = facts_of(spec, tasks)
    if spec.ladder is None:
        _print_batches(spec, facts, console)
    else:
        from scaling.plan.ladder_plan import print_sizes

        print_sizes(spec, facts, tasks, console)
    print_data(task, console)
    if task.tokens_per_example is not None:
        console.print(
            f"  an example has {task.tokens_per_example:.1f} input tokens, without padding, and "
            f"{task.targets_per_example:.1f} targets on average",
        )
    for note in (*start_notes(spec, task), *describe_place(start)):
        console.print(f"  {note}")
    # Of a ladder the largest size takes the most memory; its times stand with the sizes.
    largest = spec.sizes[-1] if spec.sizes else spec
    if spec.workload.has_layers:
        from scaling.plan.model_plan import print_memory, print_time

        print_memory(largest, facts.sizes[-1] if facts.sizes else facts, tasks[-1], console)
        if spec.ladder is None:
            print_time(spec, facts, task, console)
    else:
        _print_without_model(spec, task, console)
    where = "at every size" if spec.ladder else "in every cell"
    searched = ", ".join(spec.nuisance.distributions()) or "nothing"
    console.print(f"searched {where}: {searched} ({spec.search.sampler}, {_how_many(spec)})")


def _gpus(spec: StudySpec) -> str:
    """What its workers have of GPUs."""
    gpus = spec.resources.gpus_per_worker
    if gpus == "auto":
        return "with one GPU per worker if the cluster has any"
    return f"with {gpus:g} GPU{'s' * (gpus > 1)} per worker" if gpus else "without GPUs"


def round_size_of(spec: StudySpec) -> int:
    """Trials of a round of a search by the surface, where it starts on this machine."""
    search = spec.search
    return search.round_size or default_round_size(search.most_trials, trials_at_once(spec))


def _how_many(spec: StudySpec) -> str:
    search = spec.search
    if not search.is_joint:
        count = search.trials_per_cell or 0
        return f"{count} trial{'s' * (count > 1)} per cell"
    if search.budget_flops is not None:
        return f"trials of {search.budget_flops:.3g} floating-point operations in all"
    return f"{'at most ' if search.may_stop else ''}{search.most_trials} trials over all cells"


def _print_without_model(spec: StudySpec, task: AnyTask, console: Console) -> None:
    """That there is nothing to estimate."""
    console.print(f"memory: not estimated: {spec.workload.task} needs a few megabytes")
    if isinstance(task, FinishedTask):
        console.print("time: a few seconds, since nothing is trained")
    else:
        console.print("time: not estimated: only a workload with a model is timed")


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
        console.print(f"  … and {more:,} rows more")


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
        console.print(f"  … and {len(totals) - _MAX_CLASSES:,} more classes")
