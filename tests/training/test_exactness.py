"""Every split of a global batch, under every strategy, trains alike (case 5)."""

import pytest

from tests.training.exactness import BOUNDS, OPTIMIZER_BOUNDS, measured_errors

pytest.importorskip("peft")  # of the extra lora
pytest.importorskip("deepspeed")


def test_every_split_under_every_strategy_trains_alike(free_port: int) -> None:
    found = measured_errors(free_port)
    for family, splits in found.families.items():
        for split, errors in splits.items():
            for name, error in errors.items():
                assert error < BOUNDS[name], f"{family}, {split}, {name}"
    for (optimizer, split), error in found.optimizers.items():
        assert error < OPTIMIZER_BOUNDS[optimizer], f"{optimizer}, {split}"
