"""What Tune is told after each report: go on or stop; and what the ledger is told."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from scaling.files.names import file_name
from scaling.files.own import write_whole
from scaling.records.ledger import Ledger, by_cell
from scaling.records.measurement import Measurement
from scaling.records.objective import Objective
from scaling.records.trial import Status, TrialRecord
from scaling.runner.jobs import Event
from scaling.runner.preflight import ClusterError
from scaling.runner.trial import checkpoints_of
from scaling.search.early_stopping import goes_on
from scaling.spec.issues import last_line
from scaling.spec.phases import EarlyStopping
from scaling.training.checkpoint import remove_checkpoints

MAX_ACTOR_LOSSES = 5  # of one trial; its job on the workers does not notice


class LedgerScheduler(FIFOScheduler):
    """Writes the events of Tune's trials into the ledger, and ends trials at rungs.

    As Tune's scheduler it hears of a result before Tune's search and callbacks do, so the ledger
    is right when they ask. What is decided follows from the ledger alone: a resumed study
    decides by all its trials, those of earlier runs included.

    Args:
        ledger: Of the study.
        storage: Folder of the study's state.
        checkpoints: Folder or URL of the trials' checkpoints; those of an ended trial go.
        early_stopping: None lets every trial end by itself.
        objective: What trials are compared by at rungs.
        cancel: Frees the workers of a trial that Tune has given up.
        require_alive: Raises ClusterError where no worker is left that could run a trial.
    """

    def __init__(
        self,
        ledger: Ledger,
        storage: Path,
        checkpoints: str,
        early_stopping: EarlyStopping | None,
        objective: Objective,
        cancel: Callable[[str], None],
        require_alive: Callable[[], None],
    ) -> None:
        super().__init__()
        self._ledger = ledger
        self._storage = storage
        self._checkpoints = checkpoints
        self._early_stopping = early_stopping
        self._objective = objective
        self._cancel = cancel
        self._require_alive = require_alive
        self._outcomes: dict[str, Event] = {}
        self._actor_losses = Counter[str]()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the scheduler with the experiment's state, which is never restored from.
        return {}

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        """Record what a trial reports; stop it where early stopping says so."""
        for event in result.get("events", ()):
            if not self._record(trial.config, event):
                self._end(_trial_id(trial), "stopped")
                return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A Tune actor died: its trial is asked for again, unless that happens too often."""
        self._require_alive()
        trial_id = _trial_id(trial)
        self._actor_losses[trial_id] += 1
        if self._actor_losses[trial_id] > MAX_ACTOR_LOSSES:
            cause = "its Tune actor died too often; the study's ray.log has the cause"
            self._record(trial.config, {"kind": "failed", "error": cause})
            self._cancel(trial_id)

    def _record(self, config: dict[str, Any], event: Event) -> bool:
        """Write an event to the ledger; False when the trial is to stop."""
        if event["kind"] == "refused":
            raise ClusterError(event["reason"])
        planned = TrialRecord.from_json(config["record"])
        trial_id = planned.trial_id
        self._ledger.start(planned)
        if self._ledger.records[trial_id].status != "running":
            return False  # the first end counts
        match event["kind"]:
            case "measured":
                measurements = [Measurement(**values) for values in event["measurements"]]
                new = self._ledger.measure(trial_id, measurements)
                # What a later attempt or Tune actor says again was judged when it was new.
                is_judged = event["at_rung"] and len(new) > 0
                return not is_judged or self._goes_on(self._ledger.records[trial_id])
            case "incident":
                self._ledger.note(trial_id, event["incident"])
            case "outcome":
                self._outcomes[trial_id] = event
                self._keep_example_losses(trial_id, event["example_losses"])
            case "ended":
                outcome = self._outcomes.get(trial_id)
                if outcome is not None and outcome["status"] != "paused":
                    self._end(trial_id, outcome["status"])
            case "failed":
                self._ledger.end(trial_id, "failed", last_line(event["error"]))
            case _:
                pass
        return True

    def _end(self, trial_id: str, status: Status) -> None:
        self._ledger.end(trial_id, status)
        remove_checkpoints(checkpoints_of(self._checkpoints, trial_id))

    def _goes_on(self, record: TrialRecord) -> bool:
        if self._early_stopping is None or record.status != "running":
            return True
        others = [
            other.measurements
            for other in by_cell(self._ledger.records, record.cell)
            if other.trial_id != record.trial_id
        ]
        return goes_on(self._early_stopping, self._objective, record.measurements, others)

    def _keep_example_losses(self, trial_id: str, losses: dict[str, Any]) -> None:
        """Per-example losses of the last evaluation, as Parquet: split, loss_sum, num_targets."""
        if not losses:
            return
        columns: dict[str, list[Any]] = {"split": [], "loss_sum": [], "num_targets": []}
        for split, values in losses.items():
            columns["split"] += [split] * len(values["loss_sums"])
            columns["loss_sum"] += values["loss_sums"]
            columns["num_targets"] += values["num_targets"]
        written = io.BytesIO()
        pq.write_table(pa.table(columns), written)
        name = f"{file_name(trial_id)}.parquet"
        write_whole(self._storage / "example_losses" / name, written.getvalue())


def _trial_id(trial: Trial) -> str:
    return TrialRecord.from_json(trial.config["record"]).trial_id
