"""A ladder's sizes are the study with fields set otherwise, each valid by itself."""

import itertools
from typing import Any

import pytest

from scaling.space.cells import cells
from scaling.spec.issues import StudyFileError
from scaling.spec.read import study_from_mapping
from scaling.spec.study import StudySpec

SIZES = [
    {"workload.num_dimensions": 10, "budget.examples": 1000},
    {"workload.num_dimensions": 20, "budget.examples": 2000},
    {"workload.num_dimensions": 40, "budget.examples": 4000, "scientific.global_batch_size": [8]},
]


def raw(**changes: Any) -> dict[str, Any]:
    study = {
        "name": "ladder", "question": "What should the next size use?",
        "workload": {"task": "noisy_quadratic", "num_dimensions": 10},
        "scientific": {"global_batch_size": [4, 16]},
        "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        "budget": {"examples": 1000}, "evaluation": {"growth_ratio": 2.0},
        "search": {"num_trials": 12},
        "ladder": {"sizes": SIZES, "check": {"num_seeds": 2}},
    }  # fmt: skip
    return study | changes


def ladder(**changes: Any) -> StudySpec:
    return study_from_mapping(raw(**changes))


def test_each_size_is_the_study_with_its_fields_set() -> None:
    spec = ladder()
    assert [size.budget.examples for size in spec.sizes] == [1000, 2000, 4000]
    assert [size.scientific_values()["global_batch_size"] for size in spec.sizes] == [
        (4, 16), (4, 16), (8,),
    ]  # fmt: skip
    assert spec.batch_sizes() == (4, 8, 16)
    assert all(size.ladder is None for size in spec.sizes)
    assert (
        StudySpec.model_validate_json(spec.model_dump_json(exclude_unset=True)).sizes[2]
        == (spec.sizes[2])
    )


def test_a_cell_knows_its_size() -> None:
    spec = ladder()
    cell = {"workload.num_dimensions": 20, "budget.examples": 2000, "global_batch_size": 16}
    assert spec.size_of(cell) == 1
    assert spec.at(cell).budget.examples == 2000


def test_a_size_may_have_the_fields_of_an_earlier_one_and_more() -> None:
    sizes = [
        {"workload.num_dimensions": 10},
        {"workload.num_dimensions": 10, "budget.examples": 2000},
        {"workload.num_dimensions": 20, "budget.examples": 2000},
    ]
    for order in itertools.permutations(sizes):
        spec = ladder(ladder={"sizes": order})
        found = [spec.size_of(cell) for cell in cells(spec)]
        assert found == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"ladder": {"sizes": SIZES[:1]}}, "ladder.sizes", "at least 2"),
        ({"ladder": {"sizes": SIZES[:2], "check": {}}}, "ladder.sizes", "at least 3"),
        ({"ladder": {"sizes": [SIZES[0], SIZES[0]]}}, "ladder.sizes.1", "does not differ"),
        (
            {"ladder": {"sizes": [SIZES[0], {"workload.num_dimension": 3}]}},
            "ladder.sizes.1.workload.num_dimension",
            "unknown key; did you mean num_dimensions?",
        ),
        (
            {"ladder": {"sizes": [SIZES[0], {"workload.num_dimensions": 0}]}},
            "ladder.sizes.1.workload.num_dimensions",
            "got 0",
        ),
        (
            {"ladder": {"sizes": SIZES, "predict": [{"budget.example": 3}]}},
            "ladder.predict.0.budget.example",
            "did you mean examples?",
        ),
        ({"ladder": {"sizes": [{"ladder.check": 1}, {}]}}, "ladder.sizes.0", "not the dotted path"),
        ({"transfer": {"base_batch_size": 4, "rules": ["sqrt"]}}, "transfer", "of a ladder"),
        ({"target": {"at_most": 0.1}}, "target", "of a ladder"),
        (
            {"scientific": {"global_batch_size": [4, 16], "optimizer": ["sgd", "adamw"]}},
            "scientific.optimizer",
            "the only scientific axis",
        ),
        (
            {
                "nuisance": {
                    "peak_lr": {"log_uniform": [1e-3, 1e-1]},
                    "clip_norm": {"choice": [None, 1.0]},
                }
            },
            "nuisance.clip_norm",
            "searches peak_lr alone",
        ),
        ({"nuisance": {"peak_lr": {"choice": [0.1, 0.2]}}}, "nuisance.peak_lr", "log_uniform"),
        ({"budget": {"examples": 1000, "min_steps": 9}}, "budget.min_steps", "cannot be given"),
        ({"search": {"trials_per_cell": 3}}, "search.sampler", "allowed: surface"),
        ({"search": {"num_trials": 1}}, "search.num_trials", "each of the 2 sizes"),
        (
            {"search": {"num_trials": 9, "budget_flops": 1e9}},
            "search",
            "exactly one of num_trials and budget_flops",
        ),
        (
            {"search": {"budget_flops": 1e9}, "ladder": None},
            "search.budget_flops",
            "is for a ladder",
        ),
        ({"resources": {"num_workers": "auto"}}, "resources.num_workers", "every size"),
    ],
)
def test_what_a_ladder_cannot_say_is_refused_by_name(
    changes: dict[str, Any], path: str, words: str
) -> None:
    with pytest.raises(StudyFileError) as raised:
        ladder(**changes)
    lines = str(raised.value).splitlines()
    assert any(line.startswith(f"{path}") and words in line for line in lines), lines
