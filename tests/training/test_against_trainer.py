"""Three steps of one recipe have the losses that Hugging Face's Trainer has."""

from pathlib import Path

import numpy as np
import pytest

from scaling.training.parallel.workers import Workers
from tests.together import on_workers
from tests.training.against_trainer import NUM_STEPS, all_on

pytest.importorskip("accelerate")  # of the extra lora, which the Trainer needs too
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_losses_are_the_trainers(tmp_path: Path, world_size: int) -> None:
    if world_size == 1:
        found = all_on(Workers(), str(tmp_path))
    else:
        found = on_workers(all_on, str(tmp_path))
    assert len(found) == 8
    for name, cut, ours, theirs in found:
        assert len(ours) == len(theirs) == NUM_STEPS
        assert len(set(ours)) == NUM_STEPS  # the weights move
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0, err_msg=f"{name}, {cut}")
