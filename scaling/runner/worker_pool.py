"""Warm worker groups: started once a study, they serve one trial after another.

Each slot is one `TorchTrainer.fit()` in a thread of the driver, whose workers ask the broker for
jobs until the pool is closed. Starting a group costs tens of seconds; a job on a warm one a
fraction of a second (docs/decisions has the measurements).
"""

import contextlib
import os
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer, get_device
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)

from scaling.runner.broker import Broker
from scaling.runner.cluster import Patience, worker_resources
from scaling.runner.jobs import Assignment, Directive, Event, Job, RankError
from scaling.runner.own_ray import restore_umask
from scaling.runner.preflight import ClusterError, StartError
from scaling.runner.process_group import torch_config
from scaling.runner.trial import checkpoints_of, run_trial
from scaling.spec.resources import Resources
from scaling.spec.study import StudySpec
from scaling.tasks.content import content_of, data_hash, what_changed
from scaling.tasks.own.code import with_code
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import AnyTask
from scaling.training.memory.out_of_memory import is_out_of_memory
from scaling.training.parallel.shared_memory import WorkerGoneError
from scaling.training.parallel.workers import Workers, exempt_loaded, release_memory, use_threads

START_TIMEOUT_SECONDS = 300.0
CLOSE_TIMEOUT_SECONDS = 30.0
BROKER_SECONDS = 10.0
MAX_GROUP_RESTARTS = 10
RESTART_SECONDS = 1.0


class WorkerPool:
    """Long-lived worker groups, and the broker that gives them jobs. A context manager.

    Args:
        spec: The study.
        sizes: Workers of each group (slot).
        storage: Folder for what Ray Train writes.
        checkpoints: Folder or URL with a folder of checkpoints for each trial.
        content: What the study trains on, which its workers must see too; empty takes anything.
        code: The text of each Python file of the user's own, for machines that have it not.
    """

    def __init__(
        self,
        spec: StudySpec,
        *,
        sizes: Sequence[int],
        storage: Path,
        checkpoints: str,
        content: Mapping[str, str],
        code: Mapping[str, str],
    ) -> None:
        self._spec = spec
        self._sizes = tuple(sizes)
        self._storage = storage
        self._checkpoints = checkpoints
        self._content, self._code = dict(content), dict(code)
        self._is_closing = False
        self.broker_name = f"broker-{uuid.uuid4().hex[:12]}"
        actor: Any = ray.remote(Broker)
        self._broker: Any = actor.options(
            name=self.broker_name, num_cpus=0, max_concurrency=1000,
            max_restarts=MAX_GROUP_RESTARTS,
        ).remote()  # fmt: skip
        self._threads: list[threading.Thread] = []
        self._errors: dict[str, BaseException] = {}

    def __enter__(self) -> "WorkerPool":
        for number, size in enumerate(self._sizes):
            slot = f"slot{number}"
            thread = threading.Thread(
                target=self._run_slot, args=(slot, size), name=slot, daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._is_closing = True
        # A cluster that is gone must not hide why the study ends.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._broker.close.remote(), timeout=BROKER_SECONDS)
        deadline = time.monotonic() + CLOSE_TIMEOUT_SECONDS
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._broker)

    def wait_until_ready(self) -> list[str]:
        """Wait for every group; returns what each computes on.

        Raises:
            StartError: If not all groups are ready after START_TIMEOUT_SECONDS.
            ClusterError: If a group ends.
        """
        is_late = Patience(START_TIMEOUT_SECONDS)
        while not is_late.is_over:
            self.check()
            # The broker may have no process yet, and one that was killed is started again.
            with contextlib.suppress(ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
                devices: list[str] = ray.get(self._broker.devices.remote(), timeout=1.0)
                if len(devices) == len(self._sizes):
                    return devices
            time.sleep(0.1)
        self._threads.clear()  # they wait for what does not come
        raise StartError(
            f"not all worker groups were ready after {START_TIMEOUT_SECONDS:.0f} seconds; "
            "is the cluster busy with other jobs?"
        )

    def check(self) -> None:
        """Raise ClusterError if a group has ended with an error, or may not train."""
        for slot, error in self._errors.items():
            if isinstance(error, ClusterError):
                raise error
            last_line = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            raise ClusterError(f"worker group {slot} ended: {last_line}") from error

    def require_alive(self) -> None:
        """Raise ClusterError if no group is left, or none may train for this study."""
        if len(self._errors) == len(self._sizes):
            self.check()

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

    def _run_slot(self, slot: str, size: int) -> None:
        """Keep a group running until the pool is closed.

        Ray Train starts a group anew whose workers die. Where its controller dies, with all that
        it had started, another one begins.
        """
        error: BaseException = RuntimeError("its workers left the pool")
        for number in range(MAX_GROUP_RESTARTS + 1):
            try:
                self._trainer(slot, size, number).fit()
                reason: str | None = ray.get(self._broker.refusal.remote())
                if reason is not None and not self._is_closing:
                    error = ClusterError(reason)
                    break
            except ray.exceptions.RayError as lost:
                error = lost
            except Exception as ended:  # noqa: BLE001  # any end of a group must reach the driver
                error = ended
                break
            if self._is_closing:
                return
            with contextlib.suppress(ray.exceptions.RayError):
                # Ray Train frees this with an actor of its own, which may be dead or slow.
                kept: PlacementGroup | None = ray.get(self._broker.group_lost.remote(slot))
                if kept is not None:
                    remove_placement_group(kept)
            time.sleep(RESTART_SECONDS)
        if self._is_closing:
            return
        self._errors[slot] = error
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._broker.slot_ended.remote(slot, str(error)))

    def _trainer(self, slot: str, size: int, number: int) -> TorchTrainer:
        """A slot's worker group, the first or one after it."""
        resources = self._spec.resources
        return TorchTrainer(
            serve_jobs,
            train_loop_config={
                "broker": self.broker_name,
                "slot": slot,
                "spec": self._spec.model_dump_json(exclude_unset=True),
                "working_folder": str(Path.cwd()),
                "checkpoints": self._checkpoints,
                "content": self._content,
                "code": self._code,
            },
            scaling_config=scaling_config(resources, size),
            torch_config=torch_config(resources),
            run_config=ray.train.RunConfig(
                name=f"{self.broker_name}-{slot}-{number}",
                storage_path=str(self._storage),
                failure_config=ray.train.FailureConfig(max_failures=MAX_GROUP_RESTARTS),
            ),
        )


def scaling_config(resources: Resources, num_workers: int) -> ray.train.ScalingConfig:
    """A worker group of so many workers."""
    return ray.train.ScalingConfig(
        num_workers=num_workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=worker_resources(resources),
    )


def enter_folder(folder: str) -> None:
    """Work in the driver's folder, where this node has it, so that relative paths hold.

    Files written there are the user's, as the driver's are.
    """
    restore_umask()
    if Path(folder).is_dir():
        os.chdir(folder)


def specs_of(config: Mapping[str, Any]) -> tuple[StudySpec, ...]:
    """The study, or each size of its ladder, with own code where this machine has it."""
    spec = StudySpec.model_validate_json(config["spec"])
    return tuple(
        size.model_copy(update={"workload": with_code(size.workload, config["code"])})
        for size in spec.sizes or (spec,)
    )


def serve_jobs(config: dict[str, Any]) -> None:
    """What each rank of a worker group runs, for as long as the study lasts."""
    enter_folder(config["working_folder"])
    broker = ray.get_actor(config["broker"])
    ray.get(broker.keep_placement_group.remote(config["slot"], get_current_placement_group()))
    specs = specs_of(config)
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), get_device())
    use_threads(max(1, int(specs[0].resources.cpus_per_worker)))
    tasks = tuple(prepare_task(spec.workload, spec.evaluation) for spec in specs)
    server = _Server(
        config["slot"], broker, specs, tasks, workers, config["checkpoints"], config["content"]
    )
    server.serve()


def refusal_of(
    spec: StudySpec, tasks: Sequence[AnyTask], known: Mapping[str, str], workers: Workers
) -> str | None:
    """Why these workers must not train: what they see is not what the study was started on.

    Called by all of them; the same on all. The files of trained models are read for each trial.
    """
    if not known:
        return None
    changed = what_changed(
        known, content_of(spec.workload, data_hash(task.content_hash for task in tasks))
    )
    reason = next(filter(None, workers.gather(changed)), None)
    if reason is None:
        return None
    return (
        f"{reason} since the study was started, and nothing was trained on it; put back what was "
        "there, or give the study another name"
    )


class _Server:
    """One rank's side of the broker."""

    def __init__(
        self,
        slot: str,
        broker: Any,
        specs: Sequence[StudySpec],
        tasks: Sequence[AnyTask],
        workers: Workers,
        checkpoints: str,
        content: Mapping[str, str],
    ) -> None:
        self.slot, self.broker, self.specs = slot, broker, specs
        self.tasks, self.workers, self.checkpoints = tasks, workers, checkpoints
        self.content = content
        self.incarnation = workers.agree(uuid.uuid4().hex)
        self._groups = {workers.world_size: workers}

    def serve(self) -> None:
        rank, world_size = self.workers.rank, self.workers.world_size
        if self._refuses(self.workers):
            return
        device = str(self.workers.device)
        ray.get(self.broker.hello.remote(self.slot, self.incarnation, rank, world_size, device))
        number = 0
        exempt_loaded()
        while True:
            assignment: Assignment | None = ray.get(
                self.broker.next_job.remote(self.slot, self.incarnation, rank, number)
            )
            if assignment is None:
                return
            number = assignment.number
            trial_id = assignment.job.trial_id
            reads_files = len(self.content) > 1  # anew for each trial; the data are in memory
            if reads_files and self._refuses(
                self._group_of(assignment.job.recipe.layout.world_size)
            ):
                return
            error = self._run(assignment)
            verdict = ray.get(
                self.broker.leave.remote(self.slot, self.incarnation, trial_id, rank, error)
            )
            if verdict == "dirty" or (error and _breaks_device(error)):
                cause = f": {error.traceback}" if error else ""
                raise RuntimeError(f"{self.slot} rank {rank} lost its group in {trial_id}{cause}")
            # After the broker has the error: on a broken device this raises another one.
            release_memory(self.workers.device)

    def _refuses(self, workers: Workers) -> bool:
        """Whether these workers see something else than the study; then the pool is closed."""
        reason = refusal_of(self.specs[0], self.tasks, self.content, workers)
        if reason is not None:
            ray.get(self.broker.refuse.remote(reason))
        return reason is not None

    def _run(self, assignment: Assignment) -> RankError | None:
        """Run a job; returns an error, since a trial's error must not end the group."""
        job = assignment.job
        channel = _Channel(self.broker, assignment, is_first=self.workers.rank == 0)
        try:
            run_trial(
                self.tasks[job.size], self.specs[job.size], job,
                self._group_of(job.recipe.layout.world_size), channel,
                checkpoints=checkpoints_of(self.checkpoints, job.trial_id),
                micro_batch_size=assignment.micro_batch_size,
            )  # fmt: skip
            channel.wait()
        except Exception as error:  # noqa: BLE001  # reported with its traceback as the trial's end
            return RankError(
                traceback.format_exc(),
                out_of_memory=is_out_of_memory(error),
                followed=isinstance(error, WorkerGoneError),
            )
        return None

    def _group_of(self, world_size: int) -> Workers:
        """The first so many workers of this slot, this one among them; made once."""
        if world_size not in self._groups:
            self._groups[world_size] = self.workers.first(world_size)
        return self._groups[world_size]


def _breaks_device(error: RankError) -> bool:
    """Whether later trials in this process would fail too: a CUDA or NCCL error stays."""
    signs = ("CUDA error", "NCCL error")
    return not error.out_of_memory and any(sign in error.traceback for sign in signs)


class _Channel:
    """One job's line to the broker; see `scaling.runner.trial.Channel`."""

    def __init__(self, broker: Any, assignment: Assignment, *, is_first: bool) -> None:
        self._broker, self._is_first = broker, is_first
        self._trial_id, self._attempt = assignment.job.trial_id, assignment.attempt
        self._last: Any = None
        self._directive: Directive = "continue"
        # One call for the whole job, which returns when there is something to obey.
        self._interruption: Any = (
            broker.interrupted.remote(self._trial_id, self._attempt) if is_first else None
        )

    def send(self, event: Event, *, wait: bool = False) -> Directive:
        """Send an event; without `wait` it is on its way when this returns."""
        if self._is_first:
            self.wait()  # an asynchronous actor takes two calls in either order
            self._last = self._broker.report.remote(self._trial_id, self._attempt, event, wait)
            if wait:
                self._directive = ray.get(self._last)
        return self.directive()

    def directive(self) -> Directive:
        """What the broker wants of the job."""
        if (
            self._is_first
            and self._directive == "continue"
            and ray.wait([self._interruption], timeout=0)[0]
        ):
            self._directive = ray.get(self._interruption)
        return self._directive

    def wait(self) -> None:
        """Return when the broker has every event."""
        if self._last is not None:
            ray.get(self._last)
