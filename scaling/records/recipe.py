"""All that determines a trial."""

from dataclasses import dataclass

from scaling.arithmetic.batching import BatchRamp
from scaling.spec.resources import Precision, Strategy


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a trial's training, resolved; no choice is left open.

    Attributes:
        seed: Of the initial weights, the data order and dropout.
        global_batch_size: Examples per optimizer step (of the first ones, where the batch
            grows), `micro_batch_size × grad_accum_steps × data_parallel_size`.
        batch_ramp_at_examples: Where the batch grows by `batch_ramp_factor`, in examples seen;
            empty where it does not. The micro-batch stays and accumulation grows.
        num_steps: Optimizer steps of the whole run; None when the budget is in seconds.
        budget_seconds: Training seconds of the whole run; None for every other budget.
        peak_lr: Learning rate after warmup.
        warmup_steps: Steps of linear warmup.
        clip_norm: Largest norm of the global gradient; None leaves it alone.
        lora_rank: Rank of the adapters; None where all weights are trained.
        activation_checkpointing: Whether each block's activations are computed again in backward.
        compile: Whether each block is compiled.
        branch_from_examples: Of a branch: examples after which its batch is `branch_multiple`
            times as large and its rate `branch_lr_factor` times; None for any other trial.
        schedule_num_steps: Of a branch: steps of the whole run that it branches off, which its
            schedule is that of, by examples.
    """

    seed: int
    global_batch_size: int
    micro_batch_size: int
    grad_accum_steps: int
    world_size: int
    batch_ramp_at_examples: tuple[int, ...]
    batch_ramp_factor: int
    num_steps: int | None
    budget_seconds: float | None
    peak_lr: float
    base_lr: float | None
    base_batch_size: int | None
    lr_scaling_rule: str
    beta2_scaling: str
    weight_decay_scaling: str
    warmup_scaling: str
    warmup_steps: int
    warmup_ratio: float | None
    warmup_examples: int | None
    schedule: str
    decay_ratio: float
    decay_shape: str
    min_lr_ratio: float
    optimizer: str
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    momentum: float
    nesterov: bool
    clip_norm: float | None
    clip_value: float | None
    clip_percentile: float | None
    clip_history_steps: int
    dropout: float | None
    label_smoothing: float
    weight_average_half_life_examples: float | None
    strategy: Strategy
    precision: Precision
    activation_checkpointing: bool = False
    compile: bool = False
    lora_rank: int | None = None
    branch_from_examples: int | None = None
    branch_multiple: int = 1
    branch_lr_factor: float = 1.0
    schedule_num_steps: int | None = None

    @property
    def data_parallel_size(self) -> int:
        """Workers that share a batch; under tp all of them compute the whole of it together."""
        return 1 if self.strategy == "tp" else self.world_size

    @property
    def batch_ramp(self) -> BatchRamp:
        """The size of each step's batch."""
        return BatchRamp(
            self.global_batch_size, self.batch_ramp_at_examples, self.batch_ramp_factor
        )
