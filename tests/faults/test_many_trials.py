"""Four hundred trials in one study: nothing piles up."""

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
    "search": {"trials_per_cell": 200},
}


@dataclass(frozen=True)
class Held:
    """What a study's processes hold: bytes and open files by kind of process, Ray's objects.

    `started` counts the actors that have ended too.
    """

    bytes: Counter[str]
    files: Counter[str]
    started: int
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
actors = state.actor_table(None).values()
print(len(actors))
print(sum(actor["State"] != "DEAD" for actor in actors))
print(sum(group["state"] != "REMOVED" for group in state.placement_group_table().values()))
"""


def ray_objects(address: str, token: str) -> tuple[int, int, int]:
    """All actors, live ones and placement groups of a cluster, whose token is in that file."""
    # Ray's public way asks the dashboard, whose address this process would have to join to learn.
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_OBJECTS, address],
        env=environment() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    started, actors, groups = counted.stdout.split()[-3:]
    return int(started), int(actors), int(groups)


def test_nothing_piles_up(tmp_path: Path) -> None:
    study = started(tmp_path, changes=STUDY | {"name": "faulty"})
    study.wait_for("[100/400]")
    before = held(study)
    study.wait_for("[395/400]", seconds=400)
    after = held(study)
    assert study.end() == 0, study.output

    print(f"MB: {as_mb(before)} → {as_mb(after)}")
    print(f"files: {dict(before.files)} → {dict(after.files)}")
    assert before.bytes["driver"] > 0
    assert before.bytes["ray::RayTrainWorker"] > 0
    for name, size in before.bytes.items():
        # The driver's goes up and down by 40 MB; Ray keeps what it knows of 100,000 calls.
        limit = 1.1 * size + 60e6
        assert after.bytes[name] <= limit, f"{name}: {as_mb(before)} → {as_mb(after)}"
        # Asking Ray what it holds opens some connections; a leak would be one for each trial.
        assert after.files[name] <= 1.1 * before.files[name] + 3, name
    # A trial takes over the process of one before, but for a few that Tune had given up by then.
    assert after.started <= before.started + 15
    assert after.actors <= before.actors
    assert after.placement_groups <= before.placement_groups


def as_mb(held: Held) -> dict[str, int]:
    return {name: round(size / 1e6) for name, size in held.bytes.items()}
