"""The same steps by Hugging Face's Trainer and by our loop."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import Workload
from scaling.tasks.data.rows import Split
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainer_functions import TrainerTask
from scaling.training.data_order import DataOrder
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, part_of_speech, pronunciation, questions, recipe
from tests.tasks.examples import write_lines

NUM_STEPS = 3
GLOBAL_BATCH_SIZE = 8
HERE = "tests.training.against_trainer"
WORDS = ("river", "stone", "cloud", "maple", "amber", "birch", "coral", "delta", "ember", "flint")
WORKLOADS: Mapping[str, Workload] = {
    "text_classification": part_of_speech(), "causal_lm": pronunciation(),
    "text_classification, own loss": part_of_speech(compute_loss_func=f"{HERE}:doubtful_loss"),
    "causal_lm, own loss": pronunciation(compute_loss_func=f"{HERE}:focal_loss"),
}  # fmt: skip


@dataclass(frozen=True)
class Cut:
    """How the global batch is cut."""

    world_size: int
    accumulation: int

    @property
    def micro_batch_size(self) -> int:
        return GLOBAL_BATCH_SIZE // self.world_size // self.accumulation

    @property
    def recipe(self) -> Recipe:
        return recipe(
            GLOBAL_BATCH_SIZE, 3e-3, NUM_STEPS, world_size=self.world_size, weight_decay=0.0,
            micro_batch_size=self.micro_batch_size, clip_norm=1.0, beta2=0.999, eps=1e-8,
        )  # fmt: skip


CUTS = [Cut(world_size, accumulation) for world_size in (1, 2) for accumulation in (1, 2)]


def both(workers: Workers, name: str, cut: Cut, folder: str) -> tuple[list[float], list[float]]:
    """The losses of the steps by our loop and by the Trainer; called by all workers."""
    workload = WORKLOADS.get(name) or even_questions(Path(folder) / f"worker_{workers.rank}")
    task = prepare_task(workload, EVALUATION)
    assert isinstance(task, TextTask)
    return ours(task, cut, workers), theirs(task, cut, workers, folder)


def ours(task: TextTask, cut: Cut, workers: Workers) -> list[float]:
    found: list[float] = []

    def report(measurement: Any, *, at_rung: bool) -> Any:
        if measurement.step_loss is not None:
            found.append(measurement.step_loss)
        return "continue"

    train(task, cut.recipe, Evaluation(every_steps=1, num_examples=4), workers, report)
    return found


def theirs(task: TextTask, cut: Cut, workers: Workers, folder: str) -> list[float]:
    """By transformers.Trainer, with its own loss, collation padded as a user's would be."""
    from transformers import Trainer, TrainingArguments

    how = cut.recipe
    order = DataOrder(how.seed, task.num_train).indices(0, NUM_STEPS * GLOBAL_BATCH_SIZE)
    examples = [example_of(task, int(number)) for number in order]
    losses: list[float] = []

    class InOrder(Trainer):
        def get_train_dataloader(self) -> Any:
            loader = DataLoader(examples, batch_size=cut.micro_batch_size, collate_fn=padded)  # type: ignore[arg-type]
            return self.accelerator.prepare(loader)

        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            loss = super().training_step(*args, **kwargs)
            losses.append(float(loss))
            return loss

    if workers.world_size > 1:
        os.environ.update(
            RANK=str(workers.rank), LOCAL_RANK=str(workers.rank),
            WORLD_SIZE=str(workers.world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT="29500",
        )  # fmt: skip
    arguments = TrainingArguments(
        folder, max_steps=NUM_STEPS, per_device_train_batch_size=cut.micro_batch_size,
        gradient_accumulation_steps=cut.accumulation, learning_rate=how.hyperparameters.peak_lr,
        lr_scheduler_type="constant", optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0,
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, seed=1,
        remove_unused_columns=False, logging_strategy="no",
    )  # fmt: skip
    trainer = InOrder(
        task.new_model(how.seed), arguments, train_dataset=examples,  # type: ignore[arg-type]
        compute_loss_func=loss_func_of(task),
    )  # fmt: skip
    trainer.train()
    each = np.array(losses).reshape(NUM_STEPS, cut.accumulation).sum(1)
    together = workers.sum(*each.tolist())  # a step's loss is the mean over the workers
    return [loss / workers.world_size for loss in together]


def loss_func_of(task: TextTask) -> Any:
    """What the Trainer is given: the study's own function, ours as a user writes it, or nothing."""
    if task.head == "question_answering":
        return None
    if isinstance(task, TrainerTask):
        return task.own.compute_loss
    return class_loss if task.num_labels else None


def doubtful_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any) -> Tensor:
    """Cross entropy with smoothed labels and a penalty on large logits."""
    cross_entropy = torch.nn.functional.cross_entropy(
        outputs.logits, labels, label_smoothing=0.1, reduction="sum"
    )
    return (cross_entropy + 1e-2 * outputs.logits.square().sum()) / num_items_in_batch


def focal_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any) -> Tensor:
    """Of next tokens, the labels being those of the tokens themselves (Lin et al. 2017)."""
    logits, following = outputs["logits"][:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    nats = torch.nn.functional.cross_entropy(logits, following, ignore_index=-100, reduction="none")
    return ((1 - torch.exp(-nats)) ** 2 * nats).sum() / num_items_in_batch


def class_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any) -> Tensor:
    """What a user gives a Trainer whose batches are accumulated.

    Its own loss of a class is the mean of each micro-batch, which 5.24 adds up over them.
    """
    total = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum")
    return total / num_items_in_batch


def even_questions(folder: Path, **others: Any) -> Workload:
    """Windows of one length, whose loss the Trainer's models take over their padding too."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for _ in range(90):
        context = " ".join(rng.permutation(WORDS))
        answer = str(rng.choice(WORDS))
        found = {"text": [answer], "answer_start": [context.index(answer)]}
        asked = " ".join(rng.permutation(["where", "is", "it"]))
        rows.append({"context": context, "question": asked, "answers": found})
    folder.mkdir(parents=True, exist_ok=True)
    return questions(write_lines(folder / "rows.json", rows), **others)


def example_of(task: TextTask, number: int, split: Split = "train") -> dict[str, Any]:
    """An example as a user of transformers has it."""
    examples: Any = task.objective.examples[split]
    start, length = examples.tokens.starts[number], examples.tokens.lengths[number]
    ids = examples.tokens.flat[start : start + length].tolist()
    if hasattr(examples, "spans"):
        first, last = map(int, examples.spans[number])
        return {"input_ids": ids, "start_positions": first, "end_positions": last}
    if hasattr(examples, "labels"):
        return {"input_ids": ids, "labels": int(examples.labels[number])}
    prompt = int(examples.prompt_lengths[number])
    return {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}


def padded(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    def together(rows: list[list[int]], fill: int) -> Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])

    ids = [example["input_ids"] for example in examples]
    batch = {
        "input_ids": together(ids, 0),
        "attention_mask": together([[1] * len(row) for row in ids], 0),
    }
    if "start_positions" in examples[0]:
        for name in ("start_positions", "end_positions"):
            batch[name] = torch.tensor([example[name] for example in examples])
        return batch
    labels = [example["labels"] for example in examples]
    return batch | {
        "labels": torch.tensor(labels) if isinstance(labels[0], int) else together(labels, -100),
    }


def all_on(workers: Workers, folder: str) -> list[tuple[str, Cut, list[float], list[float]]]:
    """Every workload at every cut of so many workers."""
    return list(_all_on(workers, folder))


def _all_on(workers: Workers, folder: str) -> Iterator[tuple[str, Cut, list[float], list[float]]]:
    for name in (*WORKLOADS, "question_answering"):
        for cut in CUTS:
            if cut.world_size == workers.world_size:
                yield (name, cut, *both(workers, name, cut, folder))


def predictions(task: TextTask, folder: str) -> list[Any]:
    """What compute_metrics is given of the validation examples: by us, then by the Trainer."""
    from transformers import Trainer, TrainingArguments

    assert isinstance(task, TrainerTask)
    given.clear()
    model = task.new_model(0).eval()
    count = task.num_evaluated("validation")
    with torch.inference_mode():
        task.score(model, torch.device("cpu"))
    arguments = TrainingArguments(
        folder, per_device_eval_batch_size=task.evaluated_at_once, use_cpu=True,
        report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    Trainer(
        model, arguments, data_collator=padded, compute_metrics=task.own.compute_metrics,
        eval_dataset=[example_of(task, n, "validation") for n in range(count)],  # type: ignore[arg-type]
    ).evaluate()  # fmt: skip
    return given


given: list[Any] = []


def starts(prediction: Any) -> dict[str, float]:
    """Share of windows whose likeliest first token is the right one."""
    given.append(prediction)
    (first, _), (right, _) = prediction.predictions, prediction.label_ids
    return {"starts": float((first.argmax(-1) == right).mean())}
