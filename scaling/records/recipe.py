"""All that determines a trial, and where its values came from."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from scaling.arithmetic.batching import BatchRamp
from scaling.spec.hyperparameters import Given, Origin
from scaling.spec.resources import COMPUTING_TOGETHER, Precision, Strategy


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(Given):
    """What determines training: what a study gives, resolved, and how long the run is.

    Attributes:
        global_batch_size: Examples per optimizer step (of the first ones, where the batch
            grows).
        batch_ramp_at_examples: Where the batch grows by `batch_ramp_factor`, in examples seen;
            empty where it does not. The micro-batch stays and accumulation grows.
        num_steps: Optimizer steps of the whole run; None when the budget is in seconds.
        budget_seconds: Training seconds of the whole run; None for every other budget.
        peak_lr: Learning rate after warmup.
        warmup_steps: Steps of linear warmup.
        clip_norm: Largest norm of the global gradient; None leaves it alone.
        lora_rank: Rank of the adapters; None where all weights are trained.
        branch_from_examples: Of a branch: examples after which its batch is `branch_multiple`
            times as large and its rate `branch_lr_factor` times; None for any other trial.
        schedule_num_steps: Of a branch: steps of the whole run that it branches off, which its
            schedule is that of, by examples.
    """

    global_batch_size: int = field()
    batch_ramp_at_examples: tuple[int, ...] = ()
    peak_lr: float = field()
    warmup_steps: int = 0
    beta2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0
    num_steps: int | None
    budget_seconds: float | None = None
    branch_from_examples: int | None = None
    branch_multiple: int = 1
    branch_lr_factor: float = 1.0
    schedule_num_steps: int | None = None

    @property
    def batch_ramp(self) -> BatchRamp:
        """The size of each step's batch."""
        return BatchRamp(
            self.global_batch_size, self.batch_ramp_at_examples, self.batch_ramp_factor
        )

    @property
    def has_horizon(self) -> bool:
        """Whether a longer run is another run: its schedule knows its length, or its batch grows.

        Else a loss on the way is that of a shorter run, and examples are in proportion to steps.
        """
        return self.schedule not in ("constant", "inverse_sqrt") or bool(
            self.batch_ramp_at_examples
        )


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a batch is cut and computed; the numbers come out alike but for rounding.

    Attributes:
        world_size: Workers of the trial.
        micro_batch_size: Examples per worker per forward; times `grad_accum_steps` and
            `data_parallel_size` it is the global batch.
        activation_checkpointing: Whether each block's activations are computed again in backward.
        compile: Whether each block is compiled.
    """

    world_size: int = 1
    micro_batch_size: int
    grad_accum_steps: int = 1
    strategy: Strategy = "ddp"
    precision: Precision = "fp32"
    activation_checkpointing: bool = False
    compile: bool = False

    @property
    def data_parallel_size(self) -> int:
        """Workers that share a batch; under tp all of them compute the whole of it together."""
        return 1 if self.strategy in COMPUTING_TOGETHER else self.world_size


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trial's training; a checkpoint is of hyperparameters and seed.

    Attributes:
        seed: Of the initial weights, the data order and dropout.
    """

    seed: int
    hyperparameters: Hyperparameters
    layout: Layout
    origin: Origin = field(default_factory=Origin)

    def columns(self) -> dict[str, Any]:
        """Every value of the three parts by its name, as a table of trials has them."""
        parts = (self.hyperparameters, self.layout, self.origin)
        return {"seed": self.seed} | {n: v for part in parts for n, v in asdict(part).items()}


def in_parts(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe as JSON, of one that was written when all values stood in one mapping."""
    parts = {"hyperparameters": Hyperparameters, "layout": Layout, "origin": Origin}
    return {"seed": recipe.get("seed")} | {
        part: {f.name: recipe[f.name] for f in fields(kind) if f.name in recipe}
        for part, kind in parts.items()
    }
