"""Three steps of one recipe have the losses that Hugging Face's Trainer has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, questions
from tests.tasks.examples import squad_rows, write_lines
from tests.together import on_workers
from tests.training.against_trainer import HERE, NUM_STEPS, all_on, predictions

pytest.importorskip("accelerate")  # of the extra lora, which the Trainer needs too
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_the_losses_are_the_trainers(tmp_path: Path, world_size: int) -> None:
    if world_size == 1:
        found = all_on(Workers(), str(tmp_path))
    else:
        found = on_workers(all_on, str(tmp_path))
    assert len(found) == 10
    for name, cut, ours, theirs in found:
        assert len(ours) == len(theirs) == NUM_STEPS
        assert len(set(ours)) == NUM_STEPS  # the weights move
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0, err_msg=f"{name}, {cut}")


def test_metrics_of_answers_read_what_the_trainer_gives_them(tmp_path: Path) -> None:
    named = {"compute_metrics": f"{HERE}:starts", "directions": {"starts": "maximize"}}
    files = write_lines(tmp_path / "rows.json", squad_rows())
    task: Any = prepare_task(questions(files, **named), EVALUATION)
    require_trainable(task, 0)
    ours, theirs = predictions(task, str(tmp_path))
    assert len(ours.predictions) == len(theirs.predictions) == 2
    for found, expected in zip(ours.label_ids, theirs.label_ids, strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(ours.predictions, theirs.predictions, strict=True):
        assert found.shape[0] == task.num_evaluated("validation")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(task.described_metrics) == {"starts"}
