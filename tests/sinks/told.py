"""What the tests tell MLflow, and what they find in the store afterwards."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.records.trial import TrialRecord
from scaling.sinks import StudyStart
from scaling.sinks.mlflow.sink import MlflowSink
from scaling.spec.study import StudySpec
from tests import recipes
from tests.recipes import changed


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "seed": 3, "micro_batch_size": 32, "world_size": 2,
        "batch_ramp_at_examples": (640, 6400), "warmup_steps": 31, "warmup_ratio": 0.05,
        "weight_average_half_life_examples": 2000.0, "num_steps": 625,
    }  # fmt: skip
    return changed(recipes.recipe(64, 0.0012 / 3, 625), **(values | changes))


def measurement(step: int) -> Measurement:
    """Irrational numbers, so that a lost bit shows; the loss falls below 0.7 at step 21."""
    return Measurement(
        step=step,
        examples=64 * step,
        tokens=64 * step * 7,
        seconds=step / 87.3,
        lr=1e-3 * math.sqrt(step + 1),
        step_loss=None if step == 0 else 3.1 * math.exp(-step / 14.1),
        grad_norm=math.pi / (step + 1),
        train_loss=3.0 * math.exp(-step / 14.1) + 1e-17,
        validation_loss=3.1 * math.exp(-step / 14.1),
        validation_loss_stderr=1 / 3e5,
        test_loss=3.2 * math.exp(-step / 14.1),
        metrics={"accuracy": 1 / (step + 3), "word accuracy/exact": 1e-300},
    )


def trial(trial_id: str = "search-b64-0", num_measurements: int = 5, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "phase": "search",
        "cell": {"global_batch_size": 64},
        "choices": {"peak_lr": 0.0012 / 3, "clip_norm": None, "warmup_ratio": 0.05},
        "recipe": recipe(),
        "status": "done",
        "measurements": tuple(measurement(10 * i) for i in range(num_measurements)),
        "wall_seconds": 7.1 / 3,
    }
    return TrialRecord(**(values | changes))


def open_sink(
    spec: StudySpec,
    uri: str | None,
    folder: Path,
    environment: dict[str, Any] | None = None,
    *,
    study_id: str = "s1",
    retry_seconds: tuple[float, float] = (0.5, 30.0),
) -> MlflowSink:
    start = StudyStart(spec, study_id, folder, environment or {})
    return MlflowSink(start, uri, retry_seconds=retry_seconds)


def track(sink: MlflowSink, records: list[TrialRecord], *, up_to_step: int = 10**9) -> None:
    """Tell a trial as a study does: started, measured one by one, ended if it got so far."""
    for record in records:
        sink.trial_started(replace(record, status="running", measurements=(), error=None))
        for point in record.measurements:
            if point.step <= up_to_step:
                sink.trial_measured(record.trial_id, [point])
        if not record.measurements or record.measurements[-1].step <= up_to_step:
            sink.trial_ended(record)


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def close_store(uri: str) -> None:
    """Let this process open a store's file anew, as another one would."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore._get_or_create_engine(uri).dispose()


def runs(uri: str, study: str = "lr_vs_batch") -> list[Any]:
    experiment = client(uri).get_experiment_by_name(study)
    return client(uri).search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time ASC"]
    )


def interleaved(sink: MlflowSink, records: list[TrialRecord]) -> None:
    """Tell trials that run at the same time: all start, measure in turn, then all end."""
    for record in records:
        sink.trial_started(replace(record, status="running", measurements=(), error=None))
    for index in range(max(len(record.measurements) for record in records)):
        for record in records:
            if index < len(record.measurements):
                sink.trial_measured(record.trial_id, [record.measurements[index]])
    for record in records:
        sink.trial_ended(record)


def assert_each_once(uri: str, records: list[TrialRecord]) -> None:
    """Every trial has one run, and every step of it one point a metric."""
    children = [run for run in runs(uri) if "trial_id" in run.data.tags]
    assert Counter(run.data.tags["trial_id"] for run in children) == Counter(
        record.trial_id for record in records
    )
    by_id = {record.trial_id: record for record in records}
    for run in children:
        record = by_id[run.data.tags["trial_id"]]
        for name in ("examples", "validation_loss"):
            history = client(uri).get_metric_history(run.info.run_id, name)
            steps = sorted(metric.step for metric in history)
            assert steps == [m.step for m in record.measurements]
