"""What preparing a corpus costs a worker: encoded by itself, or mapped from the driver's.

python benchmarks/data_preparation.py [--rows 200000]
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

WORDS_EACH = 7
NUM_WORKERS = 2


def main() -> None:
    """Print a table, and as the last line the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    num_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for split, count in {"train": num_rows, "validation": 500, "test": 500}.items():
            write_texts(Path(f"{split}.csv"), count)
        measured = measure()
    for name, value in measured.items():
        print(f"{name:32} {value:10.2f}")
    print(json.dumps({"num_rows": num_rows, **measured}))


def write_texts(file: Path, count: int) -> None:
    """So many different lines of random words."""
    chance = random.Random(file.name)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 8))) for _ in range(3000)]
    lines = (f"{' '.join(chance.choices(words, k=WORDS_EACH))} {i}" for i in range(count))
    file.write_text("\n".join(["text", *lines]) + "\n")


def measure() -> dict[str, float]:
    """Seconds and private memory of a process, before and after: the worst of the workers."""
    import ray

    from scaling.runner.cluster import connect, disconnect
    from scaling.spec.evaluation import Evaluation
    from scaling.spec.workloads import CausalLm
    from scaling.tasks.prepare import prepare_task

    workload = CausalLm.model_validate(
        {
            "task": "causal_lm",
            "model": {
                "architecture": "llama", "hidden_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2,
            },
            "data": {
                "files": {split: f"{split}.csv" for split in ("train", "validation", "test")},
                "text_column": "text",
            },
        }
    )  # fmt: skip
    own = psutil.Process()
    before, started = own.memory_full_info().uss, time.perf_counter()
    task = prepare_task(workload, Evaluation(every_steps=5, num_examples=50))
    alone = time.perf_counter() - started, own.memory_full_info().uss - before
    connect("local", Path("ray.log").absolute())
    try:
        started = time.perf_counter()
        reference = ray.put(task)
        put_seconds = time.perf_counter() - started
        worker: Any = ray.remote(num_cpus=0)(receive)
        received = ray.get([worker.remote([reference]) for _ in range(NUM_WORKERS)])
    finally:
        disconnect()
    return {
        "alone_seconds": alone[0],
        "alone_mib": alone[1] / 2**20,
        "driver_put_seconds": put_seconds,
        "mapped_seconds": max(seconds for seconds, _ in received),
        "mapped_mib": max(size for _, size in received) / 2**20,
    }


def receive(references: list[Any]) -> tuple[float, float]:
    """Seconds and private bytes that a worker takes for the driver's data."""
    import ray

    import scaling.tasks.causal_lm  # noqa: F401  # what any worker has loaded

    own = psutil.Process()
    before, started = own.memory_full_info().uss, time.perf_counter()
    task = ray.get(references[0])
    assert task.num_train
    return time.perf_counter() - started, float(own.memory_full_info().uss - before)


if __name__ == "__main__":
    main()
