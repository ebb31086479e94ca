"""What else varies in a table beside batch, rate and seed: nothing is averaged over that unsaid."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from scaling.report.foreign_tables.table_columns import Kind, kind_of
from scaling.report.foreign_tables.table_curves import Curves
from scaling.report.foreign_tables.table_names import MAXIMIZED, TableError, listed, plain
from scaling.report.foreign_tables.table_suggestions import option

_MOST_VALUES = 40
"""Different values of a column that are remembered."""
_MOST_GROUPS = 100_000
"""Different batches, rates or seeds for which a column's value is remembered."""
_MOST_COUNTED = 20_000
"""Different values up to which a column's are counted, with the rows that they were in."""
_NEARLY_ALL = 0.95
"""Share of the rows that have a value of their own in a column of names."""
_FOLDERS = frozenset({"path", "dir", "directory", "folder", "file", "checkpoint"})
_MOST_LABELS = 20
"""Different values up to which a column without a telling name is a label and no measurement."""
_NO_LOSS = frozenset({"", "nan", "inf", "-inf", "none", "null", "na", "n/a", "-", "infinity"})


class _Within:
    """Whether a column differs among rows that have something in common."""

    def __init__(self) -> None:
        self._first: dict[Hashable, str] = {}
        self.differs = False

    def add(self, group: Hashable, value: str) -> None:
        if not self.differs and len(self._first) < _MOST_GROUPS:
            self.differs = self._first.setdefault(group, value) != value

    def has_one_each(self, num_values: int) -> bool:
        """Whether what is common to the rows, and nothing else, decides the value."""
        return not self.differs and num_values >= _NEARLY_ALL * len(self._first) > 0


@dataclass
class _Column:
    """What a column that is not read has been seen to hold."""

    name: str
    place: int
    kind: Kind
    values: dict[str, None] = field(default_factory=dict[str, None])
    num_counted: int = 0
    is_number: bool = True
    hashes: set[int] = field(default_factory=set[int])
    in_table: _Within = field(default_factory=_Within)
    in_batch: _Within = field(default_factory=_Within)
    at_rate: _Within = field(default_factory=_Within)
    at_point: _Within = field(default_factory=_Within)
    in_recipe: _Within = field(default_factory=_Within)
    at_seed: _Within = field(default_factory=_Within)

    def add(
        self, value: str, axes: Hashable, batch: str, rate: str, seed: str, settings: int
    ) -> None:
        if len(self.values) <= _MOST_VALUES:
            if value not in self.values:
                self.is_number = self.is_number and _is_number(value)
            self.values[value] = None
        if len(self.hashes) < _MOST_COUNTED:
            self.hashes.add(hash(value))
            self.num_counted += 1
        self.in_table.add(axes, value)
        self.in_batch.add((axes, batch), value)
        self.at_rate.add((axes, rate), value)
        if self.kind in ("compared", "unknown", "file"):
            self.at_point.add((axes, batch, rate), value)
            self.in_recipe.add((axes, batch, rate, settings), value)
        self.at_seed.add((axes, seed), value)

    @property
    def is_label(self) -> bool:
        """Few values, each in several rows, that neither the batch, rate nor seed decides."""
        is_few = len(self.values) <= min(_MOST_LABELS, self.num_counted // 2)
        is_own = self.at_rate.differs and self.at_seed.differs
        return is_few and self.in_batch.differs and is_own

    @property
    def is_few(self) -> bool:
        """Whether most values are in several rows."""
        return len(self.hashes) <= max(self.num_counted // 2, 2)

    def is_name(self, num_runs: int) -> bool:
        """Whether words, or identifiers, are of one run each, or spell a recipe, as folders do."""
        words, count = plain(self.name).split("_"), len(self.hashes)
        if self.is_number and words[-1] not in ("id", "uid", "uuid"):
            return False
        if count >= _NEARLY_ALL * min(self.num_counted, num_runs):
            return True
        has_both = self.in_batch.differs and self.at_rate.differs
        is_point = has_both and self.at_point.has_one_each(count)
        is_recipe = has_both and self.in_recipe.has_one_each(count)
        is_folder = not _FOLDERS.isdisjoint(words)
        return is_point or is_recipe or (is_folder and self.at_rate.has_one_each(count))


@dataclass(frozen=True)
class Survey:
    """Columns of a table that vary beside those that are read.

    Attributes:
        searched: Settings of the trainer, taken as searched too.
        with_batch: Those that go with the batch size.
        labels: Others with a few values, which are left alone.
        problem: Why the rows may not be pooled; None where they may.
    """

    searched: tuple[str, ...] = ()
    with_batch: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    problem: TableError | None = None

    def notes(self) -> list[str]:
        """The columns that vary, in sentences."""
        notes: list[str] = []
        if self.searched:
            notes.append(
                f"These columns vary too and count as searched: {', '.join(self.searched)} "
                "(--cell, --where or --nuisance COLUMN says otherwise). Nothing is averaged over "
                "them."
            )
        if self.with_batch:
            notes.append(f"These columns vary with the batch size: {', '.join(self.with_batch)}.")
        if self.labels:
            notes.append(f"These columns vary and are not read: {', '.join(self.labels)}.")
        return notes


class Surveyor:
    """Goes through a table's rows once and says which columns vary."""

    def __init__(
        self,
        file: str,
        header: Sequence[str],
        names: Sequence[str],
        used: Iterable[int],
        searched: Sequence[int],
    ) -> None:
        """`names` are the header by our names; the last two are places of columns that are read.

        Those of `searched` are of the recipe.
        """
        self._file = file
        self._place = {name: place for place, name in enumerate(names)}
        taken = set(used)
        self._columns = [
            _Column(header[place], place, kind)
            for place in range(len(header))
            if place not in taken and (kind := kind_of(header[place])) != "passed_over"
        ]
        self._recipe = [*searched, *(c.place for c in self._columns if c.kind == "setting")]

    def add(self, cells: Sequence[str], axes: Hashable) -> None:
        """One row; `axes` are its values of the further columns that tell cells apart."""
        loss = self._cell(cells, "validation_loss", self._cell(cells, MAXIMIZED, "0"))
        if loss.strip().lower() in _NO_LOSS:
            return
        batch, rate, seed = (
            self._cell(cells, name) for name in ("global_batch_size", "peak_lr", "seed")
        )
        settings = hash(tuple(cells[place] for place in self._recipe))
        for column in self._columns:
            value = cells[column.place].strip()
            if value or column.kind in ("setting", "unknown"):
                column.add(value, axes, batch, rate, seed, settings)

    def _cell(self, cells: Sequence[str], name: str, default: str = "") -> str:
        place = self._place.get(name)
        return default if place is None else cells[place]

    @property
    def places(self) -> tuple[list[int], list[int]]:
        """Where the columns are in which two runs may differ on purpose, by their names or not."""
        named = [c.place for c in self._columns if c.kind in ("compared", "setting")]
        return named, [c.place for c in self._columns if c.kind == "unknown"]

    def survey(self, curves: Curves | None = None) -> Survey:
        """What varies; `curves` say which rows are evaluations of one run."""
        columns = [
            column for column in self._columns
            if not column.is_name(curves.num_runs if curves else column.num_counted)
            if curves is None or (column.place != curves.progress and column.kind != "file")
        ]  # fmt: skip
        compared = [column for column in columns if self._is_compared(column)]
        searched, with_batch, labels = [], [], []
        for column in columns:
            if len(column.values) < 2:
                continue
            is_setting = column.kind == "setting" or (column.kind == "unknown" and column.is_label)
            if not column.in_batch.differs:
                if column.kind not in ("unknown", "file") or len(column.values) <= _MOST_LABELS:
                    with_batch.append(column.name)
            elif is_setting:
                searched.append(column.name)
            elif column.kind == "label" or column.kind == "compared":
                labels.append(column.name)
        problem = self._mixed(compared) if compared else None
        return Survey(tuple(searched), tuple(with_batch), tuple(labels), problem)

    def _is_compared(self, column: _Column) -> bool:
        match column.kind:
            case "compared":
                return column.in_table.differs
            case "budget":
                return column.in_batch.differs and column.is_few
            case "unknown" | "file":
                return not column.is_number and column.is_label
            case _:
                return False

    def _mixed(self, compared: Sequence[_Column]) -> TableError:
        parts = [f"{column.name!r} ({_some(column)})" for column in compared]
        first = compared[0]
        value = min(first.values, key=lambda v: (not v, len(v)))
        one = option("--where", f"{first.name}={value}")
        several = " ".join(option("", c.name).strip() for c in compared)
        what = "column" if len(compared) == 1 else "columns"
        return TableError(
            f"{self._file}: the rows differ in {what} {', '.join(parts)}, and nothing is averaged "
            f"over that; {one} reads one of them, --cell {several} compares them, and "
            f"--nuisance {several} takes them as searched",
            offers=["--where", "--cell", "--nuisance"],
        )


def _some(column: _Column) -> str:
    shown = listed(list(column.values)[:4])
    return shown if len(column.values) <= 4 else f"{shown}, …"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text
    return True
