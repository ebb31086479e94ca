"""Whether a trial's time drifts over a study of two hundred.

    python benchmarks/many_trials.py [--trials 200]

Runs a study of trivial trials (noisy quadratics, two steps, three reports) on one group of two
workers, and notes when each trial's line is printed. A trial's time is from the line before to
its own. The last line is JSON: the median in seconds, and by how much the Theil–Sen line through
all times rises from the 20th trial to the last, as a share of the median, with its 95% interval.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from scipy.stats import theilslopes

NUM_WARM_UP = 20


def main() -> None:
    """Run the study and print the drift."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    study = {
        "name": "many_trials",
        "question": "Does a trial's time drift?",
        "workload": {"task": "noisy_quadratic", "num_chains": 4},
        "scientific": {"global_batch_size": [4]},
        "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.1]}},
        "fixed": {"optimizer": "sgd"},
        "budget": {"steps": 2},
        "evaluation": {"every_steps": 1},
        "search": {"trials_per_cell": options.trials},
        "resources": {"num_workers": 2},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "many_trials.yaml").write_text(yaml.safe_dump(study))
        times = _ends(folder)
    seconds = [after - before for before, after in itertools.pairwise(times)]
    seconds = seconds[NUM_WARM_UP:]
    slope, _, low, high = theilslopes(seconds)
    median, span = statistics.median(seconds), len(seconds)
    drift, low, high = (round(float(value) * span / median, 4) for value in (slope, low, high))
    print(
        json.dumps(
            {
                "num_trials": len(times),
                "seconds_per_trial": round(median, 4),
                "drift": drift,
                "drift_interval": [low, high],
            }
        )
    )


def _ends(folder: Path) -> list[float]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-u", "-m", "scaling.study", "many_trials.yaml"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    times = [time.monotonic() for line in process.stdout if re.match(r"\[\d+/\d+\]", line)]
    if process.wait():
        raise SystemExit("the study failed")
    return times


if __name__ == "__main__":
    main()
