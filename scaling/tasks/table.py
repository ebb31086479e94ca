"""Trials that are rows of a table of finished runs: searches are compared in seconds with it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.records.metrics import Metric, Unit
from scaling.records.objective import VALIDATION_LOSS
from scaling.records.recipe import Recipe
from scaling.spec.checks.data import file_suffix
from scaling.spec.data import DATA_SUFFIXES
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import RunTable
from scaling.tasks.data.file_tables import file_table
from scaling.tasks.data.overview import DataSummary
from scaling.tasks.data.rows import Split
from scaling.tasks.errors import DataError
from scaling.tasks.task import ExampleLosses

Floats = NDArray[np.float64]

MAX_ROWS = 1_000_000
_FILE = "workload.file"
_KINDS = tuple(suffix for suffix in DATA_SUFFIXES if suffix not in (".txt", ".conll", ".conllu"))


@dataclass(frozen=True)
class Runs:
    """Rows of a table, those of equal hyperparameters as the one with the lowest loss.

    Attributes:
        names: The hyperparameters, the batch size first where it is one of them.
        points: [R, K] their values.
        splits: Those whose losses the table has, validation first.
        losses: [R, S] losses at the end of each run; all NaN where it diverged.
    """

    names: tuple[str, ...]
    points: Floats
    splits: tuple[Split, ...]
    losses: Floats


def prepare(workload: RunTable, evaluation: Evaluation) -> "RunTableTask":  # noqa: ARG001
    """Read the table; nothing is evaluated.

    Raises:
        DataError: If the file is no such table, lacks a column, has a cell that is no number, or
            no row that is asked for.
    """
    return RunTableTask(workload, read_runs(workload))


class RunTableTask:
    """See `scaling.tasks.task.FinishedTask`."""

    num_train = None
    loss_unit: Unit = VALIDATION_LOSS.unit  # of a column with that name, as in any table
    targets_per_example = 1.0
    tokens_per_example = None
    baseline = None
    num_dropped = 0
    splits: tuple[Split, ...] = ()

    def __init__(self, workload: RunTable, runs: Runs) -> None:
        self.workload, self.runs = workload, runs
        parts = (str((runs.names, runs.splits)).encode(), runs.points, runs.losses)
        self.content_hash = hashlib.sha256(b"".join(map(bytes, parts))).hexdigest()
        self._is_log = (runs.points > 0).all(0)
        self._places = self._along(runs.points)

    @property
    def data_summary(self) -> DataSummary:
        """How many runs the table has, and the range of each hyperparameter."""
        runs = self.runs
        num_diverged = int(np.isnan(runs.losses[:, 0]).sum())
        ranges = ", ".join(
            f"{name} {min(values):g} … {max(values):g} ({len(set(values))} values)"
            for name, values in zip(runs.names, runs.points.T.tolist(), strict=True)
        )
        note = (
            f"Trials are looked up among {len(runs.points):,} runs in {self.workload.file}, of "
            f"which {num_diverged:,} diverged: {ranges}. Beyond them the outermost run holds."
        )
        return DataSummary((), (note,))

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """None: the table has no examples."""
        return {}

    def num_evaluated(self, split: Split) -> int:  # noqa: ARG002
        """None: the table has no examples."""
        return 0

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """None."""
        return {}

    def look_up(self, recipe: Recipe) -> Mapping[Split, float] | None:
        """Losses of the runs around a recipe, with the noise of its seed; None where they diverged.

        The noise multiplies the losses of all splits alike.
        """
        values = recipe.columns()
        point = np.array([values[name] for name in self.runs.names], dtype=np.float64)
        losses = self._losses(np.arange(len(self.runs.points)), self._along(point), 0)
        if np.isnan(losses[0]):
            return None
        if self.workload.noise_ratio:
            key = (recipe.seed, *point.view(np.uint32).tolist())
            losses *= 1 + self.workload.noise_ratio * np.random.default_rng(key).standard_normal()
        known = zip(self.runs.splits, losses.tolist(), strict=True)
        return {split: loss for split, loss in known if math.isfinite(loss)}

    def _along(self, points: Floats) -> Floats:
        """Where hyperparameters [..., K] stand on the table's axes, logarithmic ones or not."""
        with np.errstate(divide="ignore"):  # a trial may have 0 where no run has it
            return np.where(self._is_log, np.log(np.maximum(points, 0)), points)

    def _losses(self, rows: NDArray[np.int64], place: Floats, axis: int) -> Floats:
        """[S] losses at a place among rows that are alike on all axes before this one."""
        if axis == len(place):
            return self.runs.losses[rows[0]].copy()
        along = self._places[rows, axis]
        known = np.unique(along)
        high = int(np.clip(np.searchsorted(known, place[axis]), 0, len(known) - 1))
        low = max(high - 1, 0)
        width = known[high] - known[low]
        share = float(np.clip((place[axis] - known[low]) / width, 0, 1)) if width else 1.0
        if self.workload.between == "nearest":
            share = float(round(share, 9) > 0.5)  # halfway the lower one
        parts = [
            weight * self._losses(rows[along == known[end]], place, axis + 1)
            for end, weight in ((low, 1 - share), (high, share))
            if weight
        ]
        return np.sum(parts, axis=0)


def read_runs(workload: RunTable) -> Runs:
    """The rows of a table that `where` leaves; raises as `prepare`."""
    suffix = file_suffix(workload.file)
    if suffix not in _KINDS:
        allowed = f"*{', *'.join(_KINDS)}, and all but parquet with .gz"
        raise DataError(_FILE, f"{workload.file} is of an unknown kind (allowed: {allowed})")
    names = sorted(workload.columns, key=lambda name: name != "global_batch_size")
    by_path = {f"workload.columns.{name}": workload.columns[name] for name in names}
    losses = {
        split: (f"workload.{split}_loss_column", column)
        for split in ("validation", "train", "test")
        if (column := getattr(workload, f"{split}_loss_column")) is not None
    }
    by_path |= dict(losses.values())
    filters = {f"workload.where.{column}": column for column in workload.where}
    points: list[list[float]] = []
    ends: list[list[float]] = []
    for number, record in _records(workload.file, by_path | filters):
        if any(not _is(record[column], value) for column, value in workload.where.items()):
            continue
        cells = [
            _number(record, number, path, column, is_loss=place >= len(names))
            for place, (path, column) in enumerate(by_path.items())
        ]
        end = cells[len(names) :]
        points.append(cells[: len(names)])
        ends.append(end if math.isfinite(end[0]) else [math.nan] * len(end))
    if not points:
        raise DataError("workload.where" if filters else _FILE, f"{workload.file} has no such row")
    return Runs(tuple(names), *_lowest(np.array(points), np.array(ends), tuple(losses)))


def _lowest(points: Floats, ends: Floats, splits: Sequence[Split]) -> tuple[Any, ...]:
    """Of rows with equal points the one with the lowest validation loss, by rising points."""
    order = np.lexsort((ends[:, 0], *points.T[::-1]))  # NaN comes last
    points, ends = points[order], ends[order]
    _, first = np.unique(points, axis=0, return_index=True)
    return points[first], tuple(splits), ends[first]


def _records(name: str, columns: Mapping[str, str]) -> Any:
    """Rows of a file with their numbers, from 1, without empty ones; columns by dotted path."""
    table = file_table(name, path=_FILE, columns=list(columns.values()))
    for number, record in enumerate(table.records, start=1):
        if number > MAX_ROWS:
            raise DataError(_FILE, f"{name} has more than {MAX_ROWS:,} rows")
        if not isinstance(record, Mapping):
            raise DataError(_FILE, f"row {number} of {name} must be a mapping of columns to cells")
        if not record:
            continue
        for path, column in columns.items():
            if column not in record:
                have = ", ".join(map(str, record))
                raise DataError(
                    path, f"row {number} of {name} has no column {column!r}; it has: {have}"
                )
        yield number, record


def _number(
    record: Mapping[str, Any], number: int, path: str, column: str, *, is_loss: bool
) -> float:
    """A cell as a number; of losses, NaN for an empty one."""
    cell = record[column]
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        cell = math.nan
    with suppress(TypeError, ValueError):
        value = float(cell)
        if is_loss or math.isfinite(value):
            return value
    raise DataError(
        path, f"row {number} has {record[column]!r} in column {column!r}; must be a number"
    )


def _is(cell: object, value: float | str) -> bool:
    """Whether a cell has a value, a number in whatever way it is written."""
    if isinstance(value, str):
        return str(cell).strip() == value
    try:
        return float(cell) == value  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
