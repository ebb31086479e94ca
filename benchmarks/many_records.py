"""What MLflow costs a study of many trials, and whether that is linear in their number.

    python benchmarks/many_records.py [--trials 1000 4000] [--measurements 5] [--folder DIR]

Tells a study's way to MLflow of as many trials as named, each with its start, its measurements and
its end, waits until a sqlite store has all, opens the study again as a resume does, and loads it
back. Each count is measured in a process of its own. The last line is JSON: milliseconds of
processor time a trial by count, for telling (what a study itself does), sending, opening again and
loading, kilobytes of the store a trial, and the seconds by the clock of closing.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from large_report import large_study

from scaling.sinks import StudyEnd, StudyStart
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.sink import MlflowSink


def main() -> None:
    """Measure every count and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--measurements", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the store is, for the time it is needed")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(costs(options.trials[0], options.measurements, Path(folder))))
        return
    found: dict[int, dict[str, float]] = {}
    for count in options.trials:
        command = [sys.executable, __file__, "--here", "--trials", str(count)]
        command += ["--measurements", str(options.measurements)]
        command += ["--folder", str(options.folder)] if options.folder else []
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found[count] = json.loads(run.stdout.splitlines()[-1])
        costs_ = ", ".join(f"{name} {value:g}" for name, value in found[count].items())
        print(f"{count:>7,} trials: {costs_}", flush=True)
    print(json.dumps(found))


def costs(num_trials: int, num_measurements: int, folder: Path) -> dict[str, float]:
    """What each part costs a trial."""
    study = large_study(1, num_trials)
    records = [
        replace(trial, measurements=trial.measurements[:num_measurements])
        for trial in study.trials
        if trial.phase == "search"
    ]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    environment = {"data_sha256": "ab" * 32, "num_train_examples": 4000}
    start = StudyStart(study.spec, "s1", folder, environment)
    sink = MlflowSink(start)
    laps = [time.process_time()]
    before = time.thread_time()
    for record in records:
        sink.trial_started(replace(record, status="running", measurements=()))
        for measurement in record.measurements:
            sink.trial_measured(record.trial_id, [measurement])
        sink.trial_ended(record)
    told, clock = time.thread_time() - before, time.monotonic()
    sink.study_ended(StudyEnd("done"))
    clock = time.monotonic() - clock
    laps.append(time.process_time())
    sink = MlflowSink(start)
    for record in records:
        sink.trial_ended(record)
    sink.study_ended(StudyEnd("done"))
    laps.append(time.process_time())
    loaded = load_study(study.spec.name)
    laps.append(time.process_time())
    if {t.trial_id: t for t in loaded.trials} != {t.trial_id: t for t in records}:
        raise SystemExit("what was loaded is not what was told")
    send, again, load = (after - before for before, after in itertools.pairwise(laps))
    seconds = {"tell": told, "send": send - told, "again": again, "load": load}
    costs = {f"{name}_ms": round(1e3 * s / num_trials, 2) for name, s in seconds.items()}
    size = (folder / "mlflow.db").stat().st_size
    return costs | {"kilobytes": round(size / num_trials / 1e3, 1), "close_s": round(clock, 1)}


if __name__ == "__main__":
    main()
