"""Who gets a GPU, and what its workers exchange gradients by."""

import pytest

from scaling.spec.resources import Resources
from scaling.spec.study import StudySpec
from tests.spec.studies import LM, QUADRATIC


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("auto", "gloo"),  # not decided: nothing has a GPU yet
        (0, "gloo"),
        (0.1, "cpu:gloo,cuda:gloo"),
        (0.5, "cpu:gloo,cuda:gloo"),
        (1, "cpu:gloo,cuda:nccl"),
        (4, "cpu:gloo,cuda:nccl"),
    ],
)
def test_nccl_needs_a_whole_gpu_a_rank(gpus: float, expected: str) -> None:
    resources = Resources(gpus_per_worker=gpus)
    assert resources.backend == expected
    assert resources.shares_gpus == (expected == "cpu:gloo,cuda:gloo")


@pytest.mark.parametrize(
    ("study", "given", "in_cluster", "expected"),
    [
        (LM, None, 8, 1),
        (LM, "auto", 0.5, 1),
        (LM, None, 0, 0),
        (LM, 0, 8, 0),
        (LM, 0.5, 8, 0.5),
        (LM, 2, 0, 2),  # refused where the cluster is seen
        (QUADRATIC, None, 8, 0),  # nothing to gain
    ],
)
def test_a_gpu_is_used_where_there_is_one(
    study: dict[str, object], given: object, in_cluster: float, expected: float
) -> None:
    resources = {"num_workers": 1} | ({} if given is None else {"gpus_per_worker": given})
    spec = StudySpec.model_validate(study | {"resources": resources})
    decided = spec.with_gpus(in_cluster)
    assert decided.resources.gpus_per_worker == decided.resources.num_gpus == expected
    assert decided.with_gpus(0 if in_cluster else 8) == decided  # once and for all
    again = StudySpec.model_validate_json(decided.model_dump_json(exclude_unset=True))
    assert again.resources == decided.resources


def test_each_size_of_a_ladder_has_its_gpus() -> None:
    ladder = {"sizes": [{"workload.model.hidden_size": 32}, {"workload.model.hidden_size": 64}]}
    study = {name: value for name, value in LM.items() if name not in ("transfer", "confirm")}
    spec = StudySpec.model_validate(study | {"ladder": ladder, "search": {"num_trials": 20}})
    assert {size.resources.gpus_per_worker for size in spec.sizes} == {"auto"}
    assert {size.resources.gpus_per_worker for size in spec.with_gpus(1).sizes} == {1}
