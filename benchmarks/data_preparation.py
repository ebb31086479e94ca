"""What preparing a corpus costs a worker: encoded by itself, or mapped from the driver's.

python benchmarks/data_preparation.py [--rows 200000]

And what a trained tokenizer takes for a tenth of the rows, in turns: a row a call and a call each
for prompt, text and bytes, as it was once, or many rows a call. Seconds of the processor.
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
        measured = measured_tokenizer(num_rows // 10) | measure()
    for name, value in measured.items():
        print(f"{name:32} {value:10.2f}")
    print(json.dumps({"num_rows": num_rows, **measured}))


def write_texts(file: Path, count: int) -> None:
    """So many different lines of random words."""
    chance = random.Random(file.name)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 8))) for _ in range(3000)]
    lines = (f"{' '.join(chance.choices(words, k=WORDS_EACH))} {i}" for i in range(count))
    file.write_text("\n".join(["text", *lines]) + "\n")


def measured_tokenizer(num_rows: int) -> dict[str, float]:
    """Seconds of the processor for encoding rows, the less of two times each."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in a study
    from scaling.tasks.data.rows import Row
    from scaling.tasks.data.tokenizer_choice import learnt_subwords

    lines = Path("train.csv").read_text().splitlines()[1 : num_rows + 1]
    rows = [Row(line) for line in lines]
    tokenizer = learnt_subwords(rows, 4000)

    def one_by_one() -> list[list[int]]:
        return [[next(tokenizer.joined([row])) for _ in range(3)][-1].text for row in rows]

    def together() -> list[list[int]]:
        return [joined.text for joined in tokenizer.joined(rows)]

    assert one_by_one() == together()
    seconds: dict[str, list[float]] = {"row_a_call_seconds": [], "many_a_call_seconds": []}
    for _ in range(2):
        for name, encode in zip(seconds, (one_by_one, together), strict=True):
            started = time.process_time()
            encode()
            seconds[name].append(time.process_time() - started)
    return {name: min(taken) for name, taken in seconds.items()}


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
