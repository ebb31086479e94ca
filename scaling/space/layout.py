"""How the batch of a trial is cut among workers and forwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaling.arithmetic.batching import BatchSplit, split_batch
from scaling.records.metrics import Metric
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class Facts:
    """What a recipe needs to know beside the study file.

    Attributes:
        num_train: Training examples; None for an endless stream.
        tokens_per_example: Mean number of input tokens of a training example, padding not
            counted; None where there are none, or where nobody needs to know.
        world_sizes: Workers of a trial by global batch size, where `resources.num_workers` is
            auto; one where a batch size is not listed.
        largest_micro_batch_size: What fits a worker, where `resources.micro_batch_size` is auto;
            None for no bound.
        cell_places: Of a study that was extended: see `scaling.space.cells.cell_seed`.
        metrics: What the task says of its metrics, as which way each should go.
        scale: What makes a size of a ladder large, as in {"num_parameters": 1e6, "num_tokens":
            2e7}.
        sizes: The facts of each size of a ladder, in the order of the file.
        predicted: The scale of each size that a ladder is asked to predict.
    """

    num_train: int | None
    tokens_per_example: float | None
    world_sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    largest_micro_batch_size: int | None = None
    cell_places: Mapping[str, int] = field(default_factory=dict[str, int])
    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])
    scale: Mapping[str, float] = field(default_factory=dict[str, float])
    sizes: tuple["Facts", ...] = ()
    predicted: tuple[Mapping[str, float], ...] = ()

    def at(self, spec: StudySpec, cell: Mapping[str, Any]) -> "Facts":
        """Those of the size that a cell of a ladder belongs to; these without a ladder."""
        return self.sizes[spec.size_of(cell)] if self.sizes else self


def world_size_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> int:
    """Workers of a trial at a batch size."""
    num_workers = spec.resources.num_workers
    return facts.world_sizes.get(global_batch_size, 1) if num_workers == "auto" else num_workers


def data_parallel_size_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> int:
    """Workers that share a trial's batch; under tp all compute the whole of it together."""
    return world_size_of(spec, global_batch_size, facts) // spec.resources.num_parts


def split_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> BatchSplit:
    """How a trial's global batch is spread over its workers and their forwards.

    Raises:
        ValueError: If the workers cannot have equal shares.
    """
    bound = spec.resources.micro_batch_size
    return split_batch(
        global_batch_size,
        world_size=data_parallel_size_of(spec, global_batch_size, facts),
        micro_batch_size=facts.largest_micro_batch_size if bound == "auto" else bound,
    )
