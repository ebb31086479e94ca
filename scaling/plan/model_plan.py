"""What training and evaluation of a study's model take: memory of a worker, and time."""

from rich.console import Console
from rich.table import Table

from scaling.console import duration
from scaling.optimizers.catalog import num_moments
from scaling.plan.machine import trials_at_once
from scaling.space.cells import Cell, cells, hyperparameters
from scaling.space.layout import Facts, split_of
from scaling.spec.checks.places import possible_values
from scaling.spec.checks.sizes import num_trials
from scaling.spec.hyperparameters import Given
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask, FinishedTask
from scaling.training import timing
from scaling.training.memory.estimate import study_footprint, trial_memory, worker_memory_bytes

_MAX_TIMED = 1000  # cells and batch sizes whose trials are estimated, evenly spread over all


def print_memory(spec: StudySpec, facts: Facts, task: AnyTask, console: Console) -> None:
    """One row for each batch size: bytes on each worker, by what takes them."""
    assert not isinstance(task, FinishedTask)
    heaviest = _heaviest(spec)
    found = study_footprint(task, spec.workload, spec.resources, lora_rank=heaviest.lora_rank)
    if found is None:
        console.print("memory: not estimated: the loss reads values of tensors")
        return
    table = Table("MiB per worker", box=None, pad_edge=False)
    headings = ("parameters", "gradients", "optimizer", "activations", "workspace", "total")
    for heading in headings:
        table.add_column(heading, justify="right")
    available = worker_memory_bytes(spec.resources)
    for size in spec.batch_sizes():
        memory = trial_memory(
            found, spec.resources, heaviest, split_of(spec, size, facts),
            measures_sharpness=spec.evaluation.sharpness is not None,
        )  # fmt: skip
        is_too_much = available is not None and memory.total > available
        table.add_row(
            f"global_batch_size={size}",
            *(f"{getattr(memory, heading) / 2**20:,.1f}" for heading in headings),
            "more than available" if is_too_much else "",
        )
    console.print(table)
    has = "unknown" if available is None else f"{available / 2**20:,.0f} MiB"
    console.print(f"  memory of a worker: {has}, some of which its process takes")


def print_time(spec: StudySpec, facts: Facts, task: AnyTask, console: Console) -> None:
    """What training and evaluation take on this machine, from a few steps timed here."""
    assert not isinstance(task, FinishedTask)
    if reason := _not_timed(spec):
        console.print(f"time: not estimated: {reason}")
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
    at_most = "at most " if spec.search.may_stop else ""
    console.print(
        f"time: {at_most}about {duration(seconds / at_once)} of training and evaluation on this "
        f"machine, {at_once} trials at once. Start-up, communication among workers and the "
        "report are not included.",
    )


def _not_timed(spec: StudySpec) -> str:
    resources = spec.resources
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
    has_momentum = any(possible_values(spec, "momentum"))
    optimizers = sorted(possible_values(spec, "optimizer"))
    half_lives = possible_values(spec, "weight_average_half_life_examples")
    return Given(
        optimizer=max(optimizers, key=lambda o: num_moments(o, has_momentum=has_momentum)),
        momentum=float(has_momentum),
        lora_rank=max(filter(None, possible_values(spec, "lora_rank")), default=None),
        weight_average_half_life_examples=1.0 if any(half_lives) else None,
    )
