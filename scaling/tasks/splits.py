"""Train, validation and test, so that no text is on two sides.

A row's side depends on a hash of its text alone: not on a seed, the order of the file or what
else is in it, so two studies of the same data hold out the same texts.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling.spec import DataSpec
from scaling.tasks.sources import SPLITS, DataError, Row, Split

DEFAULT_HELD_OUT_RATIO = 0.1
DEFAULT_MAX_HELD_OUT = 2000


@dataclass(frozen=True)
class SplitRows:
    """Rows by split, in an order that depends on their texts alone.

    Attributes:
        num_dropped: Rows left out because their text is also in a split that comes earlier in
            test, validation, train.
    """

    rows: Mapping[Split, tuple[Row, ...]]
    num_dropped: int

    @property
    def content_hash(self) -> str:
        """SHA-256 over every split's rows, in order."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for row in self.rows[split]:
                digest.update(repr((split, row.prompt, row.text, row.label)).encode())
                if row.tags or row.answers:
                    digest.update(repr((row.tags, row.answers)).encode())
        return digest.hexdigest()


def split_rows(raw: Mapping[Split, Sequence[Row]], data: DataSpec) -> SplitRows:
    """Hold out validation and test where the source does not, and drop what overlaps.

    Raises:
        DataError: If a split would be empty or there are fewer rows than asked for.
    """
    taken: set[str] = set()
    rows: dict[Split, tuple[Row, ...]] = {}
    num_dropped = 0
    pool = _by_content(raw["train"])
    for split in ("test", "validation"):
        wanted: int | None = getattr(data, f"num_{split}")
        if split in raw:
            given = _by_content(raw[split])
            kept = [row for row in given if row.key not in taken]
            num_dropped += len(given) - len(kept)
            rows[split] = _first(split, kept, wanted)
        else:
            rows[split] = _hold_out(split, pool, taken, wanted)
        taken |= {row.key for row in rows[split]}
    train = [row for row in pool if row.key not in taken]
    if "test" in raw or "validation" in raw:
        num_dropped += len(pool) - len(train) - _num_held_out(raw, rows)
    rows["train"] = _first("train", train, data.num_train)
    return SplitRows(rows, num_dropped)


def _num_held_out(raw: Mapping[Split, Sequence[Row]], rows: Mapping[Split, Sequence[Row]]) -> int:
    return sum(len(rows[split]) for split in ("test", "validation") if split not in raw)


def _by_content(rows: Sequence[Row]) -> list[Row]:
    return sorted(
        rows,
        key=lambda row: (
            hashlib.sha256(row.key.encode()).digest(), row.text, row.label or "", row.prompt or ""
        ),
    )  # fmt: skip


def _hold_out(
    split: Split, pool: Sequence[Row], taken: set[str], wanted: int | None
) -> tuple[Row, ...]:
    """The first rows of the pool, whole texts at a time (a text may have several rows)."""
    size = wanted or min(DEFAULT_MAX_HELD_OUT, max(1, int(len(pool) * DEFAULT_HELD_OUT_RATIO)))
    held: list[Row] = []
    for row in pool:
        if row.key in taken:
            continue
        if len(held) >= size and row.key != held[-1].key:
            break
        held.append(row)
    return _first(split, held, wanted and size, allow_more=True)


def _first(
    split: Split, rows: Sequence[Row], wanted: int | None, *, allow_more: bool = False
) -> tuple[Row, ...]:
    if not rows:
        raise DataError("workload.data", f"no rows are left for the {split} split")
    if wanted is not None and len(rows) < wanted:
        raise DataError(
            f"workload.data.num_{split}", f"{wanted} rows are asked for and {len(rows)} are there"
        )
    return tuple(rows if allow_more or wanted is None else rows[:wanted])
