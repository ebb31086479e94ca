"""Starts that the machine refuses: one line soon, status 2, and nothing left behind."""

import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import environment
from tests.end_to_end.studies import QUADRATIC, write_study
from tests.faults.disturbed import working_in
from tests.sinks.told import client

COMMAND = shlex.join([sys.executable, "-m", "scaling.study", "quadratic.yaml"])
LONG = "/".join(["l" * 50, "m" * 40])

# What is done to the machine before the study starts, and what the refusal says.
REFUSED: dict[str, tuple[str, str]] = {
    "no TMPDIR": ("export TMPDIR=$PWD/none", "none: does not exist; set TMPDIR"),
    "TMPDIR is a file": ("touch file; export TMPDIR=$PWD/file", "is not a folder; set TMPDIR"),
    "TMPDIR cannot be written": ("export TMPDIR=/proc/self", "/proc/self: cannot be written"),
    "TMPDIR is relative": ("mkdir tmp; export TMPDIR=tmp", "TMPDIR=tmp: is not an absolute path"),
    "RAY_TMPDIR is a file": ("touch file; export RAY_TMPDIR=$PWD/file", "RAY_TMPDIR="),
    "TMPDIR is long": (f"mkdir -p {LONG}; export TMPDIR=$PWD/{LONG}", "too long for Ray's sockets"),
    "few open files": ("ulimit -n 200", "only 200 files may be open at once"),
    "few CPUs": ("sed -i 's/num_workers: 2/num_workers: 512/' quadratic.yaml", "512 workers"),
}  # fmt: skip
# On /mnt, whose path is short enough for Ray's sockets.
MOUNTED: dict[str, tuple[str, str]] = {
    "temporary folder full": (
        "mount -t tmpfs -o size=1m tmpfs /mnt; dd if=/dev/zero of=/mnt/x 2>/dev/null;"
        "export TMPDIR=/mnt", "No space left on device); free some space"
    ),
    "temporary folder nearly full": (
        "mount -t tmpfs -o size=8m tmpfs /mnt; export TMPDIR=/mnt",
        "8 MiB are free, and Ray needs 64; free some space",
    ),
    "temporary folder without inodes": (
        "mount -t tmpfs -o nr_inodes=50 tmpfs /mnt; export TMPDIR=/mnt",
        "more files fit in it",
    ),
    "shared memory read-only": (
        "mount -t tmpfs -o ro tmpfs /dev/shm", "shared memory /dev/shm: cannot be written"
    ),
}  # fmt: skip


def start(folder: Path, before: str, *, unshared: str = "", **variables: str) -> Any:
    """Run a study whose batches are multiples of many numbers of workers, after a shell command."""
    study = QUADRATIC | {"scientific": {"global_batch_size": [1024, 2048]}}
    write_study(folder, study)
    command = ["bash", "-c", f"{before}\nexec {COMMAND}"]
    if unshared:
        command = ["unshare", unshared, *command]
    before_it = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=environment() | variables, capture_output=True, text=True,
        timeout=400, check=False,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not by the clock: others may use the machine.
    return done, after.ru_utime + after.ru_stime - before_it.ru_utime - before_it.ru_stime


def assert_refused(folder: Path, done: Any, message: str) -> None:
    assert done.returncode == 2, (done.stdout, done.stderr)
    [line] = done.stderr.splitlines()
    assert message in line
    assert not (folder / "runs").exists()  # so that the next start is not kept from starting
    assert not working_in(folder)
    if (folder / "mlflow.db").exists():
        store = client(f"sqlite:///{folder}/mlflow.db")
        assert not store.search_runs([e.experiment_id for e in store.search_experiments()])


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_a_machine_that_cannot_start_ray(tmp_path: Path, kind: str) -> None:
    before, message = REFUSED[kind]
    done, cpu_seconds = start(tmp_path, before)
    assert_refused(tmp_path, done, message)
    assert cpu_seconds < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", MOUNTED)
def test_file_systems_that_cannot_start_ray(tmp_path: Path, kind: str) -> None:
    require_namespaces("-m")
    before, message = MOUNTED[kind]
    done, cpu_seconds = start(tmp_path, before, unshared="-m")
    assert_refused(tmp_path, done, message)
    assert cpu_seconds < 20


def require_namespaces(which: str) -> None:
    unshare = ["unshare", which, "true"]
    if os.geteuid() != 0 or subprocess.run(unshare, check=False).returncode != 0:
        pytest.skip("a namespace of its own needs root, and not every container grants one")


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_that_never_starts_is_given_up(tmp_path: Path) -> None:
    require_namespaces("-n")  # without a network, loopback included
    done, cpu_seconds = start(tmp_path, "", unshared="-n")
    assert_refused(tmp_path, done, "Ray did not start on this machine")
    assert cpu_seconds < 60


@pytest.mark.ray
@pytest.mark.slow
def test_without_a_home_a_study_runs(tmp_path: Path) -> None:
    done, _ = start(tmp_path, "touch file; export HOME=$PWD/file")
    assert done.returncode == 0, (done.stdout, done.stderr)


@pytest.mark.ray
@pytest.mark.slow
def test_without_shared_memory_a_study_runs(tmp_path: Path) -> None:
    require_namespaces("-m")
    full = "mount -t tmpfs -o size=1m tmpfs /dev/shm; dd if=/dev/zero of=/dev/shm/x 2>/dev/null"
    done, _ = start(tmp_path, full, unshared="-m")
    assert done.returncode == 0, (done.stdout, done.stderr)
