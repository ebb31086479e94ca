"""What guessing by the training data's frequencies gives, whatever the input: the least to beat."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.data.ragged import IntArray
from scaling.tasks.data.rows import Split
from scaling.tasks.task import ExampleLosses, TaskData

IGNORED = -100
HELD_OUT: tuple[Split, ...] = ("validation", "test")
COUNTED_AT_ONCE = 1000  # examples


def describe_baseline(task: TaskData) -> dict[str, Any]:
    """The baseline of a task as plain numbers: losses per target, in the task's unit, and accuracy.

    Returns:
        `baseline`, what it guesses by, and its numbers on the same examples that trials are
        evaluated on, their names beginning with `baseline_`. Empty where a task has none; the
        accuracy is left out where nothing is right or wrong.
    """
    losses = task.baseline_losses()
    if task.baseline is None or not losses:
        return {}
    described: dict[str, Any] = {"baseline": task.baseline}
    for split, of_split in losses.items():
        described[f"baseline_{split}_loss"] = of_split.loss
        described[f"baseline_{split}_loss_stderr"] = of_split.stderr
    accuracy = losses["validation"].accuracy
    return described | ({"baseline_accuracy": accuracy} if np.isfinite(accuracy) else {})


def frequency_losses(
    counts: Mapping[Split, int],
    labels_of: Callable[[Split, IntArray], IntArray],
    *,
    num_values: int,
) -> dict[Split, ExampleLosses]:
    """Losses of predicting every label by how often it is one in the training data.

    Args:
        counts: Examples of each split that are looked at, the first ones: all of `train`, and
            the fixed subsets of the others.
        labels_of: Labels of a split's examples of these numbers, [B, …]; IGNORED where there is
            none.
        num_values: How many values a label can have.

    Returns:
        By split, those but `train`.
    """
    found = np.zeros(num_values, dtype=np.int64)
    for numbers in _some_at_a_time(counts["train"]):
        labels = labels_of("train", numbers)
        found += np.bincount(labels[labels != IGNORED], minlength=num_values)
    log_shares, likeliest = np.log(smoothed_shares(found)), int(found.argmax())
    return {
        split: _losses_of_guess(
            [labels_of(split, numbers) for numbers in _some_at_a_time(count)], log_shares, likeliest
        )
        for split, count in counts.items()
        if split != "train"
    }


def _some_at_a_time(count: int) -> Iterator[IntArray]:
    """The numbers 0…count−1, in parts whose padding takes little memory."""
    for start in range(0, count, COUNTED_AT_ONCE):
        yield np.arange(start, min(start + COUNTED_AT_ONCE, count))


def _losses_of_guess(
    parts: list[IntArray], log_shares: NDArray[np.float64], likeliest: int
) -> ExampleLosses:
    columns: list[tuple[NDArray[np.float64], ...]] = []
    for part in parts:
        labels_bl = part.reshape(len(part), -1)
        counted_bl = labels_bl != IGNORED
        nats_bl = np.where(counted_bl, -log_shares[np.where(counted_bl, labels_bl, 0)], 0.0)
        hits_bl = labels_bl == likeliest
        columns.append(tuple(a.sum(1).astype(np.float64) for a in (nats_bl, counted_bl, hits_bl)))
    nats, num_targets, hits = (np.concatenate(column) for column in zip(*columns, strict=True))
    return ExampleLosses(nats, num_targets, hits)


def smoothed_shares(counts: IntArray) -> NDArray[np.float64]:
    """Shares of values from their counts, each value that occurs counted once more.

    The values that do not occur count as one further value, whose share they have in equal parts:
    a vocabulary of which the data use a small part would else take most of the shares.

    Source: Laplace's rule of succession, where every value occurs.
    """
    occurs = counts > 0
    num_absent = int((~occurs).sum())
    total = counts.sum() + occurs.sum() + (num_absent > 0)
    return np.where(occurs, counts + 1.0, 1.0 / max(num_absent, 1)) / total


def position_losses(
    train: IntArray, evaluated: Mapping[Split, tuple[IntArray, IntArray]]
) -> dict[Split, ExampleLosses]:
    """Losses of predicting a span by how often its ends are at these positions in training.

    The loss of an example is the mean of its two ends' cross entropies over its own positions.

    Args:
        train: [N, 2] positions of the first and the last token of each span.
        evaluated: Spans of each split's fixed subset, likewise, and the [N] lengths of the
            examples they are in.
    """
    size = max(int(train.max()) + 1, *(int(n.max(initial=1)) for _, n in evaluated.values()))
    losses: dict[Split, ExampleLosses] = {}
    for split, (spans, lengths) in evaluated.items():
        nats, hits = np.zeros(len(spans)), np.ones(len(spans), dtype=bool)
        for end in range(2):
            counts = 1 + np.bincount(train[:, end], minlength=size)
            nats += np.log(np.cumsum(counts)[lengths - 1] / counts[spans[:, end]]) / 2
            hits &= spans[:, end] == _likeliest_up_to(counts)[lengths - 1]
        losses[split] = ExampleLosses(nats, np.ones(len(spans)), hits.astype(np.float64))
    return losses


def _likeliest_up_to(counts: IntArray) -> IntArray:
    """[L] the position with the largest count among the first 1, 2, …, L; of equals the first."""
    before = np.concatenate(([-1], np.maximum.accumulate(counts)[:-1]))
    return np.maximum.accumulate(np.where(counts > before, np.arange(len(counts)), 0))
