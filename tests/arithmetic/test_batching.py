"""Batch arithmetic against hand tables and its invariants (case 5: every split of 16)."""

import pytest

from scaling.arithmetic.batching import BatchRamp, BatchSplit, nearest_feasible, split_batch


@pytest.mark.parametrize(
    ("global_batch_size", "world_size", "bound", "micro", "accumulation"),
    [
        (16, 1, None, 16, 1),
        (16, 2, None, 8, 1),
        (16, 2, 8, 8, 1),
        (16, 2, 7, 4, 2),
        (16, 2, 100, 8, 1),
        (16, 16, 4, 1, 1),
        (96, 2, 32, 24, 2),
        (1024, 2, 100, 64, 8),
        (14, 2, 6, 1, 7),
        (30, 1, 7, 6, 5),
        (1, 1, 1, 1, 1),
    ],
)
def test_split_is_the_largest_equal_micro_batch(
    global_batch_size: int, world_size: int, bound: int | None, micro: int, accumulation: int
) -> None:
    split = split_batch(global_batch_size, world_size=world_size, micro_batch_size=bound)
    assert split == BatchSplit(micro, accumulation, world_size)
    assert split.global_batch_size == global_batch_size


def test_largest_divisor_by_brute_force() -> None:
    for share in range(1, 61):
        for bound in range(1, 70):
            expected = max(d for d in range(1, share + 1) if share % d == 0 and d <= bound)
            found = split_batch(3 * share, world_size=3, micro_batch_size=bound)
            assert found.micro_batch_size == expected


def test_a_large_prime_share_is_split_at_once() -> None:
    assert split_batch(2**31 - 1, world_size=1, micro_batch_size=2).micro_batch_size == 1


@pytest.mark.parametrize(
    ("global_batch_size", "world_size", "feasible"),
    [(17, 4, "16 and 20"), (3, 4, "4"), (1, 2, "2"), (1023, 2, "1022 and 1024")],
)
def test_infeasible_batch_says_its_neighbours(
    global_batch_size: int, world_size: int, feasible: str
) -> None:
    with pytest.raises(
        ValueError, match=f"multiple of {world_size} workers.*feasible: {feasible}$"
    ):
        split_batch(global_batch_size, world_size=world_size, micro_batch_size=None)


@pytest.mark.parametrize(
    ("global_batch_size", "world_size", "bound", "name"),
    [
        (0, 1, None, "global_batch_size"),
        (-4, 2, None, "global_batch_size"),
        (4, 0, None, "world_size"),
        (4, 2, 0, "micro_batch_size"),
    ],
)
def test_sizes_must_be_positive(
    global_batch_size: int, world_size: int, bound: int | None, name: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} .* must be at least 1"):
        split_batch(global_batch_size, world_size=world_size, micro_batch_size=bound)


def test_nearest_feasible() -> None:
    assert nearest_feasible(10, 4) == (8, 12)
    assert nearest_feasible(2, 4) == (4,)
    assert nearest_feasible(8, 4) == (8,)


@pytest.mark.parametrize(
    ("examples", "global_batch_size", "min_steps", "steps"),
    [
        (40_000, 16, 150, 2500),
        (40_000, 1024, 150, 150),
        (40_000, 1024, 1, 40),
        (40_000, 256, 150, 157),
        (1, 16, 1, 1),
        (0, 16, 0, 0),
        (10**18 + 1, 10**9, 1, 10**9 + 1),
    ],
)
def test_steps_round_up_to_the_floor(
    examples: int, global_batch_size: int, min_steps: int, steps: int
) -> None:
    assert BatchRamp(global_batch_size).steps_for(examples, min_steps=min_steps) == steps


@pytest.mark.parametrize(("examples", "batch", "floor"), [(-1, 4, 1), (1, 0, 1), (1, 4, -1)])
def test_steps_refuse_negative_counts(examples: int, batch: int, floor: int) -> None:
    with pytest.raises(ValueError, match="must"):
        BatchRamp(batch).steps_for(examples, min_steps=floor)


RAMP = BatchRamp(4, at_examples=(10, 40), factor=2)


def test_a_ramp_by_hand() -> None:
    # 4 at 0, 4, 8 (12 seen); 8 at 12, 20, 28, 36 (44 seen); 16 from there on.
    starts = [0, 4, 8, 12, 20, 28, 36, 44, 60, 76]
    assert [RAMP.size_at(start) for start in starts] == [4, 4, 4, 8, 8, 8, 8, 16, 16, 16]
    assert [RAMP.examples_after(steps) for steps in range(10)] == starts
    for examples, steps in [(0, 0), (1, 1), (12, 3), (13, 4), (44, 7), (45, 8), (60, 8), (61, 9)]:
        assert RAMP.steps_for(examples, min_steps=0) == steps
    assert RAMP.steps_for(12, min_steps=8) == 8
    assert [len(RAMP.up_to(steps).at_examples) for steps in range(10)] == [0] * 4 + [1] * 4 + [
        2
    ] * 2
    assert not RAMP.skips


def test_a_ramp_by_every_so_many_examples_ends_at_the_largest_batch() -> None:
    ramp = BatchRamp.every(100, first=3, factor=4, largest=200)
    assert ramp == BatchRamp(3, (100, 200, 300), 4)
    assert BatchRamp.every(100, first=3, factor=4, largest=11) == BatchRamp(3, (), 4)


def test_no_ramp_is_a_constant_batch() -> None:
    for examples, floor, steps in [(0, 0, 0), (1, 1, 1), (65, 2, 5), (1000, 900, 900)]:
        assert BatchRamp(16).steps_for(examples, min_steps=floor) == steps
    assert BatchRamp(16).examples_after(7) == 112


def test_a_step_that_passes_two_marks_grows_twice() -> None:
    ramp = BatchRamp(8, at_examples=(2, 5, 9), factor=3)
    # 8 seen past 2 and 5: × 9; then past 9 too: × 27.
    assert [ramp.examples_after(steps) for steps in range(4)] == [0, 8, 80, 296]
    assert ramp.skips


@pytest.mark.parametrize(("examples", "floor"), [(-1, 0), (0, -1)])
def test_a_ramp_refuses_negative_counts(examples: int, floor: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        RAMP.steps_for(examples, min_steps=floor)
