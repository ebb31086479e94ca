"""What a trial runs on."""

from collections.abc import Mapping
from typing import Literal

from scaling.spec.fields import NonNegativeFloat, PositiveFloat, PositiveInt, Section

Strategy = Literal["ddp", "fsdp", "zero1", "zero2", "zero3", "tp"]

ZERO_STAGES: Mapping[str, int] = {"zero1": 1, "zero2": 2, "zero3": 3}
"""Strategies that are DeepSpeed's, and its names for them."""
ZERO_BUCKET_BYTES = 2**26
"""DeepSpeed reduces gradients in pieces of so much, which are copied once more meanwhile."""
CUTTING_ALL_WEIGHTS: frozenset[Strategy] = frozenset({"fsdp", "zero3"})
"""Strategies that leave each worker a share of every weight, to be gathered when it is needed."""

COMPUTING_TOGETHER: frozenset[Strategy] = frozenset({"tp"})
"""Strategies whose workers have every example together, each with a part of the model."""
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class Resources(Section):
    """What one trial runs on."""

    num_workers: PositiveInt | Literal["auto"] = 1
    """Workers per trial, data-parallel except under strategy tp; auto: one, or more where that
    ends the study earlier."""
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat | Literal["auto"] = "auto"
    """GPUs per worker; a fraction shares a GPU and its memory. auto: one where the cluster has any
    GPU and the workload is a model's training, else none."""
    network_interface: str | None = None
    """Network interface by which workers of several machines reach each other, as in eth0; that of
    the address by which Ray knows a machine where left out."""
    micro_batch_size: PositiveInt | Literal["auto"] | None = None
    """Most examples per worker per forward, as long as the batch's longest (of shorter ones there
    may be more); the rest is gradient accumulation. auto: as many as are estimated to fit into a
    worker's memory (and fewer where memory runs out all the same); so too on a GPU where left out.
    A CPU takes smaller parts where that is faster."""
    strategy: Strategy = "ddp"
    """ddp: every worker holds the whole model; fsdp: weights, gradients and optimizer state are cut
    among the workers, for a model that does not fit into one; zero1, zero2, zero3: DeepSpeed cuts
    the optimizer state, the gradients too, the weights too (extra deepspeed); tp: the blocks'
    matrices are cut by the architecture's own plan, and all workers compute every example together
    (no data-parallel workers)."""
    precision: Precision = "fp32"
    """tf32: matrix products of a GPU from Ampere on round their inputs to 10 bits, several times as
    fast as fp32; everything else stays fp32. bf16, fp16: forward and backward under autocast;
    weights and optimizer state stay fp32. fp16 scales the loss; a step whose gradient overflows is
    skipped and counted."""
    activation_checkpointing: bool = False
    """Keep each Transformer block's input alone and compute its activations again in the backward
    pass: about a third more time for a fraction of the memory."""
    compile: bool = False
    """Compile each Transformer block with torch.compile: a minute once, faster steps after."""
    executor: Literal["pool", "per_trial"] = "pool"
    """pool: worker groups live as long as the study; per_trial: one trainer per trial."""
    max_slots: PositiveInt | None = None
    """At most this many trials at once; as many as fit where left out. An autoscaler is
    asked for what so many hold."""
    min_slots: PositiveInt = 1
    """Worker groups that must be ready before the first trial starts; more follow as there is
    room."""
    wait_for_resources_seconds: NonNegativeFloat | None = None
    """How long to wait for CPUs and GPUs that others hold or that are not up yet; left out, 600
    on a cluster that is joined (--address); a machine alone never waits. 0 refuses at once."""

    @property
    def num_gpus(self) -> float:
        """GPUs of a worker; 0 while it is open whether it has one."""
        return 0.0 if self.gpus_per_worker == "auto" else self.gpus_per_worker

    @property
    def shares_gpus(self) -> bool:
        """Whether several workers have one GPU together."""
        return 0 < self.num_gpus < 1

    @property
    def backend(self) -> str:
        """torch.distributed's: NCCL needs a whole GPU for each rank, and gloo does the rest."""
        if not self.num_gpus:
            return "gloo"
        return f"cpu:gloo,cuda:{'gloo' if self.shares_gpus else 'nccl'}"

    def with_gpus(self, num_gpus: float, *, trains: bool) -> "Resources":
        """The same with `gpus_per_worker: auto` decided.

        Args:
            num_gpus: Of the cluster.
            trains: Whether the workload is a model's training.
        """
        if self.gpus_per_worker != "auto":
            return self
        return self.model_copy(update={"gpus_per_worker": float(trains and num_gpus > 0)})

    @property
    def num_parts(self) -> int:
        """Workers that share one copy of the model's matrices and one batch; 1 but under tp."""
        together = self.strategy in COMPUTING_TOGETHER
        return self.num_workers if together and self.num_workers != "auto" else 1


class Checkpoints(Section):
    """How often a running trial is written to the study's storage, from where it can go on."""

    every_seconds: NonNegativeFloat = 60.0
    """Seconds between a trial's checkpoints."""
    keep: PositiveInt = 2
    """Checkpoints of a trial that are kept; those of a trial that has ended are removed."""
