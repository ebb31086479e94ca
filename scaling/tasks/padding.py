"""How far batches are padded, and vocabularies: a GPU's tensor cores compute in whole tiles."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

LENGTH_MULTIPLE = 8  # of a batch's length on a GPU: the rows of a tile of 16-bit numbers
VOCABULARY_MULTIPLE = 64
SMALL_VOCABULARY = 1024


def padded_length(length: int, multiple: int, *, at_most: int) -> int:
    """The next multiple, or the length itself where that is more than the model may read."""
    found = -(-length // multiple) * multiple
    return found if found <= at_most else length


def padded_vocabulary(num_ids: int) -> int:
    """Rows of the embedding and of the head of a model from scratch, so many of them in use.

    The same on every device, since a model's first weights depend on it: a study is the same on a
    laptop and on a GPU. Small vocabularies, as of characters, are left alone: their products are
    small, and up to 63 rows of no use would be a good part of them.

    Source: Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3, who pad for the same reason.
    """
    if num_ids < SMALL_VOCABULARY:
        return num_ids
    return -(-num_ids // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def pad_batch(
    batch: dict[str, Tensor],
    multiple: int,
    *,
    fills: Mapping[str, int],
    at_most: int,
    needs_mask: bool,
) -> dict[str, Tensor]:
    """A batch of tokens whose lengths are multiples, with nothing more to predict in it.

    Args:
        batch: As `Examples.batch` makes it; entries that are not [B, L], or have no fill, stay.
        multiple: Of which.
        fills: What stands beyond an example's end in each entry.
        at_most: What the model may read.
        needs_mask: Whether the model sees what stands on the right unless a mask hides it.
    """
    padded = dict(batch)
    if needs_mask and "attention_mask" not in batch:
        padded["attention_mask"] = batch["input_ids"].new_ones(batch["input_ids"].shape)
    for name, fill in fills.items():
        entry = padded.get(name)
        if entry is not None and entry.ndim == 2:
            more = padded_length(entry.shape[1], multiple, at_most=at_most) - entry.shape[1]
            padded[name] = functional.pad(entry, (0, more), value=fill)
    hides_nothing = padded["input_ids"].shape == batch["input_ids"].shape
    return batch if hides_nothing and len(padded) > len(batch) else padded
