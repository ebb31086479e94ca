"""Every split of a global batch, under every strategy, trains alike (case 5)."""

from tests.training.exactness import BOUNDS, measured_errors


def test_every_split_under_every_strategy_trains_alike(free_port: int) -> None:
    for family, splits in measured_errors(free_port).items():
        for split, errors in splits.items():
            for name, bound in BOUNDS.items():
                assert errors[name] < bound, f"{family}, {split}, {name}"
