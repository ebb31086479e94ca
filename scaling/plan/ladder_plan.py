"""What a study of sizes would do: each size, its runs, and what one of them takes."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median_low

from rich.console import Console
from rich.table import Table

from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import cell_name, hyperparameters
from scaling.space.ladder import MIN_STEPS, flops_of, size_cells
from scaling.space.layout import Facts
from scaling.spec.study import StudySpec
from scaling.surface.space import BATCH
from scaling.tasks.task import AnyTask, FinishedTask


def print_sizes(spec: StudySpec, facts: Facts, tasks: Sequence[AnyTask], console: Console) -> None:
    """Print a row for each size: what makes it large, its batches, steps and seconds of a run.

    Args:
        spec: A study with a ladder.
        facts: Of its sizes.
        tasks: One a size.
        console: Where to.
    """
    assert spec.ladder is not None
    names = list(dict.fromkeys(name for size in facts.sizes for name in size.scale))
    table = Table("size", box=None, pad_edge=False)
    headings = [name.removeprefix("num_").replace("_", " ") for name in names]
    for heading in (*headings, "FLOPs", "batch sizes", "steps", "seconds", "is"):
        table.add_column(heading, justify="right")
    by_size = size_cells(spec, facts)
    for number, (size, own) in enumerate(zip(spec.sizes, facts.sizes, strict=True)):
        batches = sorted(cell[BATCH] for cell in by_size[number])
        ramps = (batch_ramp_of(hyperparameters(size, {}, {BATCH: batch})) for batch in batches)
        steps = [num_steps_of(size, ramp, own) for ramp in ramps]
        table.add_row(
            str(number),
            *(f"{own.scale[name]:,.4g}" for name in names),
            f"{flops_of(own.scale):.3g}",
            ", ".join(map(str, batches)),
            ", ".join("by time" if n is None else str(n) for n in steps),
            _seconds(size, own, tasks[number], median_low(batches)),
            "searched" if number in spec.ladder.searched else "checked",
        )
    for number, scale in enumerate(facts.predicted):
        numbers = (f"{scale[name]:,.4g}" for name in names)
        flops = f"{flops_of(scale):.3g}"
        table.add_row(f"predict {number}", *numbers, flops, "", "", "", "predicted")
    console.print(table)
    for number, label in enumerate(spec.size_labels):
        console.print(f"  size {number}: {cell_name(label)}")
    left_out = sum(len(size.batch_sizes()) for size in spec.sizes) - sum(map(len, by_size))
    if left_out:
        why = f"since a run would have under {MIN_STEPS} steps"
        console.print(f"  {left_out} batch sizes are left out, {why}")


def _seconds(size: StudySpec, facts: Facts, task: AnyTask, batch: int) -> str:
    """Of a run at a batch size, from a few steps timed here; empty where nothing is trained."""
    if isinstance(task, FinishedTask) or size.resources.num_gpus > 0:
        return ""
    from scaling.training import timing

    scientific = size.scientific.model_copy(update={BATCH: (batch,)})
    one = size.model_copy(update={"scientific": scientific})
    speed = timing.study_speed(task, one, replace(facts, sizes=()))
    return f"{timing.trial_seconds(one, facts, task, speed, {BATCH: batch}, batch):.3g}"
