"""Every pair of values is in what is chosen, and what is chosen is few."""

from itertools import product

from tests.pairwise import covering, pairs_of


def test_every_pair_of_two_values_is_covered() -> None:
    rows = list(product("abcdefg", range(6), (1, 2), (1, 2, 4, 8, 16)))
    chosen = covering(rows)
    assert set().union(*map(pairs_of, chosen)) == set().union(*map(pairs_of, rows))
    assert 42 <= len(chosen) <= 50  # 7 × 6 at least, of 420


def test_only_what_is_possible_is_chosen() -> None:
    rows = [row for row in product("abc", range(3), range(3)) if row[1] != row[2]]
    chosen = covering(rows)
    assert set(chosen) <= set(rows)
    assert set().union(*map(pairs_of, chosen)) == set().union(*map(pairs_of, rows))
