"""A study on hosts with their own files and networks: its driver's host, or the head, is lost."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import LAPTOP, Hosts, hosts, missing
from tests.end_to_end.studies import write_study
from tests.faults.disturbed import STUDY as FAULTY
from tests.faults.disturbed import Losses, assert_recorded_once, losses, losses_alone

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing()),
]  # fmt: skip
HEAD, *WORKERS = (f"10.77.0.{number}" for number in (10, 11, 12, 13))
PORT = 6379
STUDY: dict[str, Any] = FAULTY | {"checkpoints": {"every_seconds": 0.5}}
OWN: dict[str, Any] = FAULTY | {
    "workload": {"task": "custom", "factory": "own_task:build", "options": {"num_train": 120}},
    "budget": {"steps": 30},
    "evaluation": {"every_steps": 10},
}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of the study on a machine of its own."""
    return losses_alone(tmp_path_factory.mktemp("quiet"), STUDY)


def start_ray(there: Hosts, host: str, *arguments: str) -> None:
    """Ray on a host that has the cluster's token."""
    token = there.files(host) / "root/.ray"
    if not token.exists():
        shutil.copytree(there.files(LAPTOP) / "root/.ray", token)
    there.run(
        "ray", "start", *arguments, f"--node-ip-address={host}", "--object-store-memory=100000000",
        "--disable-usage-stats", on=host,
    )  # fmt: skip


def start_cluster(there: Hosts) -> None:
    """A head that does not train, and workers with a core each."""
    head = ("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
    start_ray(there, HEAD, *head)
    for host in WORKERS:
        start_ray(there, host, f"--address={HEAD}:{PORT}", "--num-cpus=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Hosts]:
    """The cluster on hosts."""
    with hosts() as there:
        for host in (HEAD, *WORKERS):
            there.add(host)
        there.run("ray", "get-auth-token", "--generate")
        (there.files(LAPTOP) / "root/.ray/auth_token").chmod(0o600)
        start_cluster(there)
        yield there


def study(there: Hosts, folder: Path, host: str, *arguments: str) -> subprocess.Popen[str]:
    """The study, its driver on a host, in a folder that all hosts share."""
    folder.mkdir(exist_ok=True)
    write_study(folder, STUDY)
    return start_study(there, f"/mnt/{folder.name}", host, *arguments)


def start_study(there: Hosts, inside: str, host: str, *arguments: str) -> subprocess.Popen[str]:
    """A driver on a host, in a folder by the name that it has there."""
    command = f'cd {inside} && exec python -u -m scaling.study faulty.yaml "$@" >> output.txt 2>&1'
    address = f"--address={HEAD}:{PORT}"
    return there.start("bash", "-c", command, "study", address, *arguments, on=host)


def wait_for(folder: Path, text: str, process: subprocess.Popen[str], seconds: float = 300) -> None:
    output = folder / "output.txt"
    deadline = time.monotonic() + seconds
    while text not in (said := output.read_text() if output.exists() else ""):
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def end(folder: Path, process: subprocess.Popen[str]) -> None:
    assert process.wait(600) == 0, (folder / "output.txt").read_text()


def trains_on(there: Hosts) -> list[str]:
    """The hosts on which a process of a worker group runs."""
    return [h for h in WORKERS if "ray::RayTrainWorker" in there.run("ps", "axo", "args=", on=h)]


def left_on(there: Hosts, host: str) -> list[str]:
    """Processes of a study on a host."""
    lines = there.run("ps", "axo", "args=", on=host).splitlines()
    ours = ("ray::RayTrainWorker", "ray::TrainController", "ray::Broker", "python -u -m scaling")
    return [line for line in lines if line.startswith(ours)]


def test_storage_of_one_host_alone_is_refused(cluster: Hosts) -> None:
    folder = cluster.shared / "unshared"
    process = study(cluster, folder, HEAD, "--set", "storage=/root/runs/faulty")
    assert process.wait(300) == 2
    said = (folder / "output.txt").read_text()
    [line] = [line for line in said.splitlines() if line.startswith("storage: ")]
    assert HEAD in line
    assert any(host in line for host in WORKERS)
    assert not (cluster.files(HEAD) / "root/runs/faulty/study.json").exists()


def test_own_code_of_one_host_alone_trains_on_others(cluster: Hosts, tmp_path: Path) -> None:
    """The head trains nothing; the others have no such folder, or one with another text in it."""
    code = (Path(__file__).parents[1] / "own/conv_attention.py").read_text(encoding="utf-8")
    folder = cluster.files(HEAD) / "root/mine"
    for where in (tmp_path, folder):
        where.mkdir(exist_ok=True)
        write_study(where, OWN)
        (where / "own_task.py").write_text(code, encoding="utf-8")
    stale = cluster.files(WORKERS[0]) / "root/mine"
    stale.mkdir()
    (stale / "own_task.py").write_text("raise RuntimeError('of another day')\n", encoding="utf-8")
    process = start_study(cluster, "/root/mine", HEAD, "--set", "storage=/mnt/mine/runs/faulty")
    end(folder, process)
    assert losses(cluster.shared / "mine") == losses_alone(tmp_path, OWN)


def test_the_driver_s_host_is_lost_and_another_one_resumes(cluster: Hosts, quiet: Losses) -> None:
    """Each trial is spread over two hosts."""
    folder = cluster.shared / "driver"
    lost, other, _ = WORKERS
    first = study(cluster, folder, lost)
    wait_for(folder, "[2/", first)
    assert len(trains_on(cluster)) == 2
    cluster.kill(lost)
    first.wait(60)
    second = study(cluster, folder, other, "--resume")
    end(folder, second)
    assert losses(folder) == quiet
    assert_recorded_once(folder)
    assert [left_on(cluster, host) for host in (HEAD, *WORKERS[1:])] == [[], [], []]
    cluster.add(lost)
    start_ray(cluster, lost, f"--address={HEAD}:{PORT}", "--num-cpus=1")


def test_the_head_is_lost_and_another_one_resumes(cluster: Hosts, quiet: Losses) -> None:
    """The driver runs on it, as a submitted study does."""
    folder = cluster.shared / "head"
    first = study(cluster, folder, HEAD)
    wait_for(folder, "[2/", first)
    cluster.kill(HEAD)
    first.wait(60)
    for host in WORKERS:
        cluster.run("ray", "stop", "--force", on=host)
    cluster.add(HEAD)
    start_cluster(cluster)
    second = study(cluster, folder, HEAD, "--resume")
    end(folder, second)
    assert losses(folder) == quiet
    assert_recorded_once(folder)
    assert [left_on(cluster, host) for host in (HEAD, *WORKERS)] == [[], [], [], []]
