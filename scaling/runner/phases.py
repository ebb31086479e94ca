"""A study from its first trial to its last: search, then transfer and confirm."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ray.exceptions
from ray import tune
from ray.tune import TuneError

from scaling.files.names import file_name
from scaling.measures.device import GPU_FACTS, Device
from scaling.records.ledger import Ledger, Observer
from scaling.records.load import read_environment
from scaling.records.objective import objective_of
from scaling.runner.cluster import is_joined
from scaling.runner.cluster_watch import ClusterWatch
from scaling.runner.controllers import away_from_the_head
from scaling.runner.encoded_data import shared_tasks
from scaling.runner.jobs import Job
from scaling.runner.preflight import StartError, num_workers_on
from scaling.runner.probe import measured_speeds
from scaling.runner.relay import relay
from scaling.runner.remaining import Stage, stages
from scaling.runner.room import (
    ask_for_machines,
    let_machines_go,
    machines,
    num_gpus,
    num_groups_now,
    wait_for_room,
)
from scaling.runner.scheduler import LedgerScheduler
from scaling.runner.searcher import PlannedTrials
from scaling.runner.state import StudyState
from scaling.runner.trainer_per_trial import train_alone
from scaling.runner.worker_pool import WorkerPool
from scaling.runner.world_sizes import (
    Layout,
    Speeds,
    fastest,
    leaves_idle,
    planned_work,
    regrouped,
    side_by_side,
    to_measure,
)
from scaling.search.optuna import CellSearches
from scaling.space.layout import Facts
from scaling.space.rounds import Rounds, default_round_size
from scaling.space.trials import PlannedTrial
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask
from scaling.training.checkpoint import remove_left_over

# Tune's trials only pass events on. Memory is the one resource that every Ray node has besides
# those that the worker groups take whole.
_RELAY_RESOURCES: dict[str, float] = {"memory": 1e6}


class PhaseObserver(Observer, Protocol):
    """An observer that is also told what is coming."""

    def phase_started(self, phases: Sequence[Phase], planned: Sequence[PlannedTrial]) -> None:
        """These trials run next."""

    def note(self, line: str) -> None:
        """What the study does otherwise than its file alone says, in a line."""

    def workers_ready(self, sizes: Sequence[int], devices: Sequence[str]) -> None:
        """The worker groups can train: workers of each, and what they compute on."""


@dataclass(frozen=True)
class StudyRun:
    """What running a study needs beside its file; this process is connected to Ray.

    Attributes:
        spec: The study.
        facts: Sizes of its data.
        tasks: Its data, of a ladder one task a size.
        state: Its opened folder.
        observers: Told of every trial.
        view: Told of every trial and phase.
        resume_command: The command line, or the call from Python, that goes on with the study.
    """

    spec: StudySpec
    facts: Facts
    tasks: Sequence[AnyTask]
    state: StudyState
    observers: Sequence[Observer]
    view: PhaseObserver
    resume_command: str

    def run(self) -> dict[str, Any]:
        """Run what is not done yet.

        Returns:
            What belongs into the study's environment: the rules that define no recipe at a batch
            size, with the reason, and the GPUs that were trained on, in earlier runs too.

        Raises:
            StartError: If the cluster cannot run one trial.
            ClusterError: If it loses its worker groups.
            OSError: If the study's state cannot be written.
        """
        ledger = Ledger(self.state.folder, [*self.observers, self.view])
        spec, records = self.spec, ledger.records
        ended = {file_name(name) for name, trial in records.items() if trial.status != "failed"}
        remove_left_over(self.state.checkpoints, ended)
        done: list[Stage] = []
        with ClusterWatch(self.resume_command) as watch, _Executor(self, ledger, watch) as executor:
            facts = replace(
                self.facts, world_sizes=executor.world_sizes(),
                cell_places=self.state.recorded.cell_places(spec),
            )  # fmt: skip
            searches = CellSearches(spec, self.state.folder, facts, records)
            all_stages = stages(spec, records, facts, executor.rounds())
            for phases, alike in itertools.groupby(all_stages, lambda stage: stage.phases):
                missing = self._missing(alike, done, executor.begin)
                executor.run(phases, missing, searches if phases == ("search",) else None)
        self.state.go_on(spec)
        refused = done[-1].rules_refused
        rules = [{"rule": r, "global_batch_size": b, "why": why} for r, b, why in refused]
        before = read_environment(self.state.folder)
        return {"rules_refused": rules, **_described_gpus(executor.devices, before)}

    def _missing(
        self, alike: Iterator[Stage], done: list[Stage], begin: Callable[[], None]
    ) -> Iterator[Sequence[PlannedTrial]]:
        """What is to run of each stage, said when it is asked for; adds the stages to `done`."""
        for stage in alike:
            done.append(stage)
            for note in stage.notes:
                self.view.note(note)
            missing = _in_running_order(stage.missing)
            if stage.phases:
                self.view.phase_started(stage.phases, missing)
            if missing:
                begin()  # a start that fails leaves no proposal for a cell that is not recorded
            if stage.rounds is not None:
                self.state.keep_rounds(stage.rounds)
            if missing:
                yield missing


def _described_gpus(devices: Sequence[Device], before: Mapping[str, Any]) -> dict[str, str]:
    """Name and versions of the GPUs of worker groups and earlier ones; where they differ, each."""
    found = {
        name: [*str(before.get(name, "")).split(", "), *(d.facts.get(name, "") for d in devices)]
        for name in GPU_FACTS
    }
    return {
        name: ", ".join(dict.fromkeys(filter(None, texts)))
        for name, texts in found.items()
        if any(texts)
    }


class _Executor:
    """Runs planned trials through Tune, on a pool that starts when the first one is needed."""

    def __init__(self, run: StudyRun, ledger: Ledger, watch: ClusterWatch) -> None:
        self._run = run
        self._watch = watch
        self._ledger = ledger
        self._ray_folder = run.state.folder / "ray"
        self._checkpoints = run.state.checkpoints
        self._pool: WorkerPool | None = None
        self._sizes: tuple[int, ...] = ()
        self._has_room = False
        self._spec = run.spec.with_gpus(num_gpus())
        self.devices: list[Device] = []
        self._tasks = shared_tasks(run.spec, run.tasks)

    def __enter__(self) -> "_Executor":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._watch.is_lost:
            return
        if self._pool is not None:
            self._pool.__exit__(*error)
        if is_joined():
            with contextlib.suppress(ray.exceptions.RayError):
                let_machines_go()

    def _wait_for_room(self) -> None:
        """Wait until one trial has room on the cluster; raises StartError if it has none in time.

        Only where one is to run: a report needs no room.
        """
        if self._has_room:
            return
        if is_joined():
            ask_for_machines(self._spec.resources)
        wait_for_room(self._spec.resources, is_joined=is_joined(), note=self._run.view.note)
        self._has_room = True

    def world_sizes(self) -> dict[int, int]:
        """Workers of a trial by batch size where the study leaves it open; decided once a study."""
        spec, state = self._run.spec, self._run.state
        if spec.resources.num_workers != "auto":
            return {}
        if state.recorded.decided is None:
            layout, speeds = self._measured_layout()
            world_sizes = {str(b): k for b, k in layout.world_sizes.items()}
            measured = {f"{b} on {k}": v for (b, k), v in speeds.items()}
            state.decide({"world_sizes": world_sizes, "examples_per_second": measured})
        return {int(batch): k for batch, k in (state.recorded.decided or {})["world_sizes"].items()}

    def rounds(self) -> Rounds | None:
        """What a search by the surface has proposed; the size of a round is decided once a study.

        None with another sampler.
        """
        search, state = self._run.spec.search, self._run.state
        if search.is_joint and state.recorded.rounds() is None:
            self._wait_for_room()
            num_slots = len(self._group_sizes())
            size = search.round_size or default_round_size(search.most_trials, num_slots)
            state.keep_rounds(Rounds(size))
            if size < num_slots:
                self._run.view.note(
                    f"rounds of {size} trials leave {num_slots - size} of {num_slots} slots idle; "
                    f"in a new study, search.round_size: {num_slots} would use them"
                )
        return state.recorded.rounds()

    def _measured_layout(self) -> tuple[Layout, Speeds]:
        """The layout that ends the study soonest; measured only where workers would idle."""
        self._wait_for_room()
        spec, max_slots = self._spec, self._spec.resources.max_slots
        num_workers = num_workers_on(machines(), spec.resources)
        simple = side_by_side(num_workers, max_slots)
        work = planned_work(spec, self._run.facts)
        if not leaves_idle(simple, work, num_workers):
            return simple, {}
        pairs = to_measure(work, num_workers)
        with self._new_pool((max(k for _, k in pairs),)) as pool:
            pool.wait_until_ready()
            speeds = measured_speeds(spec, self._run.facts, pairs, pool)
        layout = fastest(work, speeds, num_workers=num_workers, max_slots=max_slots)
        return layout, speeds

    def begin(self) -> None:
        """Start the workers, where they have not, and record what the study goes on with.

        Raises:
            StartError: If they do not start.
            ClusterError: If they end.
            OSError: If it cannot be recorded.
        """
        self._wait_for_room()
        state, spec = self._run.state, self._run.spec
        for change in state.recorded.changes(spec):
            self._run.view.note(f"changed since the study last ran: {change}")
        self._start()
        state.go_on(spec)

    def run(
        self,
        phases: Sequence[Phase],
        missing: Iterator[Sequence[PlannedTrial]],
        searches: CellSearches | None,
    ) -> None:
        """Run trials; those that are to run next are asked for when all before have ended."""
        first = next(missing, None)
        if first is None:
            return
        spec = self._run.spec
        early_stopping = spec.search.early_stopping if searches is not None else None
        scheduler = LedgerScheduler(
            self._ledger, self._run.state.folder, self._checkpoints, early_stopping,
            objective_of(spec, self._run.facts.metrics), self._cancel, self._require_alive,
        )  # fmt: skip
        planned = PlannedTrials(
            itertools.chain([first], missing), self._config, self._ledger.records, searches,
            self._num_concurrent,
        )  # fmt: skip
        place = away_from_the_head(spec.resources)
        tuner = tune.Tuner(
            tune.with_resources(
                train_alone if self._pool is None else relay,
                tune.PlacementGroupFactory([_RELAY_RESOURCES], bundle_label_selector=[place]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=planned, scheduler=scheduler, reuse_actors=True,
                num_samples=-1,  # until the searcher says that it has finished
            ),
            run_config=tune.RunConfig(
                name="-".join(phases), storage_path=str(self._ray_folder), verbose=0
            ),
        )  # fmt: skip
        _fit(tuner)
        self._require_alive()  # with fewer groups than it began with the study goes on

    def _num_concurrent(self) -> int:
        """As many as there are groups that train; on the pool one more for each size of group.

        Those wait at the broker, so that no group is idle between trials.
        """
        if self._pool is None:
            return len(self._sizes)
        return self._pool.num_ready + len(set(self._sizes))

    def _cancel(self, trial_id: str) -> None:
        if self._pool is not None:
            self._pool.cancel(trial_id)

    def _require_alive(self) -> None:
        if self._pool is not None:
            self._pool.require_alive()

    def _start(self) -> None:
        if self._sizes:
            return
        self._sizes = self._group_sizes()
        if self._run.spec.resources.executor == "pool":
            self._pool = self._new_pool(self._sizes).__enter__()
            gpus = self._spec.resources.num_gpus
            if gpus and self._run.spec.resources.gpus_per_worker == "auto":
                self._run.view.note("each worker has a GPU (resources.gpus_per_worker: auto)")
            self.devices = self._pool.wait_until_ready()
            sizes = self._sizes[: len(self.devices)]
            self._run.view.workers_ready(sizes, [device.name for device in self.devices])

    def _group_sizes(self) -> tuple[int, ...]:
        spec, resources = self._spec, self._spec.resources
        if resources.num_workers != "auto":
            count = num_groups_now(resources, resources.num_workers, is_joined=is_joined())
            return (resources.num_workers,) * count
        num_workers = num_workers_on(machines(), resources)
        try:
            return regrouped(
                self.world_sizes(), planned_work(spec, self._run.facts),
                num_workers=num_workers, max_slots=resources.max_slots,
            ).sizes  # fmt: skip
        except ValueError as error:
            raise StartError(
                f"the cluster is smaller than the one that this study was started on: {error}; "
                "resume it on one as large"
            ) from error

    def _new_pool(self, sizes: Sequence[int]) -> WorkerPool:
        return WorkerPool(
            self._spec, sizes=sizes, storage=self._ray_folder, checkpoints=self._checkpoints,
            tasks=self._tasks, content=self._run.state.recorded.content,
            code=self._run.state.recorded.code, note=self._run.view.note,
            grows=is_joined() and self._spec.resources.num_workers != "auto",
        )  # fmt: skip

    def _config(self, planned: PlannedTrial) -> dict[str, Any]:
        """What a Tune trial is given; its record is announced when it starts."""
        record = planned.record()
        is_search, confirm = record.phase == "search", self._run.spec.confirm
        keeps = confirm is not None and confirm.keep_models
        job = Job(
            record.trial_id,
            record.recipe,
            keep_example_losses=record.phase == "confirm",
            may_stop_early=is_search and self._run.spec.search.early_stopping is not None,
            keep_model=keeps and record.phase in ("confirm", "confirm_target"),
            size=self._run.spec.size_of(record.cell) if self._run.spec.sizes else 0,
        )
        config = {"record": record.to_json(), "job": job}
        if self._pool is not None:
            self._pool.expect(record.trial_id)
            return config | {"broker": self._pool.broker_name}
        return config | {
            "spec": self._spec.model_dump_json(exclude_unset=True),
            "storage": str(self._ray_folder / "trainers"),
            "checkpoints": self._checkpoints,
            "tasks": self._tasks,
            "content": self._run.state.recorded.content,
            "code": self._run.state.recorded.code,
            "working_folder": str(Path.cwd()),
        }


def _fit(tuner: tune.Tuner) -> None:
    """Run it; an error of our own comes out as it was raised, not as Tune's text of it."""
    try:
        tuner.fit()
    except TuneError as error:
        origin: BaseException = error
        while isinstance(origin, TuneError) and origin.__context__ is not None:
            origin = origin.__context__
        raise origin from None


def _in_running_order(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """Longest first, so that no group idles at the end; an adaptive search takes cells in turn."""
    if any(trial.recipe is None for trial in planned):
        return sorted(planned, key=lambda trial: trial.trial_id.rsplit("-", 1)[1])
    return sorted(planned, key=lambda trial: trial.expected_work, reverse=True)
