"""What our loop is compared with: a loop as one would write it by hand, and HF Trainer.

    python benchmarks/gpu_rivals.py JOBS.json

runs HF Trainer alone, since what it imports by itself is not to be in the checks' own process, and
prints its examples a second by job.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

PEAK_LR, CLIP_NORM, WEIGHT_DECAY = 1e-3, 1.0, 0.01


@dataclass(frozen=True)
class Job:
    """What all train: `num_steps` to warm up, and as many that count.

    Attributes:
        sizes: Of the model; see `gpu_tasks.language`, as `length`, `vocabulary` and `num_train`.
    """

    device: str
    sizes: str
    length: int
    vocabulary: int
    num_train: int
    global_batch_size: int
    micro_batch_size: int
    num_steps: int
    precision: str = "bf16"

    def task(self) -> Any:
        """Texts of one length."""
        from gpu_tasks import language

        return language(
            self.sizes, length=self.length, vocabulary=self.vocabulary, num_train=self.num_train
        ).task

    def batches(self) -> Iterator[np.ndarray]:
        """The examples of each micro-batch."""
        rng = np.random.default_rng(0)
        for _ in range(2 * self.num_steps):
            drawn = rng.integers(0, self.num_train, self.global_batch_size)
            yield from np.split(drawn, self.global_batch_size // self.micro_batch_size)


def wait_for(device: str) -> None:
    """Until the GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def bare(job: Job) -> float:
    """Examples a second of a loop written by hand."""
    task, device = job.task(), torch.device(job.device)
    torch.manual_seed(0)
    model = task.new_model(0).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, fused=True)
    num_micro = job.global_batch_size // job.micro_batch_size
    started = 0.0
    for number, indices in enumerate(job.batches()):
        if number == job.num_steps * num_micro:
            wait_for(job.device)
            started = time.perf_counter()
        batch = task.collate(indices, 0)
        if job.device == "cuda":
            batch = {k: v.pin_memory().to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        loss = functional.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten())
        (loss / num_micro).backward()
        if (number + 1) % num_micro == 0:
            float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM))
            optimizer.step()
            optimizer.zero_grad()
    wait_for(job.device)
    return job.num_steps * job.global_batch_size / (time.perf_counter() - started)


def huggingface(jobs: Sequence[Job], seconds: float) -> list[float]:
    """Examples a second of HF Trainer by job, in a process of its own.

    Raises:
        RuntimeError: If that process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jobs.json")
        path.write_text(json.dumps([asdict(job) for job in jobs]), encoding="ascii")
        done = subprocess.run(
            [sys.executable, __file__, str(path)], capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise RuntimeError(f"HF Trainer: {(done.stderr.strip().splitlines() or ['no error'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _train_with_huggingface(job: Job) -> float:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from scaling.tasks.target_loss import in_one_piece

    times: list[float] = []

    class Clock(TrainerCallback):
        """Waits for the device twice, after the steps that warm up and after the last one."""

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step in (job.num_steps, 2 * job.num_steps):
                wait_for(job.device)
                times.append(time.perf_counter())

    class Numbers(torch.utils.data.Dataset[int]):
        numbers = np.concatenate(list(job.batches()))

        def __len__(self) -> int:
            return len(self.numbers)

        def __getitem__(self, number: int) -> int:
            return int(self.numbers[number])

    task = job.task()

    def collate(numbers: list[int]) -> dict[str, torch.Tensor]:
        batch = in_one_piece(task.collate(np.array(numbers), 0))
        # The labels are the next tokens already; so the model computes on no further position.
        return {**batch, "shift_labels": batch["labels"]}

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=job.device == "cpu", max_steps=2 * job.num_steps,
            per_device_train_batch_size=job.micro_batch_size,
            gradient_accumulation_steps=job.global_batch_size // job.micro_batch_size,
            learning_rate=PEAK_LR, lr_scheduler_type="constant", weight_decay=WEIGHT_DECAY,
            max_grad_norm=CLIP_NORM, logging_steps=10, save_strategy="no", report_to=[],
            disable_tqdm=True, remove_unused_columns=False, bf16=True,
            dataloader_pin_memory=job.device == "cuda",
        )  # fmt: skip
        trainer = Trainer(
            model=task.new_model(0), args=arguments, train_dataset=Numbers(),
            data_collator=collate, callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return job.num_steps * job.global_batch_size / (times[1] - times[0])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    given = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    print(json.dumps([_train_with_huggingface(Job(**job)) for job in given]))
