"""A module of the user's own as a task."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils.data import default_collate

from scaling.records.metrics import Metric, Unit
from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import OwnCode
from scaling.tasks.batch import at_least_float32, on_device
from scaling.tasks.data.overview import DataSummary
from scaling.tasks.data.ragged import by_length
from scaling.tasks.data.rows import Split
from scaling.tasks.errors import DataError
from scaling.tasks.model.kept import save_weights
from scaling.tasks.own.calling import own_code
from scaling.tasks.own.code import code_of, code_sha256
from scaling.tasks.own.contract import CustomTask
from scaling.tasks.own.metrics import declared_numbers, own_metrics
from scaling.tasks.own.reading import (
    digest_of,
    digest_of_split,
    fixed_chance,
    is_random,
    read,
    seeds_of,
    spread,
)
from scaling.tasks.task import ExampleLosses, Indices

NUM_SAMPLED = 64
"""Training examples whose targets are counted for the mean."""
NUM_MEASURED = 1000
"""Training examples whose lengths are taken for the mean."""
NUM_COLLATED = 8
"""Training examples that are collated twice, to see whether that is at random."""
EVALUATED_AT_ONCE = 128
SUBSET_SEED = 0
Collate = Callable[[list[Any]], Any]


class LossModule(nn.Module):
    """A module whose forward pass is a user's loss, so that a strategy sees all of it as one.

    Attributes:
        stays_in_evaluation: Parts that are in evaluation mode in training too; see `keeps_modes`
            of `ModuleTask`.
    """

    def __init__(self, module: nn.Module, losses: Any, *, keeps_modes: bool) -> None:
        super().__init__()
        self.module = module
        self._losses = losses
        left = [part for part in module.modules() if not part.training]
        if not keeps_modes:
            left = [inner for part in left if _is_frozen(part) for inner in part.modules()]
        self.stays_in_evaluation = [part for part in left if not part.training]

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for what stays in evaluation; or evaluation mode."""
        super().train(mode)
        for part in self.stays_in_evaluation:
            part.training = False
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The same on a device; a module that notes its device does so where it is told itself."""
        self.module.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def forward(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Losses and numbers of targets of a batch's examples, [N] each."""
        return self._losses(self.module, batch)

    def configure_optimizers(self) -> Any:
        """What the module configures itself; a LightningModule has such a method."""
        module: Any = self.module
        return module.configure_optimizers()


def _is_frozen(part: nn.Module) -> bool:
    """Whether a part has weights and none is trained."""
    weights = list(part.parameters())
    return bool(weights) and not any(weight.requires_grad for weight in weights)


class ModuleTask:
    """See `scaling.tasks.task.Task` and `ScoringTask`.

    Args:
        own: What the user brings.
        path: The field of the study file that names it.
        num_examples: Most examples of a split's fixed subset, which is drawn once.
        code_sha256: Of the user's Python files.
        accepts_inexact: Whether a loss is trained on all the same that depends on how a batch is
            cut.
        collates: Of splits that have another collation than the user's one.
        metrics: What is said of the metrics; by the user's own where left out.
        by_mean: Whether the losses of a batch's examples are its mean, so that they are evaluated
            one by one.
        keeps_modes: Whether all parts that `model(seed)` leaves in evaluation mode stay in it, as
            under Lightning's Trainer; else only those whose weights are all frozen.
        notes: What the report says of how it is trained.
        optimizer_note: What it says of the module's own optimizer; empty where there is none.
    """

    targets_known_ahead = False
    num_models = 1
    baseline = None
    num_dropped = 0
    loss_unit: Unit = ""  # the loss is the user's
    token_model = None

    def __init__(
        self,
        own: CustomTask,
        *,
        path: str,
        num_examples: int,
        code_sha256: str,
        accepts_inexact: bool = False,
        collates: Mapping[Split, Collate] | None = None,
        metrics: Mapping[str, Metric] | None = None,
        by_mean: bool = False,
        keeps_modes: bool = False,
        notes: tuple[str, ...] = (),
        optimizer_note: str = "",
    ) -> None:
        self.own, self.path, self.accepts_inexact = own, path, accepts_inexact
        self.by_mean, self._notes, self.optimizer_note = by_mean, notes, optimizer_note
        self._keeps_modes, self._collates = keeps_modes, dict(collates or {})
        if metrics is None:
            metrics = own_metrics(own.directions or {}, own.ranges, path)
        self.described_metrics = metrics
        self.splits: tuple[Split, ...] = tuple(own.splits)
        self._num_examples = num_examples
        self._changes = {split: is_random(examples) for split, examples in own.splits.items()}
        self._counts: dict[bytes, NDArray[np.float64]] = {}  # by the numbers in a micro-batch
        self._uncounted: list[tuple[Indices, Tensor]] = []
        self._lengths: NDArray[np.int64] = np.full(len(own.train), -1)
        digest = sha256(code_sha256.encode())
        for examples in own.splits.values():
            digest.update(digest_of_split(examples))
        self.content_hash = digest.hexdigest()
        self.waived: tuple[str, ...] = ()

    # --- data -----------------------------------------------------------------------------------

    @property
    def num_train(self) -> int:
        """Training examples."""
        return len(self.own.train)

    @cached_property
    def targets_per_example(self) -> float:
        """Mean number of targets of training examples spread over all of them."""
        numbers = np.array(spread(self.num_train, at_most=NUM_SAMPLED))
        model = self.new_model(0).eval()
        with torch.no_grad(), fixed_chance(0):
            _, counts = model(self.collate(numbers, 0)["batch"])
        return float(counts.double().mean())

    @cached_property
    def tokens_per_example(self) -> float | None:
        """Mean length of training examples; None where they have none."""
        if self.own.length is None:
            return None
        return float(self.lengths(np.array(spread(self.num_train, at_most=NUM_MEASURED))).mean())

    @property
    def data_summary(self) -> DataSummary:
        """What is to be known of examples whose form is the user's own."""
        changing = [split for split, changes in self._changes.items() if changes]
        notes = [
            f"Examples of {split} are changed at random as they are read: "
            + (
                "anew in each epoch, by the trial's seed."
                if split == "train"
                else "they are evaluated as they come out with one seed each."
            )
            for split in changing
        ]
        own = self._notes + ((self.optimizer_note,) if self.optimizer_note else ())
        return DataSummary((), (*own, *notes), self.waived, own)

    def num_tokens(self, indices: Indices) -> int:
        """Sum of these training examples' lengths; 0 where they have none."""
        return 0 if self.own.length is None else int(self.lengths(indices).sum())

    def lengths(self, indices: Indices) -> Indices:
        """[B] length of each of these training examples; 1 where they have none."""
        if self.own.length is None:
            return np.ones_like(indices)
        indices = indices % self.num_train
        unknown = np.unique(indices[self._lengths[indices] < 0])
        for number, example in zip(unknown, self._read_alike("train", unknown), strict=True):
            self._lengths[number] = self.own.length(example)
        return self._lengths[indices]

    @cached_property
    def draws_examples(self) -> bool:
        """Whether training examples, or batches of them, are changed at random."""
        few, digests = np.arange(min(NUM_COLLATED, self.num_train)), set[bytes]()
        for seed in (0, 1):
            with fixed_chance(seed):
                digests.add(digest_of(self.collated_alike("train", few)))
        return self._changes["train"] or len(digests) > 1

    def collate(self, indices: Indices, seed: int) -> Any:
        """These training examples as a batch, with their numbers.

        Args:
            indices: Numbers of examples, plus `num_train` for each epoch before where they change
                at random: an example comes out as this and the seed say, however a batch is cut.
            seed: The trial's.
        """
        numbers = indices % self.num_train
        seeds = seeds_of(seed, indices) if self._changes["train"] else None
        examples = read(self.own.train, numbers, seeds=seeds)
        return {"numbers": indices, "batch": self._collate_of("train")(examples)}

    def collated_alike(self, split: Split, numbers: Indices) -> Any:
        """These examples as a batch, the same each time, without their numbers."""
        return self._collate_of(split)(self._read_alike(split, numbers))

    def _collate_of(self, split: Split) -> Collate:
        return self._collates.get(split) or self.own.collate or default_collate

    def _read_alike(self, split: Split, numbers: Indices) -> list[Any]:
        return read(
            self.own.splits[split], numbers, seeds=numbers if self._changes[split] else None
        )

    # --- model and loss -------------------------------------------------------------------------

    def new_model(
        self,
        seed: int,
        *,
        dropout: float | None = None,  # noqa: ARG002
        lora_rank: int | None = None,  # noqa: ARG002
    ) -> nn.Module:
        """The user's module with the weights that this seed starts from, and its loss."""
        with fixed_chance(seed):
            module = self.own.model(seed)
        if not isinstance(module, nn.Module):
            raise TypeError(f"model(seed) returned a {type(module).__name__}, not an nn.Module")
        for name, values in itertools.chain(module.named_parameters(), module.named_buffers()):
            if is_lazy(values):
                raise DataError(
                    self.path, f"{name} of {type(module).__name__} has no shape yet (a lazy "
                    "layer); give the layer its size, or call the module once on an example when "
                    "you build it",
                )  # fmt: skip
        return LossModule(module, self.own.losses, keeps_modes=self._keeps_modes).train()

    def loss_sum(
        self,
        model: nn.Module,
        batch: Any,
        *,
        label_smoothing: float = 0.0,  # noqa: ARG002  # the loss is the user's
    ) -> Tensor:
        """Training loss summed over the batch's targets; shape []."""
        losses, counts = model(batch["batch"])
        num_examples = len(batch["numbers"])
        if losses.shape != (num_examples,) or counts.shape != (num_examples,):
            raise ValueError(
                f"losses returned shapes {list(losses.shape)} and {list(counts.shape)} for "
                f"{num_examples} examples; each must be [{num_examples}]"
            )
        if not isinstance(counts, FakeTensor):
            self._uncounted.append((batch["numbers"], counts.detach()))
            if len(self._uncounted) > EVALUATED_AT_ONCE:
                self._count()
        return at_least_float32(losses).sum()

    def begin_batch(self) -> None:
        """Forget the counts of micro-batches of the global batch before."""
        self._uncounted.clear()
        self._counts.clear()

    def num_targets(self, indices: Indices) -> int:
        """Targets in a micro-batch whose loss this process has computed."""
        return round(float(self.targets_of_each(indices).sum()))

    def targets_of_each(self, indices: Indices) -> NDArray[np.float64]:
        """[B] targets of each example of such a micro-batch.

        An example may be in two of them, and has another share of a mean's targets in each.
        """
        self._count()
        return self._counts[indices.tobytes()]

    def _count(self) -> None:
        for numbers, counts in self._uncounted:
            self._counts[numbers.tobytes()] = counts.double().cpu().numpy()
        self._uncounted.clear()

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write the weights of the user's own module as `weights.pt`."""
        assert isinstance(model, LossModule)
        save_weights(model.module, folder)

    # --- evaluation -----------------------------------------------------------------------------

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """None: what could be guessed is not known."""
        return {}

    def num_evaluated(self, split: Split) -> int:
        """Examples in a split's fixed subset."""
        return min(len(self.own.splits[split]), self._num_examples)

    def _subset(self, split: Split) -> Indices:
        """Numbers of a split's fixed subset."""
        return _drawn(len(self.own.splits[split]), self._num_examples)

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single examples of the fixed subset."""
        numbers = self._subset(split)[part]
        losses, counts = np.zeros(len(numbers)), np.zeros(len(numbers))
        at_once = 1 if self.by_mean else EVALUATED_AT_ONCE
        for group in by_length(self._evaluated_lengths(split, numbers), at_once):
            batch = self.collated_alike(split, numbers[group])
            found = model(on_device(batch, device))
            losses[group], counts[group] = (values.double().cpu().numpy() for values in found)
        return ExampleLosses(losses, counts, np.zeros(len(numbers)))

    def _evaluated_lengths(self, split: Split, numbers: Indices) -> Indices:
        """Lengths by which examples are put together."""
        if self.own.length is None:
            return np.ones_like(numbers)
        if split == "train":
            return self.lengths(numbers)
        return np.array([self.own.length(example) for example in self._read_alike(split, numbers)])

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:  # noqa: ARG002
        """None that losses alone give; see `score`."""
        return {}

    def score(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The user's metrics on the validation subset; the model is in eval mode."""
        return self.score_of(model, self._subset("validation"), device)

    def score_of(
        self, model: nn.Module, numbers: Indices, device: torch.device
    ) -> dict[str, float]:
        """The user's metrics on some validation examples.

        Raises:
            ValueError: If there is no number for one of them, or one outside its range.
        """
        if self.own.metrics is None:
            return {}
        assert isinstance(model, LossModule)
        found = self.own.metrics(model.module, _Batches(self, numbers, device))
        return declared_numbers(found, self.described_metrics, "metrics")


@cache
def _drawn(count: int, at_most: int) -> Indices:
    """All numbers below `count`, or so many of them, drawn once and in order."""
    if count <= at_most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(count)[:at_most])


class _Batches:
    """The validation examples of some numbers as collated batches, each time it is gone through."""

    def __init__(self, task: ModuleTask, numbers: Indices, device: torch.device) -> None:
        starts = range(0, len(numbers), EVALUATED_AT_ONCE)
        self._parts = [numbers[start : start + EVALUATED_AT_ONCE] for start in starts]
        self._task, self._device = task, device

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Any]:
        for part in self._parts:
            yield on_device(self._task.collated_alike("validation", part), self._device)


def module_task(
    own: CustomTask, workload: OwnCode, evaluation: Evaluation, path: str, **how: Any
) -> ModuleTask:
    """The task of what a user brings, by a section of the study file.

    Args:
        own: Whose fields are of the kinds that they must be.
        workload: The section.
        evaluation: On how many examples.
        path: The section's field that names the code.
        how: Further arguments of `ModuleTask`.

    Raises:
        DataError: If a split is empty, or examples cannot be read.
    """
    for split, examples in own.splits.items():
        with own_code(path, f"len of {split}"):
            count = len(examples)
        if count == 0:
            raise DataError(path, f"{split} has no examples")
    with own_code(path, "reading examples"):
        return ModuleTask(
            own, path=path, num_examples=evaluation.num_examples,
            code_sha256=code_sha256(code_of(workload)),
            accepts_inexact=workload.exactness == "waived", **how,
        )  # fmt: skip
