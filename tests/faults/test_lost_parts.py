"""What docs/reference/reliability.md promises when parts of Ray itself are killed.

Each is one of Ray's own processes, which the study's trials are innocent of: none of them fails.
"""

import random
import time
from pathlib import Path

import pytest

from tests.faults.disturbed import (
    Losses,
    Running,
    assert_recorded_once,
    in_the_middle_of_a_trial,
    incidents,
    losses,
    records,
    started,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CONTROLLER, BROKER, CLEANER = "ray::TrainController", "ray::Broker", "ray::PlacementGroupCleaner"
WORKER = "ray::RayTrainWorker"
END_SECONDS = 500.0


def kill_all(study: Running, title: str) -> None:
    found = study.processes(title)
    assert found, [process.name() for process in study.processes("")]
    for process in found:
        process.kill()


def wait_for_a_new(study: Running, title: str, after: set[int]) -> None:
    def is_there() -> bool:
        return any(process.pid not in after for process in study.processes(title))

    study.wait_until(is_there, 400)


def assert_nothing_lost(study: Running, folder: Path, undisturbed: Losses) -> None:
    assert study.end(END_SECONDS) == 0, study.output
    assert " failed" not in study.output
    assert "Traceback" not in study.output
    assert losses(folder) == undisturbed
    assert all(trial.status == "done" for trial in records(folder))
    assert_recorded_once(folder)


def test_the_train_controller_is_killed(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    kill_all(study, CONTROLLER)
    assert_nothing_lost(study, tmp_path, undisturbed)
    assert incidents(tmp_path)["restarted"] == 1
    [restarted] = [i for t in records(tmp_path) for i in t.incidents if i["kind"] == "restarted"]
    assert restarted["cause"] == "the controller of its workers died"


def test_the_train_controller_is_killed_before_the_first_trial(
    tmp_path: Path, undisturbed: Losses
) -> None:
    study = started(tmp_path)
    study.wait_until(lambda: bool(study.processes(CONTROLLER)), 400)
    time.sleep(random.uniform(0, 5))
    kill_all(study, CONTROLLER)
    assert_nothing_lost(study, tmp_path, undisturbed)


def test_the_train_controller_is_killed_before_its_workers_have_said_a_word(
    tmp_path: Path, undisturbed: Losses
) -> None:
    study = started(tmp_path)
    study.wait_until(lambda: bool(study.processes(WORKER)), 400)
    kill_all(study, CONTROLLER)  # what it has reserved is not known to Ray's cleaner yet
    assert_nothing_lost(study, tmp_path, undisturbed)


def test_the_broker_is_killed(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    kill_all(study, BROKER)
    assert_nothing_lost(study, tmp_path, undisturbed)
    assert incidents(tmp_path)["restarted"] >= 1


def test_the_placement_group_cleaner_and_a_controller_are_killed(
    tmp_path: Path, undisturbed: Losses
) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    kill_all(study, CLEANER)  # nothing frees what the controller had reserved but Ray itself
    kill_all(study, CONTROLLER)
    assert_nothing_lost(study, tmp_path, undisturbed)


def test_one_kill_after_another(tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    for title in (CONTROLLER, WORKER, BROKER, CONTROLLER):
        study.wait_until(lambda title=title: bool(study.processes(title)), 400)
        before = {process.pid for process in study.processes(title)}
        kill_all(study, title)
        wait_for_a_new(study, title, before)
        time.sleep(random.uniform(0, 4))
    assert_nothing_lost(study, tmp_path, undisturbed)


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_the_cluster_is_lost(part: str, tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    in_the_middle_of_a_trial(study)
    found = [process for process in study.processes("") if process.name() == part]
    assert len(found) == 1
    found[0].kill()
    assert study.end(END_SECONDS) == 1, study.output
    last = [line for line in study.output.splitlines() if line.strip()][-2:]
    assert last[0].startswith("the Ray cluster is lost")
    assert last[1].endswith("To go on: python -m scaling.study faulty.yaml --resume")
    assert "Traceback" not in study.output
    study = started(tmp_path, "--resume")
    assert_nothing_lost(study, tmp_path, undisturbed)
