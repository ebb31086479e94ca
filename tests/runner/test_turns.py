"""Worker groups of a large pool start in turn, as many at a time as a machine bears."""

from scaling.runner.worker_pool import MOST_STARTING, turns


def test_a_small_pool_starts_at_once() -> None:
    assert turns(3, 0, 0) == range(3)
    assert not turns(3, 3, 1)


def test_a_large_pool_starts_in_turn_and_whole() -> None:
    begun: list[int] = []
    for num_past in range(51):
        begun += turns(50, len(begun), num_past)
        assert len(begun) - num_past <= MOST_STARTING
        assert len(begun) == min(50, num_past + MOST_STARTING)
    assert begun == list(range(50))


def test_groups_that_are_lost_again_start_no_other_one_twice() -> None:
    assert not turns(50, 30, 4)
