"""A study from its first trial to its last: search, then transfer and confirm."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from ray import tune
from ray.tune.experiment import Trial

from scaling.records import Measurement, Phase, StudyRecord, TrialRecord, best_trial
from scaling.runner.broker import Event
from scaling.runner.cluster import num_slots
from scaling.runner.ledger import Ledger, Observer, by_cell
from scaling.runner.relay import relay
from scaling.runner.search import CellSearches, PlannedTrials
from scaling.runner.trainer_per_trial import train_alone
from scaling.runner.worker_pool import WorkerPool
from scaling.space import DataFacts, PlannedTrial, cells, planned_replicates, planned_search
from scaling.spec import StudySpec

# Tune's trials only pass events on. Memory is the one resource that every Ray node has besides
# those that the worker groups take whole.
_RELAY_RESOURCES: dict[str, float] = {"memory": 1e6}


class PhaseObserver(Observer, Protocol):
    """An observer that is also told what is coming."""

    def phase_started(self, phases: Sequence[Phase], planned: Sequence[PlannedTrial]) -> None:
        """These trials run next."""

    def workers_ready(self, devices: Sequence[str]) -> None:
        """The worker groups can train."""


@dataclass(frozen=True)
class StudyRun:
    """What running a study needs beside its file; this process is connected to Ray.

    Attributes:
        spec: The study.
        data: Sizes of its data.
        storage: Absolute folder of the study's state; it exists.
        observers: Told of every trial.
        view: Told of every trial and phase.
    """

    spec: StudySpec
    data: DataFacts
    storage: Path
    observers: Sequence[Observer]
    view: PhaseObserver

    def run(self, environment: dict[str, Any]) -> StudyRecord:
        """Run what is not done yet, and return all trials.

        Raises:
            ClusterError: If the cluster cannot run one trial, or loses its worker groups.
        """
        ledger = Ledger(self.storage, [*self.observers, self.view])
        for record in ledger.records.values():  # a run that was cut off may not have told these
            for observer in self.observers:
                observer.trial_ended(record)
        spec, data = self.spec, self.data
        search = planned_search(spec, data)
        # A cell's best recipe stays what its replicates were made from.
        is_decided = any(record.phase != "search" for record in ledger.records.values())
        with _Executor(self, ledger) as executor:
            searches = CellSearches(spec, self.storage, data, ledger.records)
            executor.run(("search",), search, searches, rerun_failed=not is_decided)
            found = (best_trial(by_cell(ledger.records, cell), spec) for cell in cells(spec))
            best = [record for record in found if record is not None]
            replicates, refused = planned_replicates(spec, best, data)
            phases: list[Phase] = [p for p in ("transfer", "confirm") if getattr(spec, p)]
            if phases:
                executor.run(phases, replicates, None, rerun_failed=True)
        wanted = {trial.trial_id for trial in (*search, *replicates)}
        trials = tuple(
            ledger.records[trial_id] for trial_id in sorted(wanted & ledger.records.keys())
        )
        refusals = [{"rule": r, "global_batch_size": b, "why": why} for r, b, why in refused]
        return StudyRecord(spec, trials, {**environment, "rules_refused": refusals})


class _Executor:
    """Runs planned trials through Tune, on a pool that starts when the first one is needed."""

    def __init__(self, run: StudyRun, ledger: Ledger) -> None:
        self._run = run
        self._ledger = ledger
        self._pool: WorkerPool | None = None
        self._num_slots = 0

    def __enter__(self) -> "_Executor":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._pool is not None:
            self._pool.__exit__(*error)

    def run(
        self,
        phases: Sequence[Phase],
        planned: Sequence[PlannedTrial],
        searches: CellSearches | None,
        *,
        rerun_failed: bool,
    ) -> None:
        """Run those of the planned trials that have not ended, the longest first."""
        missing = [
            trial
            for trial in planned
            if not self._ledger.ended(trial.trial_id, or_failed=not rerun_failed)
        ]
        missing = _in_running_order(missing)
        self._run.view.phase_started(phases, missing)
        if not missing:
            return
        self._start()
        trainable = tune.with_resources(
            train_alone if self._pool is None else relay,
            tune.PlacementGroupFactory([_RELAY_RESOURCES]),
        )
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=PlannedTrials(missing, self._config, self._ledger.records, searches),
                num_samples=len(missing),
                # One more than fits waits at the broker, so that no group is idle between trials.
                max_concurrent_trials=self._num_slots + (self._pool is not None),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="-".join(phases),
                storage_path=str(self._run.storage / "ray"),
                callbacks=[_Recorder(self._ledger, self._run.storage)],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()
        if self._pool is not None:
            self._pool.check()

    def _start(self) -> None:
        if self._num_slots:
            return
        spec = self._run.spec
        self._num_slots = num_slots(spec.resources)
        if spec.resources.executor == "pool":
            self._pool = WorkerPool(
                spec, num_slots=self._num_slots, storage=self._run.storage / "ray"
            ).__enter__()
            self._run.view.workers_ready(self._pool.wait_until_ready())

    def _config(self, planned: PlannedTrial) -> dict[str, Any]:
        """What a Tune trial is given; its record is announced when it starts."""
        record = planned.record()
        config = {
            "trial_id": record.trial_id,
            "record": record.to_json(),
            "recipe": asdict(record.recipe),
            "keep_example_losses": record.phase == "confirm",
        }
        if self._pool is not None:
            return config | {"broker": self._pool.broker_name}
        spec = self._run.spec.model_dump_json(exclude_unset=True)
        storage = str(self._run.storage / "ray" / "trainers")
        return config | {"spec": spec, "storage": storage, "working_folder": str(Path.cwd())}


class _Recorder(tune.Callback):
    """Writes the events of Tune's trials into the ledger."""

    def __init__(self, ledger: Ledger, storage: Path) -> None:
        self._ledger = ledger
        self._storage = storage
        self._outcomes: dict[str, Event] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles callbacks with the experiment's state, which is never restored from here.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        for event in result.get("events", ()):
            self._record(trial.config, event)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._record(trial.config, {"kind": "failed", "error": "its Tune actor died"})

    def _record(self, config: dict[str, Any], event: Event) -> None:
        trial_id: str = config["trial_id"]
        if (
            trial_id not in self._ledger.records
            or self._ledger.records[trial_id].status == "failed"
        ):
            self._ledger.start(TrialRecord.from_json(config["record"]))
        match event["kind"]:
            case "measured":
                measurements = [Measurement(**values) for values in event["measurements"]]
                self._ledger.measure(trial_id, measurements)
            case "outcome":
                self._outcomes[trial_id] = event
                self._keep_example_losses(trial_id, event["example_losses"])
            case "ended":
                self._ledger.end(trial_id, self._outcomes[trial_id]["status"])
            case "failed":
                self._ledger.end(trial_id, "failed", _last_line(event["error"]))
            case _:
                pass

    def _keep_example_losses(self, trial_id: str, losses: dict[str, Any]) -> None:
        """Per-example losses of the last evaluation, as Parquet: split, loss_sum, num_targets."""
        if not losses:
            return
        columns: dict[str, list[Any]] = {"split": [], "loss_sum": [], "num_targets": []}
        for split, values in losses.items():
            columns["split"] += [split] * len(values["loss_sums"])
            columns["loss_sum"] += values["loss_sums"]
            columns["num_targets"] += values["num_targets"]
        folder = self._storage / "example_losses"
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), folder / f"{trial_id}.parquet")


def _in_running_order(planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
    """Longest first, so that no group idles at the end; an adaptive search takes cells in turn."""
    if any(trial.recipe is None for trial in planned):
        return sorted(planned, key=lambda trial: trial.trial_id.rsplit("-", 1)[1])
    return sorted(planned, key=lambda trial: trial.expected_work, reverse=True)


def _last_line(error: str | None) -> str:
    lines = (error or "unknown error").strip().splitlines()
    return lines[-1][:1000]
