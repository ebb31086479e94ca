"""The recommended recipe as code trains as our loop does: same rates, same losses."""

import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from scaling.arithmetic.schedules import Schedule
from scaling.records.recipe import Recipe
from scaling.report.words.recipe_code import NoCodeError, recipe_code
from scaling.spec.evaluation import Evaluation
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.training.data_order import DataOrder
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, pronunciation, recipe
from tests.training.against_trainer import example_of, padded

NUM_STEPS, BATCH = 6, 8
pytestmark = pytest.mark.filterwarnings("ignore")


def tried(micro_batch_size: int = 4, **changes: Any) -> Recipe:
    return recipe(
        BATCH, 3e-3, NUM_STEPS, micro_batch_size=micro_batch_size, warmup_steps=2,
        schedule="cosine", min_lr_ratio=0.1, clip_norm=1.0, beta2=0.99, eps=1e-8, **changes,
    )  # fmt: skip


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "inverse_sqrt"])
def test_the_rate_of_every_step_is_ours(name: str, warmup: int) -> None:
    how = recipe(8, 1e-3, 40, schedule=name, warmup_steps=warmup, min_lr_ratio=0.05)
    place: dict[str, Any] = {}
    lines = recipe_code(how, "torch", 40, 1)
    exec(lines[: lines.index("\noptimizer = make_optimizer(model)")], place)
    ours = Schedule(name, warmup, 40, min_lr_ratio=0.05)
    for step in range(40):
        assert place["rate_of_step"](step) == pytest.approx(ours.of_step(step), rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_losses_of_plain_torch_are_ours(optimizer: str) -> None:
    how = tried(optimizer=optimizer, momentum=0.9 if optimizer == "sgd" else 0.0)
    task = prepared()
    place: dict[str, Any] = {"model": (model := task.new_model(how.seed)).train()}
    lines = recipe_code(how, "torch", NUM_STEPS, 1)
    exec(lines, place)
    clip = re.search(r"clip_grad_norm_\(model.parameters\(\), ([\d.]+)\)", lines)
    assert clip is not None
    found: list[float] = []
    for batch in batches_of(task, how, BATCH):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), float(clip[1]))
        place["optimizer"].step()
        place["scheduler"].step()
        place["optimizer"].zero_grad()
        found.append(float(loss))
    np.testing.assert_allclose(found, ours(task, how), atol=1e-5, rtol=0)


def test_the_losses_of_hugging_faces_trainer_are_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate")
    import transformers

    how, losses = tried(), []
    task = prepared()
    order = DataOrder(how.seed, task.num_train).indices(0, NUM_STEPS * BATCH)
    examples = [example_of(task, int(number)) for number in order]

    class InOrder(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            loader = DataLoader(examples, batch_size=4, collate_fn=padded)  # type: ignore[arg-type]
            return self.accelerator.prepare(loader)

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            losses.append(float(loss := super().training_step(*args, **kwargs)))
            return loss

    monkeypatch.setattr(transformers, "Trainer", InOrder)
    monkeypatch.chdir(tmp_path)
    lines = recipe_code(how, "hf", NUM_STEPS, 1)
    here = 'output_dir="out", use_cpu=True, report_to="none", save_strategy="no",'
    lines = lines.replace('output_dir="out",', here)
    exec(lines, {"model": task.new_model(how.seed), "train_dataset": examples})
    each = np.array(losses).reshape(NUM_STEPS, 2).sum(1)
    np.testing.assert_allclose(each, ours(task, how), atol=1e-5, rtol=0)


def test_the_losses_of_lightning_are_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("lightning")
    how, task, losses = tried(micro_batch_size=8), prepared(), []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = task.new_model(how.seed)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = self.inner(**batch).loss
            losses.append(float(loss))
            return loss

    monkeypatch.chdir(tmp_path)
    place: dict[str, Any] = {"Module": Module}
    lines = recipe_code(how, "lightning", NUM_STEPS, 1)
    quiet = (
        'accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,'
    )
    exec(lines.replace("max_steps=NUM_STEPS,", f"max_steps=NUM_STEPS, {quiet}"), place)
    order = DataOrder(how.seed, task.num_train).indices(0, NUM_STEPS * BATCH)
    examples = [example_of(task, int(number)) for number in order]
    loader = DataLoader(examples, batch_size=BATCH, collate_fn=padded)  # type: ignore[arg-type]
    place["trainer"].fit(place["Tuned"](), loader)
    np.testing.assert_allclose(losses, ours(task, how), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"optimizer": "lamb"}, "no lamb"), ({"clip_percentile": 90.0}, "clip_percentile")],
)
def test_what_has_no_words_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(NoCodeError, match=words):
        recipe_code(tried(**changes), "torch", NUM_STEPS, 1)


@pytest.mark.parametrize("strategy", ["ddp", "tp"])
@pytest.mark.parametrize(
    ("form", "micro", "accumulation"),
    [
        ("hf", "train_batch_size=24,", "accumulation_steps=2,"),
        ("lightning", "batch_size is 24.", "accumulate_grad_batches=2,"),
    ],
)
def test_devices_share_the_whole_batch(
    form: Literal["hf", "lightning"], micro: str, accumulation: str, strategy: Any
) -> None:
    """Of 192 examples four devices take 48 each: 32 a forward would leave 64 of them out."""
    how = recipe(192, 1e-3, 40, micro_batch_size=32, strategy=strategy, world_size=4)
    lines = recipe_code(how, form, 40, 4)
    assert micro in lines
    assert accumulation in lines
    with pytest.raises(NoCodeError, match="not a multiple of 5 workers"):
        recipe_code(how, form, 40, 5)
    assert "clip" in recipe_code(how, "torch", 40, 5)


def prepared() -> TextTask:
    task = prepare_task(pronunciation(), EVALUATION)
    assert isinstance(task, TextTask)
    return task


def batches_of(task: TextTask, how: Recipe, size: int) -> list[Any]:
    order = DataOrder(how.seed, task.num_train).indices(0, NUM_STEPS * size)
    examples = [example_of(task, int(number)) for number in order]
    return [padded(examples[start : start + size]) for start in range(0, len(examples), size)]


def ours(task: TextTask, how: Recipe) -> list[float]:
    found: list[float] = []

    def report(measurement: Any, *, at_rung: bool) -> Any:
        if measurement.step_loss is not None:
            found.append(measurement.step_loss)
        return "continue"

    train(task, how, Evaluation(every_steps=1, num_examples=4), Workers(), report)
    return found
