"""A study on a cluster that others use too, and whose machines come and go."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from scaling.runner.controllers import CONTROLLER_BYTES
from tests.cluster.machines import Machines, machines
from tests.end_to_end.studies import write_study
from tests.faults.disturbed import STUDY as FAULTY
from tests.faults.disturbed import Losses, Running, losses, losses_alone

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STUDY: dict[str, Any] = FAULTY | {
    "resources": {"num_workers": 1},
    "checkpoints": {"every_seconds": 0.5},
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of the study on a machine of its own."""
    return losses_alone(tmp_path_factory.mktemp("quiet"), STUDY)


def joined(folder: Path, cluster: Machines, *arguments: str) -> Running:
    write_study(folder, STUDY)
    return Running(folder, "--address", cluster.address, *arguments, **cluster.variables)


def started_by(name: str) -> list[int]:
    """For each of Ray's processes of this name, the raylet that has started it."""
    commands = {process: process.info["cmdline"] for process in psutil.process_iter(["cmdline"])}
    return [process.ppid() for process, words in commands.items() if words and name in words[0]]


def test_half_of_the_cluster_is_held_by_another_job(tmp_path: Path, quiet: Losses) -> None:
    with machines(2) as cluster:
        cluster.hold(1)
        study = joined(tmp_path, cluster)
        study.wait_for("1 worker group of 1 worker ready")
        assert study.end() == 0, study.output
    assert losses(tmp_path) == quiet


def test_a_wholly_held_cluster_is_waited_for(tmp_path: Path, quiet: Losses) -> None:
    with machines(1) as cluster:
        cluster.hold(1)
        study = joined(tmp_path, cluster)
        study.wait_for("waiting for 1 CPU, 600 s at most: 0 of 1 CPUs are free")
        cluster.free()
        assert study.end() == 0, study.output
    assert losses(tmp_path) == quiet


def test_a_held_cluster_is_refused_at_once_where_nobody_waits(tmp_path: Path) -> None:
    with machines(1) as cluster:
        cluster.hold(1)
        study = joined(tmp_path, cluster, "--set", "resources.wait_for_resources_seconds=0")
        assert study.end() == 2, study.output
    assert "resources: the study needs 1 CPU; 0 of 1 CPUs are free" in study.output
    assert not (tmp_path / "runs/faulty").exists()


def test_a_machine_that_comes_late_is_used(tmp_path: Path, quiet: Losses) -> None:
    with machines(1) as cluster:
        study = joined(tmp_path, cluster, "--set", "confirm.num_seeds=12")
        study.wait_for("1 worker group of 1 worker ready")
        cluster.add(num_cpus=1)
        study.wait_for("the cluster has room for 1 more worker group")
        study.wait_for("2 of 2 worker groups ready")
        assert study.end() == 0, study.output
    found = losses(tmp_path)
    assert {trial: found[trial] for trial in quiet} == quiet


def test_a_lost_machines_trial_goes_on_elsewhere(tmp_path: Path, quiet: Losses) -> None:
    with machines(1) as cluster:
        number = cluster.add(num_cpus=1)
        study = joined(tmp_path, cluster)
        study.wait_for("2 worker groups of 1 worker ready")
        study.wait_for("[1/")
        cluster.kill(number)
        study.wait_for("1 of 2 worker groups ready; waiting for 1 CPU", 60)
        assert study.end() == 0, study.output
    assert losses(tmp_path) == quiet
    assert "its machine was lost" in (tmp_path / "runs/faulty/trials.jsonl").read_text()


def test_a_controller_runs_elsewhere_where_the_head_is_full(tmp_path: Path, quiet: Losses) -> None:
    with machines(0, memory=CONTROLLER_BYTES) as cluster:
        cluster.add(num_cpus=1)
        number = cluster.add(num_cpus=1)
        study = joined(tmp_path, cluster)
        study.wait_for("2 worker groups of 1 worker ready")
        study.wait_for("[1/")
        [on_head, elsewhere] = started_by("ray::TrainController")
        assert on_head != elsewhere
        [head] = set(started_by("ray::Broker"))
        assert head in (on_head, elsewhere)
        assert head not in started_by("ray::ImplicitFunc")  # which passes on a trial's events
        cluster.kill(number)
        assert study.end() == 0, study.output
    assert losses(tmp_path) == quiet


def test_a_study_outlives_the_only_machine_that_trains(tmp_path: Path, quiet: Losses) -> None:
    """What passes on its trials' events is lost with it, and waits for another one too."""
    with machines(0) as cluster:
        number = cluster.add(num_cpus=1)
        study = joined(tmp_path, cluster)
        study.wait_for("1 worker group of 1 worker ready")
        study.wait_for("[1/")
        cluster.kill(number)
        study.wait_for("0 of 1 worker groups ready; waiting for 1 CPU: no machine has any", 60)
        cluster.add(num_cpus=1)
        assert study.end() == 0, study.output
    assert losses(tmp_path) == quiet
