"""The recommended recipe as lines to paste into a training script of one's own."""

import math
from typing import Literal, assert_never

from scaling.analysis.findings import Findings
from scaling.arithmetic.batching import BatchSplit, split_batch
from scaling.records.recipe import Hyperparameters, Recipe
from scaling.report.words.recipe_form import Form
from scaling.report.words.recipe_yaml import recipe_yaml

_TORCH_OPTIMIZERS = ("adamw", "sgd")
_OPTIMIZER = '''\
import math

import torch


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Weight decay on matrices only."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {{"params": [w for w in trained if w.ndim >= 2], "weight_decay": {weight_decay!r}}},
        {{"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0}},
    ]
    return torch.optim.{optimizer}


def rate_of_step(step: int) -> float:
    """The learning rate of a step, from 0, over {peak_lr!r}."""
{schedule}

NUM_STEPS = {num_steps}  # until the target or the end of the budget, with a margin
GLOBAL_BATCH_SIZE = {batch}  # examples per step
'''
_SCHEDULES = {
    "constant": "    return 1.0\n",
    "linear": "    share = (step - {warmup}) / max(NUM_STEPS - {warmup}, 1)\n"
    "    return {floor!r} + {rest!r} * (1 - share)\n",
    "cosine": "    share = (step - {warmup}) / max(NUM_STEPS - {warmup}, 1)\n"
    "    return {floor!r} + {rest!r} * 0.5 * (1 + math.cos(math.pi * share))\n",
    "inverse_sqrt": "    return math.sqrt({root} / max(step, {root}))\n",
}
_TORCH = """
optimizer = make_optimizer(model)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of_step)
# Each of NUM_STEPS steps, after the gradient of the mean loss over GLOBAL_BATCH_SIZE examples:
#     {clip}
#     optimizer.step(); scheduler.step(); optimizer.zero_grad()
"""
_HF = """
from transformers import Trainer, TrainingArguments

arguments = TrainingArguments(
    output_dir="out",
    max_steps=NUM_STEPS,
    per_device_train_batch_size={micro},
    gradient_accumulation_steps={accumulation},  # on {workers} device{s}
    max_grad_norm={clip_norm!r},
    bf16={bf16},
    fp16={fp16},
    seed={seed},
)
optimizer = make_optimizer(model)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of_step)
trainer = Trainer(model, arguments, train_dataset=train_dataset, optimizers=(optimizer, scheduler))
trainer.train()
"""
_LIGHTNING = '''
import lightning


class Tuned(Module):  # your LightningModule
    """With the optimizer and schedule of the recipe."""

    def configure_optimizers(self):
        optimizer = make_optimizer(self)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate_of_step)
        return [optimizer], [{{"scheduler": scheduler, "interval": "step"}}]


# The dataloader's batch_size is {micro}.
trainer = lightning.Trainer(
    max_steps=NUM_STEPS,
    accumulate_grad_batches={accumulation},
    devices={workers},
    gradient_clip_val={clip_norm},
    precision="{precision}",
)
'''


class NoCodeError(ValueError):
    """The recipe cannot be written in this form; says why in one line."""


def recommended_code(findings: Findings, form: Form) -> str:
    """The recommended recipe, ready to paste; of a ladder, its first prediction's.

    Raises:
        NoCodeError: If nothing is recommended, the recipe is not known, as of a table from
            elsewhere, or it has a part that the form has no words for.
    """
    recipe, steps, num_workers = _recommended(findings)
    yaml = recipe_yaml(recipe, steps=steps, num_workers=num_workers)
    if yaml is None or recipe is None or steps is None:
        raise NoCodeError("--as: there is no recommended recipe whose every value is known")
    if form == "yaml":
        return yaml
    return recipe_code(recipe, form, max(1, math.ceil(steps)), num_workers or 1)


def _recommended(findings: Findings) -> tuple[Recipe | None, float | None, int | None]:
    """The recipe, its steps and its workers, each None where it is not known."""
    if findings.ladder is not None:
        recipe = findings.carried[0].recipe if findings.carried else None
        return recipe, recipe and recipe.hyperparameters.num_steps, None
    trial, option = findings.recommendation.trial, findings.recommendation.option
    if trial is None or option is None:
        return None, None, None
    return trial.recipe, option.steps.value, option.num_workers


def recipe_code(
    recipe: Recipe, form: Literal["torch", "hf", "lightning"], num_steps: int, num_workers: int
) -> str:
    """A recipe's optimizer, schedule, clipping and batch as lines of Python.

    Raises:
        NoCodeError: If it has a part that the form has no words for.
    """
    given, layout = recipe.hyperparameters, recipe.layout
    _require_words(given)
    head = _left_out(given) + _OPTIMIZER.format(
        weight_decay=given.weight_decay, optimizer=_optimizer(given), peak_lr=given.peak_lr,
        schedule=_schedule(given), num_steps=num_steps, batch=given.global_batch_size,
    )  # fmt: skip
    if layout.precision == "tf32":
        head += '\ntorch.set_float32_matmul_precision("high")\n'
    norm = given.clip_norm
    if form == "torch":
        clip = f"torch.nn.utils.clip_grad_norm_(model.parameters(), {norm!r})"
        return head + _TORCH.format(clip=clip if norm is not None else "(no clipping)")
    split = _split(recipe, num_workers)
    words = {
        "micro": split.micro_batch_size,
        "accumulation": split.grad_accum_steps,
        "workers": num_workers,
        "s": "s" * (num_workers > 1),
        "seed": recipe.seed,
        "bf16": layout.precision == "bf16",
        "fp16": layout.precision == "fp16",
    }
    match form:
        case "hf":
            return head + _HF.format(clip_norm=norm if norm is not None else 0.0, **words)
        case "lightning":
            precisions = {"bf16": "bf16-mixed", "fp16": "16-mixed"}
            precision = precisions.get(layout.precision, "32-true")
            return head + _LIGHTNING.format(clip_norm=norm, precision=precision, **words)
        case _:
            assert_never(form)


def _split(recipe: Recipe, num_workers: int) -> BatchSplit:
    """The batch over devices that each compute a share of it, whatever the study's strategy."""
    size, bound = recipe.hyperparameters.global_batch_size, recipe.layout.micro_batch_size
    try:
        return split_batch(size, world_size=num_workers, micro_batch_size=bound)
    except ValueError as error:
        raise NoCodeError(f"--as: {error}; take --as torch or yaml") from error


def _require_words(given: Hyperparameters) -> None:
    if given.optimizer == "module":
        raise NoCodeError(
            "--as: the optimizer is what the module's configure_optimizers returns; take --as yaml"
        )
    if given.optimizer not in _TORCH_OPTIMIZERS:
        raise NoCodeError(f"--as: torch has no {given.optimizer} as we train it; take --as yaml")
    if given.schedule not in _SCHEDULES:
        raise NoCodeError(f"--as: schedule {given.schedule} is written by --as yaml alone")
    for name in ("clip_value", "clip_percentile", "lora_rank"):
        if getattr(given, name) is not None:
            raise NoCodeError(f"--as: {name} is written by --as yaml alone")
    if given.batch_ramp_at_examples:
        raise NoCodeError("--as: a batch that grows is written by --as yaml alone")


def _left_out(given: Hyperparameters) -> str:
    """Comments on what the losses were measured with and the lines do not do."""
    lines = ""
    if given.weight_average_half_life_examples is not None:
        lines += (
            "# The study evaluated an exponential average of the weights, with a half-life of "
            f"{given.weight_average_half_life_examples:g}\n# examples; these lines do not.\n"
        )
    if given.label_smoothing:
        lines += f"# Give the loss label_smoothing={given.label_smoothing!r}.\n"
    return lines


def _optimizer(given: Hyperparameters) -> str:
    if given.optimizer == "sgd":
        return (
            f"SGD(groups, lr={given.peak_lr!r}, momentum={given.momentum!r}, "
            f"nesterov={given.nesterov!r})"
        )
    betas = (given.beta1, given.beta2)
    return f"AdamW(groups, lr={given.peak_lr!r}, betas={betas!r}, eps={given.eps!r})"


def _schedule(given: Hyperparameters) -> str:
    warmup = given.warmup_steps
    lines = f"    if step < {warmup}:\n        return (step + 1) / {warmup}\n" if warmup else ""
    return lines + _SCHEDULES[given.schedule].format(
        warmup=warmup, floor=given.min_lr_ratio, rest=1 - given.min_lr_ratio, root=max(warmup, 1)
    )
