"""How many workers a trial gets, from speeds that are given."""

from pathlib import Path

import pytest

from scaling.runner.world_sizes import (
    Layout,
    fastest,
    leaves_idle,
    planned_work,
    regrouped,
    side_by_side,
    to_measure,
)
from scaling.space.layout import Facts
from scaling.spec.read import read_study

STUDIES = Path(__file__).parents[2] / "studies"
# Steps a second of a small decoder on 2 cores: 1 worker, and 2 data-parallel ones.
SPEEDS = {
    (16, 1): 16 * 74.8, (16, 2): 16 * 66.8, (64, 1): 64 * 24.5, (64, 2): 64 * 37.6,
    (1024, 1): 1024 * 1.5, (1024, 2): 1024 * 2.9,
}  # fmt: skip


def many(size: int, count: int, examples: int = 10_000) -> tuple[tuple[int, int], ...]:
    return ((size, examples),) * count


def test_trials_run_side_by_side_while_there_are_enough() -> None:
    work = [many(16, 6) + many(1024, 6)]
    layout = side_by_side(2, None)
    assert layout == Layout((1, 1))
    assert not leaves_idle(layout, work, 2)
    assert fastest(work, SPEEDS, num_workers=2, max_slots=None) == layout


def test_a_single_trial_gets_the_machine_where_that_pays() -> None:
    assert leaves_idle(side_by_side(2, None), [many(1024, 1)], 2)
    large = fastest([many(1024, 1)], SPEEDS, num_workers=2, max_slots=None)
    assert large == Layout((2,), {1024: 2})
    small = fastest([many(16, 1)], SPEEDS, num_workers=2, max_slots=None)
    assert small == Layout((1, 1))


def test_large_batches_get_workers_and_small_ones_stay_side_by_side() -> None:
    speeds = {(b, k): float(k) if b == 512 else 1.0 for b in (8, 512) for k in (1, 2, 4)}
    work = [many(512, 1, 40_000) + many(8, 4, 5_000)]
    layout = fastest(work, speeds, num_workers=4, max_slots=None)
    assert layout.world_sizes == {512: 2}
    assert layout.sizes == (2, 1, 1)


def test_what_was_not_measured_is_not_chosen() -> None:
    speeds = {(1024, 2): 1.0}  # one worker ran out of memory
    layout = fastest([many(1024, 3)], speeds, num_workers=2, max_slots=None)
    assert layout == Layout((2,), {1024: 2})


def test_at_most_max_slots_trials_at_once() -> None:
    speeds = {(64, k): float(k) for k in (1, 2, 4)}
    layout = fastest([many(64, 8)], speeds, num_workers=4, max_slots=2)
    assert layout == Layout((2, 2), {64: 2})


def test_only_equal_shares_are_measured() -> None:
    assert to_measure([((6, 1), (8, 1))], 4) == [(6, 1), (6, 2), (8, 1), (8, 2), (8, 4)]


def test_world_sizes_stay_on_another_cluster() -> None:
    work = [many(512, 2) + many(8, 4)]
    assert regrouped({512: 2}, work, num_workers=4, max_slots=None).sizes in ((2, 1, 1), (2, 2))
    assert regrouped({512: 2}, work, num_workers=2, max_slots=None).sizes == (2,)
    with pytest.raises(ValueError, match="2 workers does not fit on 1"):
        regrouped({512: 2}, work, num_workers=1, max_slots=None)


def test_the_work_of_a_study() -> None:
    spec = read_study(Path(__file__).parents[1] / "data/lr_vs_batch.yaml", [])
    search, after = planned_work(spec, Facts(1500, 7.0))
    assert len(search) == 24
    assert len(after) == 4 * 3 + 3 * 3 * 3
    assert search[0] == (8, 10_000)
    assert search[-1] == (512, 56 * 512)
