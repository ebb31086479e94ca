"""Warm worker groups: started once a study, they serve one trial after another.

Each slot is one `TorchTrainer.fit()` in a thread of the driver, whose workers ask the broker for
jobs until the pool is closed. Starting a group costs tens of seconds; a job on a warm one a
fraction of a second (docs/decisions has the measurements).
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scaling.files.shown_error import first_line
from scaling.measures.device import Device
from scaling.runner import reservations
from scaling.runner.broker import MACHINE_LOST, Broker
from scaling.runner.cluster import Patience
from scaling.runner.controllers import Controllers
from scaling.runner.jobs import Event, Job
from scaling.runner.preflight import ClusterError, StartError
from scaling.runner.process_group import torch_config
from scaling.runner.room import (
    SAY_SECONDS,
    alive_nodes,
    num_groups_more,
    status_words,
    wait_seconds,
    worker_resources,
)
from scaling.runner.serving import serve_jobs
from scaling.runner.shared_storage import mark, unmark
from scaling.runner.trial import checkpoints_of
from scaling.spec.issues import last_line
from scaling.spec.resources import Resources
from scaling.spec.study import StudySpec

START_TIMEOUT_SECONDS = 300.0
CLOSE_TIMEOUT_SECONDS = 30.0
NOTE_SECONDS = 15.0  # from one line to the next, while workers prepare
BROKER_SECONDS = 10.0
MAX_GROUP_RESTARTS = 10  # losses that the broker excuses aside
RESTART_SECONDS = 1.0
OTHERS_SECONDS = 20.0
"""From the first groups that are ready to the first trial, where the others are late."""
FOLLOW_SECONDS = 2.0
SAME_STATUS_SECONDS = 600.0
"""Between two lines of the same status, while some group trains; `SAY_SECONDS` while none does."""
MOST_STARTING = 12
"""Groups that start at once: each is five processes that import for seconds."""
MAX_CALLS = 100_000
"""Calls that wait at the broker at once: about four of each rank and two of each trial."""


class WorkerPool:
    """Long-lived worker groups, and the broker that gives them jobs. A context manager.

    Args:
        spec: The study.
        sizes: Workers of each group (slot).
        storage: Folder for what Ray Train writes.
        checkpoints: Folder or URL with a folder of checkpoints for each trial.
        tasks: The study's data, from `shared_tasks`.
        content: What the study trains on, which its workers must see too; empty takes anything.
        code: The text of each Python file of the user's own, for machines that have it not.
        note: Shows a line to the user.
        grows: Whether more groups of the same size follow when the cluster has room for them.
    """

    def __init__(
        self,
        spec: StudySpec,
        *,
        sizes: Sequence[int],
        storage: Path,
        checkpoints: str,
        tasks: Sequence[Any],
        content: Mapping[str, str],
        code: Mapping[str, str],
        note: Callable[[str], None],
        grows: bool,
    ) -> None:
        self._spec = spec
        self._sizes = list(sizes)
        self._note, self._grows = note, grows
        self._storage = storage
        self._checkpoints = checkpoints
        self._tasks = tuple(tasks)
        self._content, self._code = dict(content), dict(code)
        self._closing = threading.Event()
        self._num_ready = 0
        self.broker_name = f"broker-{uuid.uuid4().hex[:12]}"
        actor: Any = ray.remote(Broker)
        self._broker: Any = actor.options(
            name=self.broker_name, num_cpus=0, max_concurrency=MAX_CALLS,
            max_restarts=MAX_GROUP_RESTARTS,
            # Lost with the driver or not at all.
            scheduling_strategy=NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            ),
        ).remote()  # fmt: skip
        self._controllers = Controllers(spec.resources)
        self._follower = threading.Thread(target=self._follow_cluster, name="follow", daemon=True)
        self._host = ""
        self._threads: list[threading.Thread] = []
        self._errors: dict[str, BaseException] = {}

    def __enter__(self) -> "WorkerPool":
        self._host = mark(self._checkpoints, self.broker_name)
        self._start_slots(0)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._closing.set()
        # A cluster that is gone must not hide why the study ends.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._broker.close.remote(), timeout=BROKER_SECONDS)
        deadline = time.monotonic() + CLOSE_TIMEOUT_SECONDS
        for thread in filter(threading.Thread.is_alive, [self._follower, *self._threads]):
            thread.join(max(0.1, deadline - time.monotonic()))
        self._controllers.close()
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._broker)
        with contextlib.suppress(OSError):
            unmark(self._checkpoints, self.broker_name)

    @property
    def num_ready(self) -> int:
        """Groups that can train now, one at least: jobs may wait for a group that comes back."""
        return max(1, self._num_ready)

    def _start_slots(self, num_started: int) -> None:
        """Begin with the groups whose turn it is, so many having started."""
        num_past = num_started + len(self._errors)
        for number in turns(len(self._sizes), len(self._threads), num_past):
            slot, size = f"slot{number}", self._sizes[number]
            thread = threading.Thread(
                target=self._run_slot, args=(slot, size), name=slot, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def wait_until_ready(self) -> list[Device]:
        """Wait for `min_slots` groups, and a little longer for the others.

        Reading and encoding the data may take as long as it takes, once so many have started; a
        line every NOTE_SECONDS says that it goes on.

        Returns:
            What each that is ready computes on.

        Raises:
            StartError: If too few groups have started after START_TIMEOUT_SECONDS.
            ClusterError: If a group ends.
        """
        is_late, for_others = Patience(START_TIMEOUT_SECONDS), Patience(OTHERS_SECONDS)
        began = noted = time.monotonic()
        num_groups, num_started = len(self._sizes), 0
        least = min(self._spec.resources.min_slots, num_groups)
        while num_started >= least or not is_late.is_over:
            self.check()
            # The broker may have no process yet, and one that was killed is started again.
            with contextlib.suppress(ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
                devices: list[Device] = ray.get(self._broker.devices.remote(), timeout=1.0)
                self._num_ready = len(devices)
                started: int = ray.get(self._broker.num_started.remote(), timeout=1.0)
                num_started = started
                self._start_slots(num_started)
                if len(devices) < least:
                    for_others = Patience(OTHERS_SECONDS)
                elif len(devices) == num_groups or for_others.is_over:
                    if len(devices) < num_groups:
                        self._note(self._status(len(devices)))
                    self._follower.start()
                    return devices
                if num_started >= least and time.monotonic() - noted >= NOTE_SECONDS:
                    noted = time.monotonic()
                    seconds = f"{noted - began:.0f} s so far"
                    ready = f"{len(devices)} of {num_groups} worker groups are ready"
                    self._note(f"the workers read and encode the data: {ready}, {seconds}")
            time.sleep(0.1)
        self._threads.clear()  # they wait for what does not come
        raise StartError(
            f"{num_started} of {num_groups} worker groups had started after "
            f"{START_TIMEOUT_SECONDS:.0f} seconds, and resources.min_slots is {least}; is the "
            "cluster busy with other jobs?"
        )

    def check(self) -> None:
        """Raise ClusterError if a group has ended with an error, or may not train."""
        for slot, error in list(self._errors.items()):  # other threads add to them
            if isinstance(error, ClusterError):
                raise error
            reason = last_line(str(error) or repr(error))
            raise ClusterError(f"worker group {slot} ended: {reason}") from error

    def require_alive(self) -> None:
        """Raise ClusterError if no group is left, or one may not train for this study."""
        is_refused = any(isinstance(error, ClusterError) for error in list(self._errors.values()))
        if is_refused or len(self._errors) == len(self._sizes):
            self.check()

    def expect(self, trial_id: str) -> None:
        """Tune is given a trial, whose relay will submit its job."""
        self._broker.expect.remote(trial_id)

    def cancel(self, trial_id: str) -> None:
        """Ask a trial's job to stop, where it has one."""
        with contextlib.suppress(ray.exceptions.RayActorError):  # its jobs are gone with it
            ray.get(self._broker.cancel.remote(trial_id))

    def execute(self, job: Job) -> list[Event]:
        """Run a job without Tune; returns its events when it has ended."""
        events: list[Event] = []
        if not ray.get(self._broker.submit.remote(job)):
            raise ClusterError("all worker groups ended")
        while not events or events[-1]["kind"] not in ("ended", "failed"):
            self.check()
            new: list[Event] | None = ray.get(
                self._broker.next_events.remote(job.trial_id, len(events), 10.0)
            )
            if new is None:
                raise ClusterError("the broker of the worker groups died")
            events += new
        self.cancel(job.trial_id)
        return events

    def checkpoints_of(self, trial_id: str) -> str:
        """Folder or URL of a trial's checkpoints."""
        return checkpoints_of(self._checkpoints, trial_id)

    def _follow_cluster(self) -> None:
        """Until the pool is closed: move jobs off lost machines, and add groups."""
        self._num_said = self._num_ready
        self._said_at = self._trained_at = time.monotonic()
        said = ""
        while not self._closing.wait(FOLLOW_SECONDS):
            try:
                self._follow()
            except ray.exceptions.RayError:
                continue
            except Exception as error:  # noqa: BLE001  # or the thread would end unseen
                problem = f"the cluster cannot be looked at: {first_line(error)}"
                if problem != said:
                    self._note(said := problem)

    def _follow(self) -> None:
        groups: dict[str, set[str]] = ray.get(self._broker.nodes.remote(), timeout=BROKER_SECONDS)
        alive = alive_nodes()
        for slot in [slot for slot, nodes in groups.items() if nodes - alive.keys()]:
            ray.get(self._broker.group_lost.remote(slot, MACHINE_LOST), timeout=BROKER_SECONDS)
            del groups[slot]
        self._num_ready = len(groups)
        self._start_slots(len(groups))
        size, resources = self._sizes[0], self._spec.resources
        now, is_missing = time.monotonic(), len(groups) < len(self._sizes)
        is_due = now - self._said_at > (SAME_STATUS_SECONDS if groups else SAY_SECONDS)
        if self._grows and (len(groups) != self._num_said or (is_missing and is_due)):
            self._note(self._status(len(groups)))
            self._num_said, self._said_at = len(groups), now
        if self._grows and not is_missing:
            self._add(num_groups_more(resources, size, len(groups)))
        if groups:
            self._trained_at = now
            return
        longest = max(START_TIMEOUT_SECONDS, wait_seconds(resources, is_joined=self._grows))
        if now - self._trained_at > longest:
            self._give_up(now - self._trained_at)

    def _add(self, count: int) -> None:
        """More groups, of the size of the others."""
        if count:
            self._note(f"the cluster has room for {count} more worker group{'s' * (count > 1)}")
        self._sizes += self._sizes[:1] * count
        self._start_slots(len(self._threads))

    def _status(self, num_ready: int) -> str:
        resources = self._spec.resources
        return status_words(resources, num_ready=num_ready, num_groups=len(self._sizes))

    def _give_up(self, seconds: float) -> None:
        """End all slots: none has trained for so long."""
        error = ClusterError(f"no worker group was ready for {seconds:.0f} s")
        for number in range(len(self._sizes)):
            self._errors.setdefault(f"slot{number}", error)
            ray.get(self._broker.slot_ended.remote(f"slot{number}", str(error)))

    def _run_slot(self, slot: str, size: int) -> None:
        """Keep a group running until the pool is closed; any other end of it reaches the driver."""
        try:
            error = self._end_of_group(slot, size)
        except Exception as ended:  # noqa: BLE001  # or the thread would end unseen
            error = ended
        if self._closing.is_set():
            return
        self._errors[slot] = error
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._broker.slot_ended.remote(slot, str(error)))

    def _end_of_group(self, slot: str, size: int) -> BaseException:
        """Keep a group running; returns why it has ended, which does not count in a closed pool.

        Ray Train starts a group anew whose workers die. Where its controller dies, with all that
        it had started, another one begins; so too where Ray Train has counted losses that the
        broker excuses: memory that ran out, of which the next attempt takes less, and machines
        that were taken back or lost.
        """
        error: BaseException = RuntimeError("its workers left the pool")
        number = num_lost = num_failed = num_excused = 0
        max_failures = MAX_GROUP_RESTARTS
        while num_lost <= MAX_GROUP_RESTARTS + num_excused and max_failures >= 0:
            trainer = self._trainer(slot, size, number, max_failures)
            number += 1
            try:
                self._controllers.fit(slot, trainer)
                num_lost += 1
                reason: str | None = ray.get(self._broker.refusal.remote())
                if reason is not None:
                    return ClusterError(reason)
            except ray.exceptions.RayError as lost:
                error, num_lost = lost, num_lost + 1
            except ray.train.TrainingFailedError as failed:
                error, num_failed = failed, num_failed + max_failures + 1
            if self._closing.is_set():
                break
            with contextlib.suppress(ray.exceptions.RayError):
                # Ray Train frees this with an actor of its own, which may be dead or slow.
                kept: PlacementGroup | None = ray.get(self._broker.group_lost.remote(slot))
                if kept is not None:
                    remove_placement_group(kept)
                reservations.release(self._group(slot))
                excused: int = ray.get(self._broker.num_excused.remote(slot))
                num_excused = excused
            max_failures = MAX_GROUP_RESTARTS + num_excused - num_failed
            time.sleep(RESTART_SECONDS)
        return error

    def _group(self, slot: str) -> str:
        """A slot's name among all studies of the cluster."""
        return f"{self.broker_name}-{slot}"

    def _trainer(self, slot: str, size: int, number: int, max_failures: int) -> TorchTrainer:
        """A slot's worker group, the first or one after it, and so many restarts of it."""
        resources = self._spec.resources
        return TorchTrainer(
            serve_jobs,
            train_loop_config={
                "broker": self.broker_name,
                "slot": slot,
                "spec": self._spec.model_dump_json(exclude_unset=True),
                "working_folder": str(Path.cwd()),
                "checkpoints": self._checkpoints,
                "host": self._host,
                "tasks": self._tasks,
                "content": self._content,
                "code": self._code,
            },
            scaling_config=scaling_config(
                resources, size, reservations.label_selector(self._group(slot))
            ),
            torch_config=torch_config(resources),
            run_config=ray.train.RunConfig(
                name=f"{self._group(slot)}-{number}",
                storage_path=str(self._storage),
                failure_config=ray.train.FailureConfig(max_failures=max_failures),
            ),
        )


def turns(num_groups: int, num_begun: int, num_past: int) -> range:
    """Which groups begin now, at most MOST_STARTING at a time.

    Args:
        num_groups: Of the pool.
        num_begun: The first so many have begun.
        num_past: Of those, how many have started or ended.
    """
    return range(num_begun, min(num_groups, num_past + MOST_STARTING))


def scaling_config(
    resources: Resources, num_workers: int, labels: dict[str, str] | None = None
) -> ray.train.ScalingConfig:
    """A worker group of so many workers, on machines that a label selector allows."""
    return ray.train.ScalingConfig(
        num_workers=num_workers,
        use_gpu=resources.num_gpus > 0,
        resources_per_worker=worker_resources(resources),
        label_selector=labels,
    )
