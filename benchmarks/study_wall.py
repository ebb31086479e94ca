"""Where a study's wall time goes: start-up, training, evaluation, waiting, report.

    python benchmarks/study_wall.py [STUDY.yaml] [--set dotted.key=value …]

Runs the study (the default one where none is named) in a new folder as anyone would, and reads
what its trials recorded. Training and evaluation are summed over trials and divided by the number
of worker groups; waiting is what is left of the wall time between the pool's readiness and the
end of the last trial. The last line is JSON, in seconds; `busy_share` counts from the pool's
readiness to the end of the last trial, `busy_share_to_exit` to the command's.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT = Path(__file__).parents[1] / "studies/lr_vs_batch.yaml"
READY = re.compile(r"(\d+) worker groups? of (\d+) workers? ready")


def main() -> None:
    """Run the study and print the split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--set", action="append", default=[], metavar="dotted.key=value")
    options = parser.parse_args()
    command = [sys.executable, "-u", "-m", "scaling.study", str(options.study.absolute())]
    for change in options.set:
        command += ["--set", change]
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(_measure(command, Path(folder))))


def _measure(command: list[str], folder: Path) -> dict[str, float]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    ready_at = last_end_at = None
    num_slots = 0
    assert process.stdout is not None
    for line in process.stdout:
        print(f"{time.monotonic() - started:7.1f} s  {line}", end="", flush=True)
        if found := READY.search(line):
            ready_at, num_slots = time.monotonic(), int(found[1])
        if re.match(r"\[\d+/\d+\]", line):
            last_end_at = time.monotonic()
    status = process.wait()
    ended = time.monotonic()
    if status or ready_at is None or last_end_at is None:
        raise SystemExit(f"the study ended with status {status}")
    [journal] = folder.glob("runs/*/trials.jsonl")
    finals = [json.loads(line)["measurements"][-1] for line in journal.read_text().splitlines()]
    training = sum(final["seconds"] for final in finals) / num_slots
    evaluation = sum(final["evaluation_seconds"] for final in finals) / num_slots
    trials = last_end_at - ready_at
    return {
        "wall_seconds": round(ended - started, 1),
        "start_up_seconds": round(ready_at - started, 1),
        "training_seconds": round(training, 1),
        "evaluation_seconds": round(evaluation, 1),
        "waiting_seconds": round(trials - training - evaluation, 1),
        "report_seconds": round(ended - last_end_at, 1),
        "num_slots": num_slots,
        "busy_share": round((training + evaluation) / trials, 4),
        "busy_share_to_exit": round((training + evaluation) / (ended - ready_at), 4),
    }


if __name__ == "__main__":
    main()
