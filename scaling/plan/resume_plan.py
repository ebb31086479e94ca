"""What a study that goes on has still to run; nothing is started, and nothing written."""

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from scaling.console import duration
from scaling.plan.facts import facts_of
from scaling.plan.machine import trials_at_once
from scaling.plan.study_plan import round_size_of
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.remaining import remaining
from scaling.space.rounds import Rounds
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask


def print_resume_plan(
    spec: StudySpec, recorded: RecordedStudy, tasks: Sequence[AnyTask], console: Console
) -> None:
    """Print what is left of a study that has begun: its trials by phase and cell, and their time.

    Args:
        spec: The study file that it goes on with.
        recorded: What its state says.
        tasks: The study's, as from `require_tasks`.
        console: Where to.

    Raises:
        StateError: If it cannot go on with this study file.
    """
    console.print(f"study {spec.name} ({recorded.study_id}): {spec.question}")
    for change in recorded.changes(spec):
        console.print(f"  changed: {change}")
    world_sizes = (recorded.decided or {}).get("world_sizes", {})
    facts = replace(
        facts_of(spec, tasks),
        world_sizes={int(batch): size for batch, size in world_sizes.items()},
        cell_places=recorded.cell_places(spec),
    )
    rounds = recorded.rounds()
    if rounds is None and spec.search.is_joint:
        rounds = Rounds(round_size_of(spec))
    left = remaining(spec, recorded.records(), facts, rounds)
    at_most = "at most " if left.may_stop else ""
    console.print(f"  {left.num_ended} trials have ended, {at_most}{left.num_to_run} are to run")
    if rounds is not None and not left.is_decided:
        count = len(rounds.proposed)
        known = f"{count} round{' has' if count == 1 else 's have'} been proposed"
        console.print(f"  search in rounds of {rounds.size}; {known}")
    table = Table("phase", "cell", box=None, pad_edge=False)
    for heading in ("ended", "to run"):
        table.add_column(heading, justify="right")
    for group in left.groups:
        table.add_row(group.phase, group.cell, str(group.num_ended), str(group.num_to_run))
    console.print(table)
    if not left.is_decided:
        console.print(
            "The search is not over. Where it finds a better recipe for a cell, that cell is "
            "confirmed, carried and branched anew.",
        )
    if left.num_to_run == 0:
        console.print("nothing is left to run: --resume writes the report again")
    elif left.seconds is None:
        console.print("time: not estimated: no trial has ended")
    else:
        at_once = trials_at_once(spec)
        console.print(
            f"time: {at_most}about {duration(left.seconds / at_once)} at {at_once} trials at once, "
            f"judged by the {left.num_timed} trials that have ended. Start-up and the report are "
            "not included.",
        )
