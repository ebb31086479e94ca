"""Train, validation and test, so that no text is on two sides.

A row's side depends on a hash of its text and, where rows have labels, on how many texts each
class has: not on a seed or the order of the file. So two studies of the same data hold out the
same texts. Lines of a book are not hashed: each split is a part of it, in order.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat

from scaling.process import without_garbage_collection
from scaling.spec.data import RareClasses, TextData
from scaling.tasks.data.columns import RowFormat
from scaling.tasks.data.reading import read_rows
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.errors import DataError

DEFAULT_HELD_OUT_RATIO = 0.1
DEFAULT_MAX_HELD_OUT = 2000
_HELD_OUT: tuple[Split, ...] = ("test", "validation")
_MOST_EXCESS_RATIO = 0.25
"""Rows that a held-out split may have above those asked for, since a text's rows stay together."""
_SHOWN_CLASSES = 10


@dataclass(frozen=True)
class SplitRows:
    """Rows by split, in an order that depends on their texts alone, or in that of a book.

    Attributes:
        num_dropped: Rows left out because their text is also in a split that comes earlier in
            test, validation, train.
        notes: English sentences on what was done to the rows.
    """

    rows: Mapping[Split, tuple[Row, ...]]
    num_dropped: int
    notes: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """SHA-256 over every split's rows, in order."""
        digest = hashlib.sha256()
        for split in SPLITS:
            for row in self.rows[split]:
                digest.update(repr((split, row.prompt, row.text, row.label)).encode())
                if row.tags or row.answers:
                    digest.update(repr((row.tags, row.answers)).encode())
                if row.pair is not None or row.number is not None:
                    digest.update(repr((row.pair, row.number)).encode())
                if row.turns:
                    # As it was before there were tool calls, so that known data stay the same.
                    said = tuple(
                        turn if turn.more else (turn.role, turn.content) for turn in row.turns
                    )
                    digest.update(repr(said).encode())
        return digest.hexdigest()


def read_splits(data: TextData, row_format: RowFormat) -> SplitRows:
    """Read all rows of a source and split them.

    Raises:
        DataError: If the data cannot be used as the study file says.
    """
    with without_garbage_collection():
        read, labels = read_rows(data, row_format), row_format.labels
        split = split_rows(read.rows, data, rare="keep" if labels is None else labels.rare)
    return replace(split, notes=read.notes + split.notes)


def split_rows(
    raw: Mapping[Split, Sequence[Row]], data: TextData, *, rare: RareClasses = "keep"
) -> SplitRows:
    """Hold out validation and test where the source does not, and drop what overlaps.

    Raises:
        DataError: If a split would be empty, there are fewer rows than asked for, or a class is
            rare and the study file refuses that.
    """
    if any(not row.ends_document for rows in raw.values() for row in rows):
        return _split_book(raw, data)
    notes: list[str] = []
    held_out = tuple(split for split in _HELD_OUT if split not in raw)
    pool = _without_rare(_by_key(raw["train"]), 1 + len(held_out), rare, notes)
    if held_out and len(pool) == 1 and len(raw["train"]) > 1:
        files = " and ".join(reversed(held_out))
        message = f"all rows share one prompt, context or text; give {files} files"
        raise DataError("workload.data", message)
    counts = _class_sizes(pool) if held_out else Counter[str]()
    taken: set[str] = set()
    texts: dict[Split, _Texts] = {}
    num_dropped = 0
    for split in _HELD_OUT:
        wanted: int | None = getattr(data, f"num_{split}")
        if split in raw:
            kept = _without(_by_key(raw[split]), taken)
            num_dropped += len(raw[split]) - _num_rows(kept)
            texts[split] = _first_texts(split, kept, wanted)
        else:
            texts[split] = _hold_out(split, pool, counts, taken, wanted, notes)
        taken |= texts[split].keys()
    texts["train"] = _without(pool, taken)
    if len(held_out) < len(_HELD_OUT):
        if pool and not texts["train"]:
            raise DataError(
                "workload.data", "every training row is also in validation or test; none is left"
            )
        in_pool = sum(_num_rows(texts[split]) for split in ("train", *held_out))
        num_dropped += _num_rows(pool) - in_pool
    for split in held_out:
        _give_back(split, texts)
    rows = {split: tuple(_rows_of(found)) for split, found in texts.items()}
    rows["train"] = _training_rows(rows["train"], data.num_train)
    if num_dropped:
        one = num_dropped == 1
        notes.append(
            f"{num_dropped:,} {'row was' if one else 'rows were'} left out since "
            f"{'its text is' if one else 'their texts are'} also in another split."
        )
    for split in _HELD_OUT:
        rows[split] = _learnable(split, rows, rare, notes)
    return SplitRows(rows, num_dropped, tuple(notes))


_Texts = dict[str, list[Row]]
"""The rows of each text by its key, in an order that depends on the texts alone."""


def _by_key(rows: Sequence[Row]) -> _Texts:
    found: _Texts = {}
    for row in rows:
        found.setdefault(row.key, []).append(row)
    for same in found.values():
        if len(same) > 1:
            same.sort(
                key=lambda row: (
                    row.text, row.label or "", row.prompt or "", row.tags, row.answers,
                    row.pair or "", row.number or 0.0,
                )
            )  # fmt: skip
    return _by_hash(found)


def _by_hash(texts: _Texts) -> _Texts:
    return dict(sorted(texts.items(), key=lambda text: hashlib.sha256(text[0].encode()).digest()))


def _rows_of(texts: _Texts) -> list[Row]:
    return list(chain.from_iterable(texts.values()))


def _num_rows(texts: _Texts) -> int:
    return sum(map(len, texts.values()))


def _first_texts(split: Split, texts: _Texts, wanted: int | None) -> _Texts:
    """The texts of the first rows, so many as are wanted; the last text may be cut."""
    left = _num_rows(texts)
    _require_rows(split, left, wanted)
    if wanted is not None:
        left = wanted
    found: _Texts = {}
    for key, rows in texts.items():
        if left <= 0:
            break
        found[key] = rows[:left]
        left -= len(rows)
    return found


def _without(texts: _Texts, taken: set[str]) -> _Texts:
    return {key: rows for key, rows in texts.items() if key not in taken}


def _class(rows: Sequence[Row]) -> str:
    """The class of a text: that of its first row."""
    return rows[0].label or ""


def _class_sizes(texts: _Texts) -> Counter[str]:
    """Rows of each class."""
    return Counter(chain.from_iterable(repeat(_class(r), len(r)) for r in texts.values()))


def _hold_out(
    split: Split,
    pool: _Texts,
    counts: Counter[str],
    taken: set[str],
    wanted: int | None,
    notes: list[str],
) -> _Texts:
    """Rows of the pool, of each class the first ones, whole texts at a time.

    Each class has the share of the split that it has of the pool, as far as whole numbers allow,
    and leaves a text to train on. `counts` are the pool's rows of each class. A text of so
    many rows that the split would be far larger than asked is passed over; where a class has no
    other, or the study file asks for more rows, the smallest are taken and `notes` says so.
    """
    default = max(1, int(counts.total() * DEFAULT_HELD_OUT_RATIO))
    most = counts - _class_sizes({key: pool[key] for key in taken if key in pool})
    kept: dict[str, str] = {}
    for key in reversed(pool):
        if len(kept) == len(most):
            break
        rows = pool[key]
        if key not in taken and (label := _class(rows)) not in kept:
            kept[label] = key
            most[label] -= len(rows)
    size = wanted or min(DEFAULT_MAX_HELD_OUT, default)
    shares = _shares(counts, size, least=0, most=most)
    left = dict(shares)
    num_open = sum(count > 0 for count in left.values())
    spare = int(_MOST_EXCESS_RATIO * size)
    found: set[str] = set()
    passed_over: list[str] = []
    for key, rows in pool.items():
        if not num_open:
            break
        label = _class(rows)
        if left[label] <= 0 or key in taken or key == kept[label]:
            continue
        if (excess := max(len(rows) - left[label], 0)) > spare:
            passed_over.append(key)
            continue
        spare -= excess
        found.add(key)
        left[label] -= len(rows)
        num_open -= left[label] <= 0
    for key in sorted(passed_over, key=lambda key: len(pool[key])):
        label = _class(pool[key])
        is_needed = left[label] > 0 if wanted else left[label] == shares[label]
        if is_needed:
            found.add(key)
            left[label] -= len(pool[key])
    texts = {key: rows for key, rows in pool.items() if key in found}
    num_rows = _num_rows(texts)
    if num_rows > size and not found.isdisjoint(passed_over):
        notes.append(
            f"The {split} split has {num_rows:,} rows in place of {size:,}, since rows of one "
            "text, prompt or context stay together."
        )
    _require_rows(split, num_rows, wanted)
    return texts


def _shares(
    counts: Mapping[str, int], size: int, *, least: int, most: Mapping[str, int]
) -> dict[str, int]:
    """Whole numbers that sum to `size` and are nearest to the shares of `counts`.

    Each is at least `least` and at most `most`; where that leaves no such numbers, the sum is the
    nearest there is. By largest remainder, of equal ones the first name.
    """
    total = sum(counts.values())
    ideal = {name: size * count / total for name, count in sorted(counts.items())}
    given = {name: min(most[name], max(least, int(share))) for name, share in ideal.items()}
    while (missing := size - sum(given.values())) > 0:
        open_ = [name for name in given if given[name] < most[name]]
        open_.sort(key=lambda name: given[name] - ideal[name])
        if not open_:
            break
        for name in open_[:missing]:
            given[name] += 1
    while (excess := sum(given.values()) - size) > 0:
        open_ = [name for name in given if given[name] > least]
        open_.sort(key=lambda name: ideal[name] - given[name])
        if not open_:
            break
        for name in open_[:excess]:
            given[name] -= 1
    return given


def _training_rows(train: Sequence[Row], wanted: int | None) -> tuple[Row, ...]:
    """All, or so many: of each class the first ones, its share of them and at least one."""
    if wanted is None or len(train) <= wanted:
        return _first("train", train, wanted)
    counts = Counter(row.label or "" for row in train)
    left = _shares(counts, wanted, least=1 if len(counts) <= wanted else 0, most=counts)
    num_kept = sum(left.values())
    kept: list[Row] = []
    for row in train:
        if len(kept) == num_kept:
            break
        if left[row.label or ""]:
            left[row.label or ""] -= 1
            kept.append(row)
    return tuple(kept)


def _first(split: Split, rows: Sequence[Row], wanted: int | None) -> tuple[Row, ...]:
    _require_rows(split, len(rows), wanted)
    return tuple(rows[:wanted])


def _require_rows(split: Split, num_rows: int, wanted: int | None) -> None:
    if not num_rows:
        raise DataError("workload.data", f"no rows are left for the {split} split")
    if wanted is not None and num_rows < wanted:
        raise DataError(
            f"workload.data.num_{split}", f"{wanted} rows are asked for and {num_rows} are there"
        )


# --- classes -------------------------------------------------------------------------------------


def _classes(row: Row) -> frozenset[str]:
    return frozenset(row.tags) if row.label is None else frozenset([row.label])


def _without_rare(pool: _Texts, num_splits: int, policy: RareClasses, notes: list[str]) -> _Texts:
    """The texts but, under `drop`, rows of classes with fewer texts than splits to be cut."""
    if policy == "keep" or num_splits == 1:
        return pool
    counts = Counter(name for rows in pool.values() for name in _classes_of(rows))
    rare = {name: count for name, count in counts.items() if count < num_splits}
    if not rare:
        return pool
    said = f"fewer texts than there are splits ({num_splits}): {_listed(rare)}"
    if policy == "error":
        raise DataError("workload.data.rare_classes", f"classes have {said}")
    kept = {
        key: [row for row in rows if not _classes(row) & rare.keys()] for key, rows in pool.items()
    }
    num_left_out = _num_rows(pool) - _num_rows(kept)
    notes.append(f"{num_left_out:,} rows were left out since their class has {said}.")
    return {key: rows for key, rows in kept.items() if rows}


def _classes_of(rows: Sequence[Row]) -> set[str]:
    labels = {row.label for row in rows if row.label is not None}
    return labels.union(chain.from_iterable(row.tags for row in rows if row.label is None))


def _give_back(split: Split, texts: dict[Split, _Texts]) -> None:
    """Move the held-out texts to train of which it lacks a class."""
    if not _classes_of(_rows_of(texts[split])):
        return
    trained = _classes_of(_rows_of(texts["train"]))
    moved = {key: rows for key, rows in texts[split].items() if not _classes_of(rows) <= trained}
    if not moved:
        return
    texts["train"] = _by_hash(texts["train"] | moved)
    texts[split] = _first_texts(split, _without(texts[split], set(moved)), None)


def _learnable(
    split: Split, rows: Mapping[Split, tuple[Row, ...]], policy: RareClasses, notes: list[str]
) -> tuple[Row, ...]:
    """A held-out split's rows; under `drop`, without those of classes that train lacks."""
    trained = _classes_of(rows["train"])
    lacking = Counter(name for row in rows[split] for name in _classes(row) - trained)
    if not lacking:
        return rows[split]
    said = f"classes that the training data lack: {_listed(lacking)}"
    match policy:
        case "error":
            raise DataError("workload.data.rare_classes", f"the {split} data have {said}")
        case "keep":
            notes.append(f"The {split} data have {said}; the model cannot learn them.")
            return rows[split]
        case "drop":
            kept = [row for row in rows[split] if _classes(row) <= trained]
            notes.append(f"Rows of the {split} data were left out that have {said}.")
            return _first(split, kept, None)


def _listed(counts: Mapping[str, int]) -> str:
    """Classes and their counts; of very many, the first ones and how many there are."""
    names = sorted(counts)
    shown = [f"{name} ({counts[name]})" for name in names[:_SHOWN_CLASSES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


# --- books ---------------------------------------------------------------------------------------


def _split_book(raw: Mapping[Split, Sequence[Row]], data: TextData) -> SplitRows:
    """Parts of a book in its order: what is trained on, then validation and test, where not given.

    No line is left out, though a line may be in two parts: a text without it is another text.
    """
    rows: dict[Split, tuple[Row, ...]] = {}
    left = list(raw["train"])
    for split in _HELD_OUT:
        wanted: int | None = getattr(data, f"num_{split}")
        if split in raw:
            rows[split] = _first(split, raw[split], wanted)
            continue
        share = max(1, int(len(raw["train"]) * DEFAULT_HELD_OUT_RATIO))
        size = wanted or min(DEFAULT_MAX_HELD_OUT, share)
        if size >= len(left):
            raise DataError(
                f"workload.data.num_{split}", f"{size} lines are asked for and {len(left)} are left"
            )
        rows[split] = tuple(left[-size:])
        del left[-size:]
    rows["train"] = _first("train", left, data.num_train)
    trained = {row.text for row in rows["train"] if row.text.strip()}
    num_twice = sum(row.text in trained for split in _HELD_OUT for row in rows[split])
    notes = ["The lines of text files stay in order; each split is a part of them."]
    if num_twice:
        notes.append(
            f"{num_twice:,} lines of the held-out data also stand in the training data; they are "
            "kept, since lines of a text belong together."
        )
    return SplitRows(rows, 0, tuple(notes))
