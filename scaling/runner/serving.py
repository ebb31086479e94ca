"""What the ranks of a warm worker group run: one trial after another, as the broker gives them."""

import os
import threading
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import get_device
from ray.util.placement_group import get_current_placement_group

from scaling.measures.device import describe_device
from scaling.process import exempt_loaded
from scaling.runner import notice
from scaling.runner.encoded_data import received_tasks
from scaling.runner.jobs import Assignment, Directive, Event, RankError
from scaling.runner.own_ray import restore_umask
from scaling.runner.shared_storage import why_not_shared
from scaling.runner.trial import bounded_micro_batch_size, checkpoints_of, run_trial
from scaling.spec.resources import ZERO_STAGES, Resources
from scaling.spec.study import StudySpec
from scaling.tasks.content import content_of, data_hash, what_changed
from scaling.tasks.own.code import with_code
from scaling.tasks.task import AnyTask
from scaling.training.memory.out_of_memory import FixedMemoryError, is_out_of_memory
from scaling.training.parallel.shared_memory import WorkerGoneError
from scaling.training.parallel.workers import (
    Meeting,
    StuckGroupError,
    Workers,
    release_memory,
    take_device,
    use_threads,
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


def workers_of(resources: Resources) -> Workers:
    """This rank of a worker group, kept to its share of the machine."""
    context, device = ray.train.get_context(), get_device()
    use_threads(max(1, int(resources.cpus_per_worker)))
    share = min(1.0, resources.num_gpus or 1.0)
    take_device(device, share)
    rank, world_size = context.get_world_rank(), context.get_world_size()
    return Workers(rank, world_size, device, device_share=share)


def serve_jobs(config: dict[str, Any]) -> None:
    """What each rank of a worker group runs, for as long as the study lasts."""
    enter_folder(config["working_folder"])
    broker = ray.get_actor(config["broker"])
    ray.get(broker.keep_placement_group.remote(config["slot"], get_current_placement_group()))
    if reason := why_not_shared(config["checkpoints"], config["broker"], config["host"]):
        ray.get(broker.refuse.remote(reason))
        return
    specs = specs_of(config)
    workers = workers_of(specs[0].resources)
    tasks = received_tasks(specs, config["tasks"])
    folder, content = config["checkpoints"], config["content"]
    _Server(config["slot"], broker, specs, tasks, workers, folder, content).serve()


def refusal_of(
    spec: StudySpec, tasks: Sequence[AnyTask], known: Mapping[str, str], workers: Workers
) -> str | None:
    """Why these workers must not train: what they see is not what the study was started on.

    Called by all of them; the same on all. The files of trained models are read for each trial.
    """
    if not known:
        return None
    data_sha256 = data_hash(task.content_hash for task in tasks)
    changed = what_changed(known, content_of(spec.workload, data_sha256))
    reason = next(filter(None, workers.gather(changed)), None)
    if reason is None:
        return None
    return (
        f"{reason} since the study was started, and nothing was trained on it; put back what was "
        "there, or give the study another name"
    )


@dataclass
class _Server:
    """One rank's side of the broker."""

    slot: str
    broker: Any
    specs: Sequence[StudySpec]
    tasks: Sequence[AnyTask]
    workers: Workers
    checkpoints: str
    content: Mapping[str, str]

    def __post_init__(self) -> None:
        self.incarnation = self.workers.agree(uuid.uuid4().hex)
        self._meeting = Meeting()

    def serve(self) -> None:
        rank, world_size = self.workers.rank, self.workers.world_size
        if self._refuses(self.workers):
            return
        device = describe_device(self.workers.device)
        node = ray.get_runtime_context().get_node_id()
        ray.get(
            self.broker.hello.remote(self.slot, self.incarnation, rank, world_size, device, node)
        )
        threading.Thread(target=self._vacate_when_asked, name="notice", daemon=True).start()
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
            if reads_files and self._refuses(self._group_of(assignment)):
                return
            error, has_left = self._run(assignment), True
            if error is not None and assignment.job.recipe.layout.world_size > 1:
                # Those that wait for this rank learn it so, before this one waits for them.
                has_left = self._meeting.leave()
            verdict = ray.get(
                self.broker.leave.remote(self.slot, self.incarnation, trial_id, rank, error)
            )
            is_lost = error is not None and self._is_lost_by(error, assignment)
            if verdict == "dirty" or not has_left or is_lost:
                cause = f": {error.traceback}" if error else ""
                raise RuntimeError(f"{self.slot} rank {rank} lost its group in {trial_id}{cause}")
            # After the broker has the error: on a broken device this raises another one.
            release_memory(self.workers.device)

    def _vacate_when_asked(self) -> None:
        notice.wait()
        try:
            ray.get(self.broker.vacate.remote(self.slot, self.incarnation))
        except ray.exceptions.RayError:  # nobody is left who could pass the job on
            os._exit(1)

    def _refuses(self, workers: Workers) -> bool:
        """Whether these workers see something else than the study; then the pool is closed."""
        reason = refusal_of(self.specs[0], self.tasks, self.content, workers)
        if reason is not None:
            ray.get(self.broker.refuse.remote(reason))
        return reason is not None

    def _run(self, assignment: Assignment) -> RankError | None:
        """Run a job; returns an error, since a trial's error must not end the group."""
        job, task = assignment.job, self.tasks[assignment.job.size]
        spec, micro_batch_size = self.specs[job.size], assignment.micro_batch_size
        channel = _Channel(self.broker, assignment, is_first=self.workers.rank == 0)
        try:
            workers = self._group_of(assignment)
            micro_batch_size = bounded_micro_batch_size(
                task, spec, job, workers, at_most=micro_batch_size
            )
            run_trial(
                task, spec, job, workers, channel,
                checkpoints=checkpoints_of(self.checkpoints, job.trial_id),
                micro_batch_size=micro_batch_size,
            )  # fmt: skip
            channel.wait()
        except Exception as error:  # noqa: BLE001  # reported with its traceback as the trial's end
            ran_out = is_out_of_memory(error)
            is_fixed = isinstance(error, FixedMemoryError)
            # One worker has halved it down to one example before it gives up.
            tried = 1 if job.recipe.layout.world_size == 1 else micro_batch_size
            return RankError(
                traceback.format_exc(),
                out_of_memory=ran_out,
                too_large=tried if ran_out and not is_fixed else None,
                followed=isinstance(error, WorkerGoneError),
            )
        return None

    def _is_lost_by(self, error: RankError, assignment: Assignment) -> bool:
        """Whether later trials in this process would fail too.

        A CUDA or NCCL error stays, and DeepSpeed keeps the process group that it was first given.
        """
        layout = assignment.job.recipe.layout
        if layout.world_size > 1 and layout.strategy in ZERO_STAGES:
            return True
        signs = ("CUDA error", "CUDA driver error", "NCCL error", StuckGroupError.__name__)
        return not error.out_of_memory and any(sign in error.traceback for sign in signs)

    def _group_of(self, assignment: Assignment) -> Workers:
        """The workers of a job, this one among them, in a process group of their own."""
        workers = replace(self.workers, world_size=assignment.job.recipe.layout.world_size)
        if workers.world_size > 1:
            self._meeting.join(assignment.group, workers)
        return workers


class _Channel:
    """One job's line to the broker; see `scaling.runner.trial.Channel`."""

    def __init__(self, broker: Any, assignment: Assignment, *, is_first: bool) -> None:
        self._broker, self._is_first = broker, is_first
        self._trial_id, self._attempt = assignment.job.trial_id, assignment.attempt
        self._last: Any = None
        self._directive: Directive = "continue"
        # One call for the whole job, which returns when there is something to obey.
        self._interruption: Any = None
        if is_first:
            self._interruption = broker.interrupted.remote(self._trial_id, self._attempt)

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
        is_asked = self._is_first and self._directive == "continue"
        if is_asked and ray.wait([self._interruption], timeout=0)[0]:
            self._directive = ray.get(self._interruption)
        return self._directive

    def wait(self) -> None:
        """Return when the broker has every event."""
        if self._last is not None:
            ray.get(self._last)
