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
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from scaling.runner.broker import Assignment, Broker, Event
from scaling.runner.cluster import ClusterError, worker_resources
from scaling.runner.trial import run_trial
from scaling.spec import Resources, StudySpec
from scaling.tasks.task import Task, prepare_task
from scaling.training.parallel import Workers, release_memory, use_threads

START_TIMEOUT_SECONDS = 300.0
CLOSE_TIMEOUT_SECONDS = 30.0
MAX_GROUP_RESTARTS = 10


class WorkerPool:
    """Long-lived worker groups, and the broker that gives them jobs. A context manager."""

    def __init__(self, spec: StudySpec, *, num_slots: int, storage: Path) -> None:
        self._spec = spec
        self._num_slots = num_slots
        self._storage = storage
        self.broker_name = f"broker-{uuid.uuid4().hex[:12]}"
        actor: Any = ray.remote(Broker)
        self._broker: Any = actor.options(
            name=self.broker_name, num_cpus=0, max_concurrency=1000
        ).remote()
        self._threads: list[threading.Thread] = []
        self._errors: dict[str, BaseException] = {}

    def __enter__(self) -> "WorkerPool":
        for number in range(self._num_slots):
            slot = f"slot{number}"
            thread = threading.Thread(target=self._run_slot, args=(slot,), name=slot, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A cluster that is gone must not hide why the study ends.
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(self._broker.close.remote())
        deadline = time.monotonic() + CLOSE_TIMEOUT_SECONDS
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._broker)

    def wait_until_ready(self) -> list[str]:
        """Wait for every group; returns what each computes on.

        Raises:
            ClusterError: If a group ends, or is not ready after START_TIMEOUT_SECONDS.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            self.check()
            devices: list[str] = ray.get(self._broker.devices.remote())
            if len(devices) == self._num_slots:
                return devices
            time.sleep(0.1)
        raise ClusterError(
            f"not all worker groups were ready after {START_TIMEOUT_SECONDS:.0f} seconds; "
            "is the cluster busy with other jobs?"
        )

    def check(self) -> None:
        """Raise ClusterError if a group has ended with an error."""
        for slot, error in self._errors.items():
            last_line = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            raise ClusterError(f"worker group {slot} ended: {last_line}") from error

    def _run_slot(self, slot: str) -> None:
        resources = self._spec.resources
        trainer = TorchTrainer(
            serve_jobs,
            train_loop_config={
                "broker": self.broker_name,
                "slot": slot,
                "spec": self._spec.model_dump_json(exclude_unset=True),
                "working_folder": str(Path.cwd()),
            },
            scaling_config=scaling_config(resources),
            torch_config=torch_config(resources),
            run_config=ray.train.RunConfig(
                name=f"{self.broker_name}-{slot}",
                storage_path=str(self._storage),
                failure_config=ray.train.FailureConfig(max_failures=MAX_GROUP_RESTARTS),
            ),
        )
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001  # any end of a group must reach the driver
            self._errors[slot] = error
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(self._broker.slot_ended.remote(slot, str(error)))


def scaling_config(resources: Resources) -> ray.train.ScalingConfig:
    """The worker group of one trial."""
    return ray.train.ScalingConfig(
        num_workers=resources.num_workers,
        use_gpu=resources.gpus_per_worker > 0,
        resources_per_worker=worker_resources(resources),
    )


def torch_config(resources: Resources) -> TorchConfig:
    """Gloo for tensors on CPU (control messages included), nccl for those on GPU.

    Two ranks on one GPU need gloo there too.
    """
    if not resources.gpus_per_worker:
        return TorchConfig(backend="gloo")
    on_gpu = "nccl" if resources.gpus_per_worker >= 1 else "gloo"
    return TorchConfig(backend=f"cpu:gloo,cuda:{on_gpu}")


def enter_folder(folder: str) -> None:
    """Work in the driver's folder, where this node has it, so that relative paths hold."""
    if Path(folder).is_dir():
        os.chdir(folder)


def serve_jobs(config: dict[str, Any]) -> None:
    """What each rank of a worker group runs, for as long as the study lasts."""
    enter_folder(config["working_folder"])
    spec = StudySpec.model_validate_json(config["spec"])
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), get_device())
    use_threads(max(1, int(spec.resources.cpus_per_worker)))
    task = prepare_task(spec.workload, spec.evaluation)
    _Server(config["slot"], ray.get_actor(config["broker"]), spec, task, workers).serve()


class _Server:
    """One rank's side of the broker."""

    def __init__(
        self, slot: str, broker: Any, spec: StudySpec, task: Task, workers: Workers
    ) -> None:
        self.slot, self.broker, self.spec = slot, broker, spec
        self.task, self.workers = task, workers
        self.incarnation = workers.agree(uuid.uuid4().hex)

    def serve(self) -> None:
        rank, world_size = self.workers.rank, self.workers.world_size
        device = str(self.workers.device)
        ray.get(self.broker.hello.remote(self.slot, self.incarnation, rank, world_size, device))
        number = 0
        while True:
            job: Assignment | None = ray.get(
                self.broker.next_job.remote(self.slot, self.incarnation, rank, number)
            )
            if job is None:
                return
            number = job.number
            error = self._run(job)
            release_memory(self.workers.device)
            verdict = ray.get(
                self.broker.leave.remote(self.slot, self.incarnation, job.key, rank, error)
            )
            if verdict == "dirty" or (error and _breaks_device(error)):
                raise RuntimeError(f"{self.slot} rank {rank} lost its group in {job.key}: {error}")

    def _run(self, job: Assignment) -> str | None:
        """Run a job; returns an error's traceback, since a trial's error must not end the group."""
        reports = _Reports(self.broker, job, is_first=self.workers.rank == 0)
        try:
            run_trial(
                self.task, self.spec, job.recipe, self.workers, reports.send,
                keep_example_losses=job.keep_example_losses,
            )  # fmt: skip
            reports.wait()
        except Exception:  # noqa: BLE001  # reported with its traceback as the trial's end
            return traceback.format_exc()
        return None


def _breaks_device(error: str) -> bool:
    """Whether later trials in this process would fail too: a CUDA or NCCL error stays."""
    return "OutOfMemoryError" not in error and ("CUDA error" in error or "NCCL error" in error)


class _Reports:
    """Events of one job on their way to the broker, without waiting for each."""

    def __init__(self, broker: Any, job: Assignment, *, is_first: bool) -> None:
        self._broker, self._job, self._is_first = broker, job, is_first
        self._last: Any = None
        self._stop = False

    def send(self, event: Event) -> bool:
        """Send an event; True once the broker has asked to stop."""
        if self._is_first:
            if self._last is not None and ray.wait([self._last], timeout=0)[0]:
                self._stop = self._stop or bool(ray.get(self._last))
            self._last = self._broker.report.remote(self._job.key, self._job.attempt, event)
        return self._stop

    def wait(self) -> None:
        """Return when the broker has every event."""
        if self._last is not None:
            ray.get(self._last)
