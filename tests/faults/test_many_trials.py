"""Two hundred trials in one study: nothing piles up."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.studies import QUADRATIC
from tests.faults.disturbed import Running, started

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STUDY: dict[str, Any] = {
    **QUADRATIC,
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.1]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"steps": 2},
    "evaluation": {"every_steps": 1},
    "search": {"trials_per_cell": 100},
}


@dataclass(frozen=True)
class Held:
    """What a study's processes hold: bytes and open files by kind of process, Ray's objects."""

    bytes: Counter[str]
    files: Counter[str]
    actors: int
    placement_groups: int


def kind(process: psutil.Process) -> str:
    """What a process is, as in `ray::RayTrainWorker`; all of Ray's own together."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0].split(".")[0]
    return "driver" if "scaling.study" in words else "ray"


def held(study: Running) -> Held:
    """What is held now."""
    size, files = Counter[str](), Counter[str]()
    address = ""
    for process in study.processes(""):
        try:
            name = kind(process)
            size[name] += process.memory_full_info().uss
            files[name] += process.num_fds()
            words = process.cmdline()
        except psutil.NoSuchProcess:  # it has just ended
            continue
        for word in words:
            if word.startswith("--gcs-address="):
                address = word.partition("=")[2]
    return Held(size, files, *ray_objects(address))


def ray_objects(address: str) -> tuple[int, int]:
    """Live actors and placement groups of a cluster."""
    from ray.util.state import list_actors, list_placement_groups

    actors = list_actors(address=address, limit=10_000)
    groups = list_placement_groups(address=address, limit=10_000)
    return (
        sum(actor.state != "DEAD" for actor in actors),
        sum(group.state != "REMOVED" for group in groups),
    )


def test_nothing_piles_up(tmp_path: Path) -> None:
    study = started(tmp_path, changes=STUDY | {"name": "faulty"})
    study.wait_for("[20/200]")
    before = held(study)
    study.wait_for("[195/200]", seconds=400)
    after = held(study)
    assert study.end() == 0, study.output

    print(f"MB: {as_mb(before)} → {as_mb(after)}")
    print(f"files: {dict(before.files)} → {dict(after.files)}")
    assert before.bytes["driver"] > 0
    assert before.bytes["ray::RayTrainWorker"] > 0
    for name, size in before.bytes.items():
        # Ray's log monitor and dashboard are small: they count together with its servers.
        assert after.bytes[name] <= 1.1 * size, f"{name}: {as_mb(before)} → {as_mb(after)}"
    assert after.actors <= before.actors
    assert after.placement_groups <= before.placement_groups
    assert after.files.total() <= before.files.total() + 5


def as_mb(held: Held) -> dict[str, int]:
    return {name: round(size / 1e6) for name, size in held.bytes.items()}
