"""Studies with a planted truth, as the records that a real run would leave."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord
from scaling.records.trial import Status, TrialRecord
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec
from tests.recipes import changed, recipe

BATCHES = (16, 64, 256, 1024)
BASE = 64
RECIPE = recipe(
    BASE, 1e-3, 400, seed=0, micro_batch_size=16, warmup_steps=10, clip_norm=1.0, weight_decay=0.0
)


def spec(**changes: Any) -> StudySpec:
    """A study over four batch sizes with all three phases; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "name": "planted",
        "question": "How must the peak learning rate move with the batch?",
        "workload": {
            "task": "causal_lm",
            "model": {
                "architecture": "llama",
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
            },
            "data": {"source": "builtin:grapheme_to_phoneme"},
        },
        "scientific": {"global_batch_size": list(BATCHES)},
        "nuisance": {"peak_lr": {"log_uniform": [1e-5, 1.0]}},
        "budget": {"steps": 400},
        "evaluation": {"every_steps": 40},
        "target": {"at_most": 1.0},
        "search": {"trials_per_cell": 12},
        "transfer": {"base_batch_size": BASE, "rules": ["none", "sqrt", "linear"]},
        "confirm": {"num_seeds": 3},
    }
    return StudySpec.model_validate(
        {k: v for k, v in (sections | changes).items() if v is not None}
    )


@dataclass(frozen=True)
class Truth:
    """What is planted.

    Attributes:
        exponent: Best rate is best_lr × (B / 64)^exponent.
        gap: Test and validation loss minus train loss.
        min_steps: Of the trade-off S = min_steps + min_examples / B.
        min_examples: Of the same.
        noise: Standard deviation of a final loss over trials.
        noise_scale: tr Σ / |G|² in examples.
    """

    exponent: float = 0.5
    best_lr: float = 4e-3
    gap: float = 0.2
    min_steps: float = 40.0
    min_examples: float = 4000.0
    noise: float = 0.005
    noise_scale: float = 100.0

    def optimum(self, batch: int) -> float:
        """The best rate at a batch."""
        return self.best_lr * (batch / BASE) ** self.exponent

    def loss(self, batch: int, lr: float) -> float:
        """Final validation loss; 0.5 with the best rate."""
        return 0.5 + 0.06 * math.log(lr / self.optimum(batch)) ** 2

    def steps_to_target(self, batch: int) -> float:
        """Steps until the loss is 1.0 with the best rate."""
        return self.min_steps + self.min_examples / batch


def trial(
    truth: Truth,
    phase: Phase,
    batch: int,
    lr: float,
    *,
    number: int,
    seed: int = 0,
    rule: str | None = None,
    rng: np.random.Generator,
    status: Status = "done",
    cell: Mapping[str, Any] | None = None,
    choices: Mapping[str, Any] | None = None,
) -> TrialRecord:
    """One trial whose loss falls through 1.0 at the planted step and ends at the planted loss."""
    own = np.random.default_rng([batch, number, len(phase)])
    noise = float(rng.standard_normal()) + 0.3 * float(own.standard_normal())
    final = truth.loss(batch, lr) + truth.noise * noise
    reach = truth.steps_to_target(batch) * (final / truth.loss(batch, truth.optimum(batch)))
    return TrialRecord(
        trial_id=f"{phase}-{batch}-{number}",
        phase=phase,
        cell={"global_batch_size": batch} if cell is None else cell,
        choices={"peak_lr": lr} if choices is None else choices,
        recipe=changed(RECIPE, seed=seed, global_batch_size=batch, peak_lr=lr),
        status=status,
        rule=rule,
        measurements=_measurements(truth, batch, final, reach, own),
    )


def _measurements(
    truth: Truth, batch: int, final: float, reach: float, rng: np.random.Generator
) -> tuple[Measurement, ...]:
    points = (
        [(0.0, 3.0), (reach / 2, math.sqrt(3.0)), (reach, 1.0), (2 * reach, final)]
        if final < 1
        else [(0.0, 3.0), (reach, final)]
    )
    square, trace = np.exp(0.05 * rng.standard_normal(2)) * (0.1, 0.1 * truth.noise_scale)
    return tuple(
        Measurement(
            step=round(step),
            examples=round(step) * batch,
            tokens=round(step) * batch,
            seconds=0.01 * step * (1 + batch / 256),
            validation_loss=loss,
            validation_loss_stderr=0.004,
            test_loss=loss + 0.01,
            test_loss_stderr=0.004,
            train_loss=loss + 0.01 - truth.gap,
            train_loss_stderr=0.003,
            grad_sq_norm=float(square),
            grad_covariance_trace=float(trace),
            sharpness=0.5 + 0.1 * math.log(batch),
            hessian_top_eigenvalue=2.0 + 0.1 * math.log(batch),
        )
        for step, loss in points
    )  # fmt: skip


def search(
    truth: Truth, rng: np.random.Generator, *, trials: int = 12, batches: Sequence[int] = BATCHES
) -> list[TrialRecord]:
    """A search with evenly spread, jittered rates; a rate far above the best one diverges."""
    records: list[TrialRecord] = []
    for batch in batches:
        for index in range(trials):
            share = (index + float(rng.random())) / trials
            lr = 10 ** (-4.5 + 4.0 * share)
            status: Status = "diverged" if lr > 30 * truth.optimum(batch) else "done"
            records.append(trial(truth, "search", batch, lr, number=index, rng=rng, status=status))
    return records


def study(
    truth: Truth | None = None, *, seed: int = 0, num_seeds: int = 3, **changes: Any
) -> StudyRecord:
    """A whole study: search, transfer by three rules, confirm with paired seeds."""
    truth = truth or Truth()
    rng = np.random.default_rng(seed)
    records = search(truth, rng)
    for batch in BATCHES:
        for replicate in range(num_seeds):
            shared = np.random.default_rng([seed, replicate])
            records.append(
                trial(
                    truth, "confirm", batch, truth.optimum(batch),
                    number=replicate, seed=100 + replicate, rng=shared,
                )
            )  # fmt: skip
    records += _transfer(truth, seed, num_seeds)
    environment = {"python": "3.11", "commit": "0123abc", "device": "2 CPU cores"}
    urls = {r.trial_id: f"http://localhost:5000/#/runs/{r.trial_id}" for r in records}
    return StudyRecord(spec(**changes), tuple(records), environment, urls)


def _transfer(truth: Truth, seed: int, num_seeds: int) -> list[TrialRecord]:
    rules: dict[str, Callable[[float], float]] = {
        "none": lambda _: 1.0,
        "sqrt": math.sqrt,
        "linear": lambda kappa: kappa,
    }
    records: list[TrialRecord] = []
    for place, (rule, factor) in enumerate(rules.items()):
        for batch in (size for size in BATCHES if size != BASE):
            for replicate in range(num_seeds):
                shared = np.random.default_rng([seed, replicate])
                lr = truth.optimum(BASE) * factor(batch / BASE)
                diverged = rule == "linear" and batch == max(BATCHES)
                records.append(
                    trial(
                        truth, "transfer", batch, lr,
                        number=10 * place + replicate, seed=100 + replicate, rng=shared,
                        rule=rule, status="diverged" if diverged else "done",
                    )
                )  # fmt: skip
    return records


def joint_study(seed: int = 0, trials: int = 30) -> StudyRecord:
    """A joint search: no scientific axis, the batch is searched with the rest."""
    rng = np.random.default_rng(seed)
    truth = Truth()
    nuisance = {
        "global_batch_size": {"choice": list(BATCHES)},
        "base_lr": {"log_uniform": [1e-4, 1e-1]},
        "lr_scaling_rule": {"choice": ["linear", "sqrt"]},
        "clip_norm": {"choice": [None, 1.0]},
    }
    records: list[TrialRecord] = []
    for index in range(trials):
        batch = int(rng.choice(BATCHES))
        base_lr = 10 ** (-4 + 3 * float(rng.random()))
        choices = {
            "global_batch_size": batch,
            "base_lr": base_lr,
            "lr_scaling_rule": str(rng.choice(["linear", "sqrt"])),
            "clip_norm": None if rng.random() < 0.5 else 1.0,
        }
        lr = base_lr * (batch / BASE) ** (1.0 if choices["lr_scaling_rule"] == "linear" else 0.5)
        records.append(
            trial(truth, "search", batch, lr, number=index, rng=rng, cell={}, choices=choices)
        )
    sections = {"scientific": None, "transfer": None, "confirm": None, "nuisance": nuisance}
    fixed = {"base_batch_size": BASE}
    return StudyRecord(spec(name="joint", fixed=fixed, **sections), tuple(records))
