"""How many workers a node has room for, fractions of a GPU included."""

import pytest

from scaling.runner.preflight import StartError, num_workers_on, workers_on
from scaling.spec.resources import Resources


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "expected"),
    [
        ({"CPU": 8.0}, 1.0, 0.0, 8),
        ({"CPU": 8.0}, 3.0, 0.0, 2),
        ({"CPU": 0.3}, 0.1, 0.0, 3),  # 0.3 / 0.1 is 2.9999999999999996
        ({"CPU": 16.0}, 1.0, 1.0, 0),
        ({"CPU": 16.0, "GPU": 4.0}, 1.0, 1.0, 4),
        ({"CPU": 3.0, "GPU": 4.0}, 1.0, 1.0, 3),
        ({"CPU": 16.0, "GPU": 2.0}, 1.0, 0.5, 4),
        ({"CPU": 16.0, "GPU": 2.0}, 1.0, 0.6, 2),  # one on each, since none may span two
        ({"CPU": 16.0, "GPU": 1.0}, 1.0, 0.1, 10),
        ({"CPU": 16.0, "GPU": 5.0}, 1.0, 2.0, 2),
    ],
)
def test_workers_on_a_node(node: dict[str, float], cpus: float, gpus: float, expected: int) -> None:
    assert workers_on(node, Resources(cpus_per_worker=cpus, gpus_per_worker=gpus)) == expected


def test_who_has_fewer_gpus_than_workers_is_told_that_they_may_share() -> None:
    """By `gpus_per_worker: auto` each worker of a machine with one has it to itself."""
    here = [{"CPU": 16.0, "GPU": 1.0}]
    resources = Resources(num_workers=2).with_gpus(1, trains=True)
    with pytest.raises(StartError, match=r"lower .* gpus_per_worker \(0\.5: two workers share"):
        num_workers_on(here, resources)
    assert num_workers_on(here, resources.model_copy(update={"gpus_per_worker": 0.5})) == 2
    with pytest.raises(StartError, match=r"gpus_per_worker$"):
        num_workers_on([{"CPU": 1.0}], Resources(num_workers=2, gpus_per_worker=0))
