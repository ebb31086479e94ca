"""The study file that the documentation shows is a valid one, and so is every shipped one."""

from pathlib import Path

import pytest

from scaling.space.layout import Facts
from scaling.space.trials import planned_search
from scaling.spec.read import read_study, study_from_mapping
from tests.spec.studies import LM

# What the documentation shows beyond what the other tests of study files read.
EXAMPLE = LM | {
    "fixed": LM["fixed"] | {"weight_average_half_life_examples": 2000},
    "resources": LM["resources"] | {"cpus_per_worker": 1, "gpus_per_worker": 0},
}
SHIPPED = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def test_the_example_plans_its_trials() -> None:
    spec = study_from_mapping(EXAMPLE)
    trials = planned_search(spec, Facts(4000, 7.3))
    assert len(trials) == 24
    steps = {
        t.recipe.hyperparameters.global_batch_size: t.recipe.hyperparameters.num_steps
        for t in trials
        if t.recipe
    }
    assert steps == {16: 2500, 64: 625, 256: 157, 1024: 150}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_names_its_schema(path: Path) -> None:
    assert read_study(path).name == path.stem
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../scaling/spec/study.schema.json"
