"""How a batch is cut by length: all of it, evenly, and no part dearer than an equal share."""

import numpy as np
import pytest

from scaling.training.micro_batches import (
    ON_CPU,
    ON_GPU,
    cheapest_num_parts,
    cut_by_length,
    parts_of_worker,
)


def cost(lengths: np.ndarray, part: np.ndarray) -> int:
    return len(part) * int(lengths[part].max())


@pytest.mark.parametrize("seed", range(20))
def test_every_example_is_in_one_part_and_none_costs_more_than_an_equal_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 200))
    num_parts = int(rng.integers(1, size + 1))
    lengths = rng.integers(1, 60, size)
    parts = cut_by_length(lengths, num_parts=num_parts)
    assert len(parts) == num_parts
    assert all(len(part) for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(size))
    share = -(-size // num_parts)
    assert max(cost(lengths, part) for part in parts) <= share * lengths.max()


def test_short_examples_share_a_part_and_long_ones_another() -> None:
    lengths = np.array([10, 2, 9, 2, 2, 2, 1, 10])
    parts = cut_by_length(lengths, num_parts=2)
    # 5 × 2 and 3 × 10; any other cut has a part that costs more than 30.
    assert [sorted(part) for part in parts] == [[1, 3, 4, 5, 6], [0, 2, 7]]


def test_uniform_lengths_cost_a_quarter_less_in_two_parts() -> None:
    lengths = np.arange(1, 101)
    costs = [cost(lengths, part) for part in cut_by_length(lengths, num_parts=2)]
    # n shortest and 100 − n others: n² = (100 − n) × 100 at n = 61.8.
    assert costs == [62 * 62, 38 * 100]


def test_equal_lengths_keep_the_order() -> None:
    parts = cut_by_length(np.full(12, 7), num_parts=3)
    assert [list(part) for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_parts_are_dealt_back_and_forth() -> None:
    parts = [np.array([number]) for number in range(6)]
    assert [int(p[0]) for p in parts_of_worker(parts, rank=0, world_size=2)] == [0, 3, 4]
    assert [int(p[0]) for p in parts_of_worker(parts, rank=1, world_size=2)] == [1, 2, 5]


def padded(lengths: np.ndarray, num_parts: int) -> int:
    return sum(cost(lengths, part) for part in cut_by_length(lengths, num_parts=num_parts))


def test_a_cpu_cuts_further_while_that_saves_more_padding_than_it_costs() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, 256)
    found = cheapest_num_parts(lengths, ON_CPU, at_least=1)
    assert found > 2
    costs = {n: padded(lengths, n) + n * ON_CPU.beside for n in (found // 2, found, 2 * found)}
    assert min(costs, key=lambda n: costs[n]) == found


def test_a_cpu_does_not_cut_small_batches_or_equal_lengths() -> None:
    assert cheapest_num_parts(np.array([5, 9, 30, 7]), ON_CPU, at_least=1) == 1
    assert cheapest_num_parts(np.full(64, 30), ON_CPU, at_least=1) == 1
    assert cheapest_num_parts(np.zeros(65_536, dtype=np.int64), ON_CPU, at_least=1) == 1


def test_a_cpu_cuts_what_its_caches_cannot_hold_and_keeps_to_multiples() -> None:
    assert cheapest_num_parts(np.full(1024, 24), ON_CPU, at_least=1) == 8
    assert cheapest_num_parts(np.full(1024, 24), ON_CPU, at_least=6) == 6
    assert cheapest_num_parts(np.full(3, 50_000), ON_CPU, at_least=2) == 2
    assert cheapest_num_parts(np.full(1024, 24), ON_CPU, at_least=3) == 6


@pytest.mark.parametrize(
    ("lengths", "at_least", "expected"),
    [
        (np.full(1024, 24), 1, 1),  # nothing to save
        (np.arange(1, 65).repeat(2), 1, 1),  # 8,192 with padding: a part of less takes as long
        (np.arange(1, 65).repeat(4), 1, 1),  # two of 6,200 take as long as one of 16,384
        (np.arange(1, 1025), 1, 64),  # the last of 64 parts still has 8,192 and more
        (np.arange(1, 1025), 3, 48),
        (np.array([10, 4000]), 2, 2),
        (np.zeros(64, dtype=np.int64), 1, 1),
    ],
)
def test_a_gpu_cuts_while_its_parts_fill_it(
    lengths: np.ndarray, at_least: int, expected: int
) -> None:
    assert cheapest_num_parts(lengths, ON_GPU, at_least=at_least) == expected
