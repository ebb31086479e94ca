"""Training examples a second: our loop, a bare PyTorch loop, HF Trainer and Lightning.

    python benchmarks/training_throughput.py [--seconds 2] [--repeats 9]

The same model (a Llama of 2 layers, width 64, on words and their pronunciation, as they are and
all of one length; a BERT tagger on sentences), batches, precision (fp32), optimizer (AdamW),
clipping, constant schedule and one thread each; the contenders take turns, a short run each,
several times. Each step's loss and gradient norm are read as numbers by all but Lightning and HF
Trainer, which log every tenth. Ours also measures the noise scale as often as in any trial of so
many steps.

One thread is timed by the processor's clock, which other work on the machine moves little; two
workers and two threads by the wall's.

Printed are medians over the repeats. The last line is JSON. `ours_over_bare`, `ours_over_hf` and
`ours_over_lightning` are the least favourable ratio over all four batch sizes; the others are over
B = 64, 256, 1024 (B = 16 is in their tables alone). `ours_over_hf_variable_length` is of sentences,
with two micro-batches a step, `ours_over_hf_words` of words; `noise_scale_cost_ratio` is the share
of throughput that measuring costs; `ddp_over_threads` is two gloo workers of one thread over one
process of two threads.
"""

import argparse
import json
import logging
import socket
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.multiprocessing as mp

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.space.cells import cells, hyperparameters
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.spec.evaluation import Evaluation
from scaling.spec.study import StudySpec
from scaling.spec.workloads import CausalLm, TokenClassification
from scaling.tasks.data.ragged import Ragged
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Batch
from scaling.tasks.text_task import TextTask
from scaling.training import loop
from scaling.training.measuring import Measuring
from scaling.training.parallel.workers import Workers

BATCH_SIZES = (16, 64, 256, 1024)
ABOVE_16 = BATCH_SIZES[1:]
FIXED_LENGTH = 25  # 24 of them are read to predict the next
PEAK_LR, CLIP_NORM, WEIGHT_DECAY = 1e-3, 1.0, 0.01
EVALUATION = Evaluation(every_steps=10**9, num_examples=2)
WORKLOAD = CausalLm.model_validate(
    {
        "task": "causal_lm",
        "model": {
            "architecture": "llama",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        "data": {"source": "builtin:grapheme_to_phoneme", "num_train": 4000},
    }
)

SENTENCES = TokenClassification.model_validate(
    {
        "task": "token_classification",
        "model": {
            "architecture": "bert",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "data": {
            "source": "builtin:part_of_speech_treebank",
            "tokenizer": "subwords",
            "vocab_size": 2000,
            "max_length": 64,
        },
    }
)


@dataclass(frozen=True)
class Job:
    """What every contender runs, each step in `num_micro` micro-batches."""

    task: TextTask
    global_batch_size: int
    num_steps: int
    num_micro: int = 1

    def batches(self) -> Iterator[np.ndarray]:
        """The examples of each micro-batch, in the order drawn."""
        rng = np.random.default_rng(0)
        size = self.global_batch_size
        for _ in range(self.num_steps):
            indices = rng.integers(0, self.task.num_train, size)
            yield from np.split(indices, self.num_micro)


Contender = Callable[[Job], float]
"""Runs a job; returns training examples a second."""


def ours(job: Job) -> float:
    """`scaling.training.loop.train`, evaluation not counted."""
    return _ours(job, Workers(), time.process_time)


def _ours(job: Job, workers: Workers, clock: Callable[[], float]) -> float:
    """From the first evaluation's end to the last one's beginning."""
    reported: list[float] = []
    begun: list[float] = []
    examples: list[int] = []
    measure = Measuring.measure

    def marked(self: Measuring, *, is_last: bool) -> Measurement:
        begun.append(clock())
        return measure(self, is_last=is_last)

    def report(measurement: Measurement, **_: bool) -> Literal["continue"]:
        reported.append(clock())
        examples.append(measurement.examples)
        return "continue"

    Measuring.measure = marked
    try:
        loop.train(job.task, _recipe(job, workers.world_size), EVALUATION, workers, report)
    finally:
        Measuring.measure = measure
    return examples[-1] / (begun[-1] - reported[0])


def _recipe(job: Job, world_size: int) -> Recipe:
    share = job.global_batch_size // world_size // job.num_micro
    spec = StudySpec.model_validate(
        {
            "name": "throughput",
            "question": "How fast?",
            "workload": (WORKLOAD if job.task.head == "causal_lm" else SENTENCES).model_dump(),
            "scientific": {"global_batch_size": [job.global_batch_size]},
            "fixed": {"peak_lr": PEAK_LR, "clip_norm": CLIP_NORM, "weight_decay": WEIGHT_DECAY},
            "budget": {"steps": job.num_steps},
            "evaluation": EVALUATION.model_dump(exclude_none=True),
            "search": {"trials_per_cell": 1},
            "resources": {"num_workers": world_size, "micro_batch_size": share},
        }
    )
    values = hyperparameters(spec, cells(spec)[0], {})
    assert job.task.num_train is not None
    return resolve(spec, values, seed=0, facts=Facts(job.task.num_train, 1.0))


def ours_without_noise(job: Job) -> float:
    """The same, and the noise scale is not measured."""
    measures_noise_at = loop.measures_noise_at
    loop.measures_noise_at = lambda *_, **__: False
    try:
        return ours(job)
    finally:
        loop.measures_noise_at = measures_noise_at


def bare(job: Job) -> float:
    """What one would write by hand."""
    model = job.task.new_model(0)
    model.train()
    optimizer = torch.optim.AdamW(_decayed(model), lr=PEAK_LR)
    losses, norms = [], []
    start = time.process_time()
    for number, indices in enumerate(job.batches()):
        batch = job.task.collate(indices, 0)
        num_targets = int((batch["labels"] != -100).sum())
        loss = job.task.loss_sum(model, batch) / num_targets / job.num_micro
        loss.backward()
        losses.append(loss.detach())
        if (number + 1) % job.num_micro:
            continue
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)))
        optimizer.step()
        optimizer.zero_grad()
    float(torch.stack(losses).mean())
    return job.num_steps * job.global_batch_size / (time.process_time() - start)


def _decayed(model: torch.nn.Module) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def huggingface(job: Job) -> float:
    """`transformers.Trainer`, from its first step's beginning to its last one's end."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        times: list[float]

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.times.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.process_time())

    clock = Clock()
    clock.times = []
    arguments = TrainingArguments(
        output_dir=str(Path(tempfile.gettempdir()) / "throughput"), use_cpu=True,
        max_steps=job.num_steps,
        per_device_train_batch_size=job.global_batch_size // job.num_micro,
        gradient_accumulation_steps=job.num_micro, learning_rate=PEAK_LR,
        lr_scheduler_type="constant", weight_decay=WEIGHT_DECAY, max_grad_norm=CLIP_NORM,
        logging_steps=10, save_strategy="no", report_to=[], disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        model=job.task.new_model(0), args=arguments, train_dataset=_Examples(job),
        data_collator=lambda numbers: _for_huggingface(
            job.task, job.task.collate(np.array(numbers), 0)
        ),
        callbacks=[clock],
    )  # fmt: skip
    trainer.remove_callback(next(c for c in _callbacks(trainer) if "Printer" in type(c).__name__))
    trainer.train()
    return job.num_steps * job.global_batch_size / (clock.times[-1] - clock.times[0])


def _callbacks(trainer: Any) -> list[Any]:
    return list(trainer.callback_handler.callbacks)


def _for_huggingface(task: TextTask, batch: Batch) -> dict[str, torch.Tensor]:
    if task.head != "causal_lm":
        return dict(batch)
    # The labels are the next tokens already; told so, the model computes on no further position.
    return {**batch, "shift_labels": batch["labels"]}


class _Examples(torch.utils.data.Dataset[int]):
    """The numbers of the job's examples."""

    def __init__(self, job: Job) -> None:
        self._numbers = np.concatenate(list(job.batches()))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> int:
        return int(self._numbers[number])


def lightning(job: Job) -> float:
    """`lightning.Trainer`, from its first batch's beginning to its last one's end."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = job.task.new_model(0)
            self.times: list[float] = []

        def on_train_batch_start(self, *_: Any) -> None:
            self.times.append(time.process_time())

        def on_train_batch_end(self, *_: Any) -> None:
            self.times.append(time.process_time())

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = job.task.loss_sum(self.model, batch) / (batch["labels"] != -100).sum()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(_decayed(self.model), lr=PEAK_LR)

    loader = torch.utils.data.DataLoader(
        _Examples(job), batch_size=job.global_batch_size // job.num_micro,
        collate_fn=lambda numbers: job.task.collate(np.array(numbers), 0),
    )  # fmt: skip
    trainer = pl.Trainer(
        max_steps=job.num_steps, accelerator="cpu", gradient_clip_val=CLIP_NORM, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=10, accumulate_grad_batches=job.num_micro,
    )  # fmt: skip
    module = Module()
    module.train()
    trainer.fit(module, loader)
    return job.num_steps * job.global_batch_size / (module.times[-1] - module.times[0])


def fixed_length(task: TextTask) -> TextTask:
    """A task whose training examples all have FIXED_LENGTH tokens."""
    rng = np.random.default_rng(0)
    objective: Any = task.objective
    before = objective.examples["train"]
    count = len(before.prompt_lengths)
    tokens = rng.integers(4, objective.vocab_size, (count, FIXED_LENGTH))
    same = replace(before, tokens=Ragged.of(tokens.tolist()), prompt_lengths=np.full(count, 8))
    examples = {**objective.examples, "train": same}
    return replace(task, objective=replace(objective, examples=examples))


def compare(
    contenders: dict[str, Contender],
    task: TextTask,
    options: argparse.Namespace,
    *,
    num_micro: int = 1,
) -> dict[int, dict[str, float]]:
    """Median examples a second by batch size and contender, who take turns."""
    medians: dict[int, dict[str, float]] = {}
    for size in BATCH_SIZES:
        trial = Job(task, size, 3, num_micro)
        # At least so many, since the first step of a run measures the noise scale.
        steps = max(8, int(bare(trial) * options.seconds / size))
        job = replace(trial, num_steps=steps)
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.repeats):
            for name, run in contenders.items():
                speeds[name].append(run(job))
        medians[size] = {name: statistics.median(values) for name, values in speeds.items()}
    return medians


def on_two_workers(job: Job) -> float:
    """Ours on two gloo workers of one thread each."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_worker, args=(port, job, results), nprocs=2)
    return results.get()


def _worker(rank: int, port: int, job: Job, results: Any) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    # A fresh process is slow at first.
    _ours(replace(job, num_steps=3), Workers(rank, 2), time.perf_counter)
    speed = _ours(job, Workers(rank, 2), time.perf_counter)
    if rank == 0:
        results.put(speed)
    torch.distributed.destroy_process_group()


def on_two_threads(job: Job) -> float:
    """Ours in one process of two threads."""
    torch.set_num_threads(2)
    try:
        return _ours(job, Workers(), time.perf_counter)
    finally:
        torch.set_num_threads(1)


def show(title: str, medians: dict[int, dict[str, float]], over: str) -> None:
    """A table of examples a second, and each contender's ratio to the first one's."""
    print(f"\n{title}, training examples a second")
    names = list(next(iter(medians.values())))
    print(f"{'B':>6}" + "".join(f"{name:>22}" for name in names))
    for size, row in medians.items():
        cells = (f"{row[name]:>12.0f} ({row[over] / row[name]:5.2f}×)" for name in names)
        print(f"{size:>6}" + "".join(f"{cell:>22}" for cell in cells))


def least(
    medians: dict[int, dict[str, float]], above: str, below: str, sizes: Sequence[int]
) -> float:
    """The least favourable ratio over some batch sizes."""
    return round(min(medians[size][above] / medians[size][below] for size in sizes), 4)


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    variable = prepare_task(WORKLOAD, EVALUATION)
    assert isinstance(variable, TextTask)
    fixed = fixed_length(variable)

    one_length = compare(
        {"ours": ours, "bare": bare, "HF Trainer": huggingface, "Lightning": lightning},
        fixed, options,
    )  # fmt: skip
    show("One length, one thread", one_length, "ours")
    sentences = prepare_task(SENTENCES, EVALUATION)
    assert isinstance(sentences, TextTask)
    of_two = {"ours": ours, "HF Trainer": huggingface}
    lengths = compare(of_two, sentences, options, num_micro=2)
    show("Sentences of 3 to 64 tokens, two micro-batches, one thread", lengths, "ours")
    narrow = compare(of_two, variable, options, num_micro=2)
    show("Words of 6 to 30 tokens, two micro-batches, one thread", narrow, "ours")
    noise = compare({"ours": ours, "without": ours_without_noise}, fixed, options)
    show("With and without measuring the noise scale", noise, "ours")
    workers = compare(
        {"two workers": on_two_workers, "two threads": on_two_threads}, fixed, options
    )
    show("Two workers of one thread, one process of two threads", workers, "two workers")
    result = {
        "ours_over_bare": least(one_length, "ours", "bare", BATCH_SIZES),
        "ours_over_hf": least(one_length, "ours", "HF Trainer", BATCH_SIZES),
        "ours_over_lightning": least(one_length, "ours", "Lightning", BATCH_SIZES),
        "ours_over_hf_variable_length": least(lengths, "ours", "HF Trainer", ABOVE_16),
        "ours_over_hf_words": least(narrow, "ours", "HF Trainer", ABOVE_16),
        "noise_scale_cost_ratio": round(1 - least(noise, "ours", "without", ABOVE_16), 4),
        "ddp_over_threads": least(workers, "two workers", "two threads", ABOVE_16),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
