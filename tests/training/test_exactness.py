"""Splits of a global batch, under every strategy, train alike (case 5)."""

import pytest

from tests.training.exactness import BOUNDS, OPTIMIZER_BOUNDS, measured_errors

pytest.importorskip("peft")  # of the extra lora
pytest.importorskip("deepspeed")


@pytest.mark.slow
@pytest.mark.parametrize("choice", [pytest.param("pairwise", marks=pytest.mark.ci), "every"])
def test_splits_under_every_strategy_train_alike(choice: str) -> None:
    found = measured_errors(whole=choice == "every")
    for family, splits in found.families.items():
        for split, errors in splits.items():
            for name, error in errors.items():
                assert error < BOUNDS[name], f"{family}, {split}, {name}"
    for (optimizer, split), error in found.optimizers.items():
        assert error < OPTIMIZER_BOUNDS[optimizer], f"{optimizer}, {split}"
