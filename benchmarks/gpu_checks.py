"""Whether training on a GPU is what it is on a CPU, as fast as it should be, and as measured.

    python benchmarks/gpu_checks.py [--device cuda|cpu] [--only NAME…]

For the day that a GPU is at hand: within 8 minutes on one of them, with torch, transformers,
accelerate, numpy, fsspec and pydantic; no other package, and no data. `--device cpu` takes small
sizes, shows that every check itself runs, and judges what a CPU can carry.

One line of JSON a check: `check`, `passed`, `measured`, `wanted`, and `why` where it did not pass.
`passed` is null where the device cannot carry a check. Each has its own time limit, and all run
whatever becomes of the others. Exit status 1 where one is false. What happens meanwhile is said on
standard error.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

TOTAL_SECONDS = {"cuda": 480.0, "cpu": 570.0}
CPU_PATIENCE = 3.0  # times a GPU's limits: others may use the processors too


def checks() -> list[Any]:
    """All of them, in the order in which they run."""
    import gpu_exactness as exactness
    import gpu_memory as memory
    import gpu_speed as speed
    from gpu_frame import Check

    return [
        Check("a cold start is no training", speed.cold_start, 60),  # in a process that is new
        Check("gradient against float64 on the CPU", exactness.gradient, 40),
        Check("loss in chunks against all logits at once", memory.chunks, 40),
        Check("a trial learns and is measured", exactness.learns, 60),
        Check("resume", exactness.resume, 30),
        Check("two processes on one device over gloo", exactness.two_processes, 60),
        Check("two GPUs train as one", exactness.two_gpus, 60),
        Check("reported seconds", speed.seconds, 30),
        Check("syncs a step", speed.syncs, 30),
        Check("memory constant over three trials", memory.constant, 30),
        Check("peak memory after a larger trial", memory.peak, 30),
        Check("estimated memory", memory.estimate, 60),
        Check("throughput against a bare loop and HF Trainer", speed.throughput, 170),
        Check("tf32 against fp32", speed.tf32, 40),
        Check("cost of the noise scale", speed.noise_cost, 40),
        Check("cost of averaging weights", speed.averaging_cost, 40),
        Check("time spent saving", speed.saving, 30),
        Check("compile against eager", speed.compiling, 100),
        Check("compile with sharpness", speed.compiled_sharpness, 60),
        Check("halving under a memory fraction", memory.halving, 30, spoils=True),
        Check("a device assert keeps its cause", exactness.device_assert, 30, spoils=True),
    ]


def main() -> int:
    """Run the checks; 1 where one is false."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="checks whose name has this")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the package need not be installed
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.device == "cpu":
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more start processes
    from gpu_frame import findings, line_of, note

    patience = CPU_PATIENCE if options.device == "cpu" else 1.0
    chosen = [c for c in checks() if not options.only or any(n in c.name for n in options.only)]
    failed = False
    total = TOTAL_SECONDS[options.device]
    for check, finding, taken in findings(chosen, options.device, total, patience):
        print(json.dumps(line_of(check, finding)), flush=True)
        note(f"{check.name}: {taken:.1f} s")
        failed = failed or finding.passed is False
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
