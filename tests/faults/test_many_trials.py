"""Two hundred trials in one study: nothing piles up."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import environment
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
    """What a process is, as in `driver`, `ray::RayTrainWorker` or `log_monitor.py`."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0].split(".")[0]
    if "scaling.study" in words:
        return "driver"
    return next((Path(word).name for word in words if word.endswith(".py")), Path(words[0]).name)


def held(study: Running) -> Held:
    """What is held now."""
    size, files = Counter[str](), Counter[str]()
    address, token = "", ""
    for process in study.processes(""):
        try:
            name = kind(process)
            size[name] += process.memory_full_info().uss
            files[name] += process.num_fds()
            words = process.cmdline()
            for word in words:
                if word.startswith("--gcs-address="):
                    address = word.partition("=")[2]
                    token = process.environ()["RAY_AUTH_TOKEN_PATH"]
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return Held(size, files, *ray_objects(address, token))


COUNT_OBJECTS = """
import sys
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions
state = GlobalState()
state._initialize_global_state(
    GcsClientOptions.create(
        sys.argv[1], None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
    )
)
print(sum(actor["State"] != "DEAD" for actor in state.actor_table(None).values()))
print(sum(group["state"] != "REMOVED" for group in state.placement_group_table().values()))
"""


def ray_objects(address: str, token: str) -> tuple[int, int]:
    """Live actors and placement groups of a cluster, whose token is in that file."""
    # Ray's public way asks the dashboard, which a study's own Ray does not start.
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_OBJECTS, address],
        env=environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    actors, groups = counted.stdout.split()[-2:]
    return int(actors), int(groups)


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
        assert after.bytes[name] <= 1.1 * size, f"{name}: {as_mb(before)} → {as_mb(after)}"
        # Asking Ray what it holds opens some connections; a leak would be one for each trial.
        assert after.files[name] <= 1.1 * before.files[name] + 3, name
    assert after.actors <= before.actors
    assert after.placement_groups <= before.placement_groups


def as_mb(held: Held) -> dict[str, int]:
    return {name: round(size / 1e6) for name, size in held.bytes.items()}
