"""What docs/reference/reliability.md promises, each row on real processes.

After each fault the study has the same trials with the same losses, bit for bit, as one that
nothing disturbed; each trial is in MLflow once; and no process is left.
"""

import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disturbed import (
    STUDY,
    Losses,
    Running,
    assert_recorded_once,
    in_the_middle_of_a_trial,
    incidents,
    losses,
    random_moments,
    records,
    started,
    wait_for_checkpoints,
    with_fault,
)
from tests.recipes import TINY_BERT
from tests.sinks.servers import MlflowServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WORKER, RELAY = "ray::RayTrainWorker", "ray::ImplicitFunc"


def kill_one(study: Running, title: str) -> None:
    found = study.processes(title)
    assert found, [process.name() for process in study.processes("")]
    random.choice(found).kill()


@pytest.mark.ci
def test_a_worker_is_killed(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    wait_for_checkpoints(study)
    kill_one(study, WORKER)
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["restarted"] == 1
    assert incidents(tmp_path)["resumed"] == 1
    assert_recorded_once(tmp_path)


@pytest.mark.ci
def test_the_driver_is_killed(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    study.wait_for("[2/6]")
    wait_for_checkpoints(study)
    study.kill()
    again = started(tmp_path, "--resume")
    assert again.end() == 0, again.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["resumed"] >= 1
    assert_recorded_once(tmp_path)


def test_the_driver_is_killed_at_random_moments(tmp_path: Path, undisturbed: Losses) -> None:
    for number, moment in enumerate(random_moments(seed=3, number=9)):
        study = started(tmp_path, *(["--resume"] if number else []))
        if moment.when_ready:
            study.wait_for("workers ready")
        time.sleep(moment.seconds)
        study.kill()
    # Where a first trial takes longer to begin than all of these waited, none met a checkpoint.
    study = started(tmp_path, "--resume")
    study.wait_for("workers ready")
    wait_for_checkpoints(study)
    study.kill()
    study = started(tmp_path, "--resume")
    study.wait_for("workers ready")  # not all was done before
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["resumed"] >= 1
    assert_recorded_once(tmp_path)


def test_a_tune_actor_is_killed(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    for relay in study.processes(RELAY):
        relay.kill()
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert_recorded_once(tmp_path)


def test_one_rank_raises(tmp_path: Path, undisturbed: Losses) -> None:
    fault = with_fault(tmp_path, kind="raise", ranks=[1], global_batch_size=32, step=120)
    study = started(tmp_path, **fault)
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["restarted"] == 1
    [restarted] = [i for t in records(tmp_path) for i in t.incidents if i["kind"] == "restarted"]
    assert "injected fault" in restarted["cause"]
    assert_recorded_once(tmp_path)


def test_all_ranks_raise(tmp_path: Path, undisturbed: Losses) -> None:
    fault = with_fault(tmp_path, kind="raise", ranks=[0, 1], global_batch_size=32, step=290)
    study = started(tmp_path, **fault)
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["restarted"] == 1
    assert incidents(tmp_path)["resumed"] == 1
    assert_recorded_once(tmp_path)


def test_nan_ends_a_trial_and_no_other(tmp_path: Path, undisturbed: Losses) -> None:
    fault = with_fault(tmp_path, kind="nan", ranks=[0, 1], global_batch_size=32, step=120)
    study = started(tmp_path, **fault)
    assert study.end() == 0, study.output
    after = losses(tmp_path)
    diverged = [name for name, (status, _) in after.items() if status == "diverged"]
    assert len(diverged) == 1
    before_it = after.pop(diverged[0])[1]
    assert before_it == undisturbed[diverged[0]][1][:3]  # evaluated after 0, 50 and 100 steps
    same = {name for name in after if name.startswith("search")}
    assert {name: after[name] for name in same} == {name: undisturbed[name] for name in same}
    assert_recorded_once(tmp_path)


def test_memory_runs_out(tmp_path: Path) -> None:
    # How a batch is cut changes which units dropout leaves out, so there is none. The model is deep
    # enough for the thousand tokens that a CPU takes at once not to fit.
    deep = {"hidden_size": 64, "num_hidden_layers": 24}
    data = STUDY["workload"]["data"] | {"num_train": 1100}
    workload = STUDY["workload"] | {"model": TINY_BERT | deep, "data": data}
    changes = {
        "workload": workload,
        "scientific": {"global_batch_size": [8, 1024]},
        "budget": {"steps": 6},
        "evaluation": {"every_steps": 2, "num_examples": 50},
        "nuisance": {"peak_lr": {"log_uniform": [1.0e-3, 3.0e-3]}},
    }
    (tmp_path / "undisturbed").mkdir()
    study = started(tmp_path / "undisturbed", changes=changes)
    assert study.end() == 0, study.output
    (tmp_path / "limited").mkdir()
    study = started(tmp_path / "limited", changes=changes)
    study.wait_for("workers ready")
    for worker in study.processes(WORKER):
        limit = worker.memory_info().vms + 350_000_000
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
    assert study.end() == 0, study.output
    assert incidents(tmp_path / "limited")["out_of_memory"] >= 1
    expected = losses(tmp_path / "undisturbed")
    found = losses(tmp_path / "limited")
    assert found.keys() == expected.keys()
    for trial_id, (status, values) in found.items():
        assert status == expected[trial_id][0]
        assert values == pytest.approx(expected[trial_id][1], rel=1e-5)
    # The recipe is what was asked for.
    assert {
        (t.recipe.layout.micro_batch_size, t.recipe.layout.grad_accum_steps)
        for t in records(tmp_path / "limited")
    } == {(4, 1), (512, 1)}


def test_memory_runs_out_on_one_rank_while_another_waits(tmp_path: Path) -> None:
    changes = {
        "scientific": {"global_batch_size": [32]},
        "budget": {"steps": 20},
        "evaluation": {"every_steps": 10, "num_examples": 50},
        "confirm": None,
    }
    fault = with_fault(tmp_path, kind="memory", ranks=[1], fits=8)
    study = started(tmp_path, changes=changes, **fault)
    assert study.end() == 0, study.output
    assert len(records(tmp_path)) == 3
    assert incidents(tmp_path) == {"out_of_memory": 1}
    # Each rank once: the later trials began with what had fitted, and the loss was no failure.
    marks = sorted(path.name.split("-")[1] for path in tmp_path.glob("fault-*"))
    assert marks == ["0", "1"]


def test_workers_prepare_their_data_for_longer_than_they_may_start(tmp_path: Path) -> None:
    changes = {"budget": {"steps": 4}, "evaluation": {"every_steps": 2}, "confirm": None}
    # A busy machine stretches the limit, threefold at most.
    study = started(
        tmp_path, changes=changes, **with_fault(tmp_path, kind="slow", seconds=100, limit=30)
    )
    assert study.end() == 0, study.output
    assert "the workers read and encode the data: 0 of 1 worker groups are ready" in study.output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.ci
def test_the_disk_is_full(tmp_path: Path, small_disk: Path, undisturbed: Losses) -> None:
    (tmp_path / "runs").symlink_to(small_disk)
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    fill(small_disk / "ballast")
    assert study.end() == 1, study.output
    last = [line for line in study.output.splitlines() if line.strip()][-2:]
    assert "No space left on device; free some space" in last[0]
    assert last[1].endswith("--resume")
    assert "Traceback" not in study.output
    (small_disk / "ballast").unlink()
    study = started(tmp_path, "--resume")
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert_recorded_once(tmp_path)


def fill(file: Path) -> None:
    """Write until nothing more fits, to the last byte."""
    with file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    ballast.write(b"x" * size)
            except OSError:
                continue


def test_ctrl_c(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    study.interrupt()
    asked = time.monotonic()
    assert study.end() == 130
    assert time.monotonic() - asked < 60
    assert "To go on: python -m scaling.study faulty.yaml --resume" in study.output
    assert "Traceback" not in study.output
    study = started(tmp_path, "--resume")
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["resumed"] >= 1
    assert_recorded_once(tmp_path)


def test_a_second_driver_is_refused(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    study.wait_for("[1/6]")
    (tmp_path / "second").mkdir()
    (tmp_path / "second/runs").symlink_to(tmp_path / "runs")
    second = started(tmp_path / "second", "--resume")
    assert second.end() == 2
    assert "the study in runs/faulty is being run by another process" in second.output
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert_recorded_once(tmp_path)


def test_the_mlflow_server_is_killed_and_comes_back(
    tmp_path: Path, server: MlflowServer, undisturbed: Losses
) -> None:
    study = started(tmp_path, MLFLOW_TRACKING_URI=server.url)
    in_the_middle_of_a_trial(study)
    server.kill()
    study.wait_for("[4/6]")
    server.start()
    assert study.end() == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert_recorded_once(tmp_path, server.url)


def test_the_mlflow_server_stays_away(
    tmp_path: Path, server: MlflowServer, undisturbed: Losses
) -> None:
    study = started(tmp_path, MLFLOW_TRACKING_URI=server.url)
    in_the_middle_of_a_trial(study)
    server.kill()
    # All trials run, the report is made, and it is said that MLflow lacks some of it.
    assert study.end() == 1, study.output
    assert losses(tmp_path) == undisturbed
    assert (tmp_path / "reports/faulty/report.html").exists()
    assert "not everything is in MLflow yet" in study.output
    server.start()
    study = started(tmp_path, "--resume", MLFLOW_TRACKING_URI=server.url)
    assert study.end() == 0, study.output
    assert "ready on" not in study.output
    assert losses(tmp_path) == undisturbed
    assert_recorded_once(tmp_path, server.url)
