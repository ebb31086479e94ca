"""How many workers a trial gets, where `resources.num_workers` is auto.

Trials side by side waste nothing; a trial on several workers waits for its slowest and for the
exchange of gradients. So every trial has one worker, unless that leaves workers idle: then what
several workers would gain is measured, and the split of the machine that ends the study soonest
is taken. The results do not depend on it but for rounding, so it may be decided by speed alone.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scaling.space.branches import branch_work
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import cells, hyperparameters
from scaling.space.layout import Facts
from scaling.spec.study import StudySpec

MAX_WORLD_SIZE = 16
IDLE_SHARE = 0.1  # of the machine; less is not worth measuring
MIN_GAIN = 1.1  # in the study's duration; less is within what measuring can tell

Speeds = Mapping[tuple[int, int], float]
"""Training examples a second by (global batch size, world size)."""

Work = Sequence[tuple[int, int]]
"""Trials that run in one go, as (global batch size, training examples)."""


@dataclass(frozen=True)
class Layout:
    """How a cluster's workers are grouped.

    Attributes:
        sizes: Workers of each group (slot), each of which runs a trial at a time.
        world_sizes: Workers of a trial by global batch size; one where it is not listed.
    """

    sizes: tuple[int, ...]
    world_sizes: Mapping[int, int] = field(default_factory=dict[int, int])


def planned_work(spec: StudySpec, facts: Facts) -> list[Work]:
    """The trials of the search, and those that follow it; empty for a budget in seconds."""
    if spec.budget.seconds is not None:
        return []
    batches = [_batches(spec, cell) for cell in cells(spec)]
    # The surface shares its trials out as it goes; about evenly is the best guess.
    each = math.ceil(spec.search.num_trials_of(len(batches)) / len(batches))
    search = [size for sizes in batches for size in itertools.islice(itertools.cycle(sizes), each)]
    after: list[int] = []
    if spec.confirm is not None:
        recipes = 1 + spec.confirms_target
        after += [sizes[0] for sizes in batches] * recipes * spec.confirm.num_seeds
    if spec.transfer is not None:
        others = [b for b in spec.batch_sizes() if b != spec.transfer.base_batch_size]
        after += others * len(spec.transfer.rules) * spec.transfer.num_seeds
    phases = (search, after)
    works = [[(size, _num_examples(spec, size, facts)) for size in sizes] for sizes in phases]
    if spec.branch is not None:
        works[1] += branch_work(spec.branch)
    return [work for work in works if work]


def _num_examples(spec: StudySpec, size: int, facts: Facts) -> int:
    """Examples of a trial that starts at a batch size; 0 for a budget in seconds."""
    ramp = batch_ramp_of(hyperparameters(spec, cells(spec)[0], {"global_batch_size": size}))
    return ramp.examples_after(num_steps_of(spec, ramp, facts) or 0)


def _batches(spec: StudySpec, cell: Mapping[str, object]) -> Sequence[int]:
    size = hyperparameters(spec, cell, {}).given.global_batch_size
    return spec.batch_sizes() if size is None else (size,)


def side_by_side(num_workers: int, max_slots: int | None) -> Layout:
    """One worker a trial."""
    return Layout((1,) * min(num_workers, max_slots or num_workers))


def leaves_idle(layout: Layout, work: Sequence[Work], num_workers: int) -> bool:
    """Whether a layout of one-worker trials leaves much of the machine idle."""
    speeds = {(size, 1): 1.0 for one in work for size, _ in one}
    total = sum(examples for one in work for _, examples in one)
    seconds = sum(_seconds(layout, one, speeds) for one in work)
    return total / num_workers < (1 - IDLE_SHARE) * seconds


def to_measure(work: Sequence[Work], num_workers: int) -> list[tuple[int, int]]:
    """The (global batch size, world size) whose speed decides; a worker's shares are equal."""
    batches = sorted({size for one in work for size, _ in one})
    sizes = _powers_of_two(min(num_workers, MAX_WORLD_SIZE))
    return [(batch, size) for batch in batches for size in sizes if batch % size == 0]


def fastest(
    work: Sequence[Work], speeds: Speeds, *, num_workers: int, max_slots: int | None
) -> Layout:
    """The layout that ends the study soonest; one worker a trial unless another gains MIN_GAIN.

    Considered are layouts in which batch sizes from some size on get several workers, a power of
    two, and smaller ones fewer.
    """
    simple = side_by_side(num_workers, max_slots)
    found = min(
        _candidates(work, num_workers, max_slots),
        # Of equals the one with the fewest workers a trial.
        key=lambda layout: (_total(layout, work, speeds), sum(layout.world_sizes.values())),
        default=simple,
    )
    seconds = _total(found, work, speeds)
    is_worth_it = MIN_GAIN * seconds <= _total(simple, work, speeds)
    return found if is_worth_it and math.isfinite(seconds) else simple


def regrouped(
    world_sizes: Mapping[int, int], work: Sequence[Work], *, num_workers: int, max_slots: int | None
) -> Layout:
    """The same world sizes on another number of workers.

    Raises:
        ValueError: If the largest trial does not fit.
    """
    needed = max(world_sizes.values(), default=1)
    if needed > num_workers:
        raise ValueError(f"a trial of {needed} workers does not fit on {num_workers}")
    speeds = {(size, k): float(k) for one in work for size, _ in one for k in range(1, needed + 1)}
    used = {world_sizes.get(size, 1) for one in work for size, _ in one} or {1}
    layouts = [
        Layout(sizes, dict(world_sizes)) for sizes in _groupings(used, num_workers, max_slots)
    ]
    return min(layouts, key=lambda layout: _total(layout, work, speeds))


def _candidates(work: Sequence[Work], num_workers: int, max_slots: int | None) -> Iterator[Layout]:
    batches = sorted({size for one in work for size, _ in one})
    ways = _powers_of_two(min(num_workers, MAX_WORLD_SIZE))
    for threshold, few, many in itertools.product(batches, ways, ways):
        if few >= many:
            continue
        wanted = {size: many if size >= threshold else few for size in batches}
        world_sizes = {size: k for size, k in wanted.items() if k > 1}
        for sizes in _groupings(set(wanted.values()), num_workers, max_slots):
            yield Layout(sizes, world_sizes)


def _groupings(
    used: set[int], num_workers: int, max_slots: int | None
) -> Iterator[tuple[int, ...]]:
    """Ways to cut the workers into groups of the (one or two) sizes that trials use."""
    large, small = max(used), min(used)
    for num_large in range(1, num_workers // large + 1):
        num_small = 0 if small == large else (num_workers - num_large * large) // small
        sizes = (large,) * num_large + (small,) * num_small
        yield sizes[: max_slots or len(sizes)]


def _powers_of_two(at_most: int) -> list[int]:
    return [1 << power for power in range(at_most.bit_length())]


def _total(layout: Layout, work: Sequence[Work], speeds: Speeds) -> float:
    return sum(_seconds(layout, one, speeds) for one in work)


def _seconds(layout: Layout, work: Work, speeds: Speeds) -> float:
    """Until the last trial ends, the longest given out first to whichever group is free first."""
    needs = [(size, layout.world_sizes.get(size, 1), examples) for size, examples in work]
    if any((size, k) not in speeds for size, k, _ in needs):
        return float("inf")  # it could not be measured, so it does not run
    trials = sorted(((examples / speeds[size, k], k) for size, k, examples in needs), reverse=True)
    free: dict[int, list[float]] = {}
    for size in layout.sizes:
        free.setdefault(size, []).append(0.0)
    end = 0.0
    for seconds, needed in trials:
        fitting = [size for size in free if size >= needed]
        if not fitting:
            return float("inf")
        size = min(fitting, key=lambda size: (free[size][0], size))
        ends_at = free[size][0] + seconds
        heapq.heapreplace(free[size], ends_at)
        end = max(end, ends_at)
    return end
