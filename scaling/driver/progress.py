"""What a study shows while it runs: a live view on a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scaling.driver.live_page import LivePage
from scaling.records.measurement import Measurement
from scaling.records.metrics import Metric
from scaling.records.objective import objective_of
from scaling.records.outcome import objective_value
from scaling.records.trial import TrialRecord
from scaling.space.cells import cell_name
from scaling.space.trials import PlannedTrial
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec


@dataclass
class _CellProgress:
    num_planned: int = 0
    num_ended: int = 0
    num_running: int = 0
    num_diverged: int = 0
    best: TrialRecord | None = None


@dataclass
class _State:
    phases: str = "starting worker groups"
    cells: dict[str, _CellProgress] = field(default_factory=dict[str, _CellProgress])
    work_planned: float = 0.0
    work_ended: float = 0.0
    started_at: float | None = None
    work: dict[str, float] = field(default_factory=dict[str, float])


class ProgressView:
    """An observer of a study that prints; a context manager."""

    def __init__(
        self, spec: StudySpec, console: Console, metrics: Mapping[str, Metric], page: LivePage
    ) -> None:
        self._spec, self._metrics, self._page = spec, metrics, page
        self._objective = objective_of(spec, metrics)
        self._console, self._state, self._note = console, _State(), ""
        live = Live(get_renderable=self._render, console=console, refresh_per_second=2)
        self._live = live if console.is_terminal else None

    def __enter__(self) -> "ProgressView":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def workers_ready(self, sizes: Sequence[int], devices: Sequence[str]) -> None:
        """The worker groups can train."""
        groups = " and ".join(
            f"{count} worker group{'s' * (count > 1)} of {size} worker{'s' * (size > 1)}"
            for size, count in sorted(Counter(sizes).items())
        )
        self._say(f"{groups} ready on {', '.join(sorted(set(devices)))}")

    def phase_started(self, phases: Sequence[Phase], planned: Sequence[PlannedTrial]) -> None:
        """These trials run next."""
        names = " and ".join(phases)
        # The rounds of a search are counted together.
        before = self._state if names == self._state.phases else _State(phases=names)
        state = replace(
            before,
            cells={name: replace(cell) for name, cell in before.cells.items()},
            work=before.work | {trial.trial_id: trial.expected_work for trial in planned},
        )
        for trial in planned:
            state.cells.setdefault(cell_name(trial.cell), _CellProgress()).num_planned += 1
        state.work_planned = sum(state.work.values())
        self._state = state  # whole: another thread draws it
        self._page.phase(names)
        num_cells = len({cell_name(trial.cell) for trial in planned})
        self._say(f"{names}: {num_cells} cells, {len(planned)} trials")

    def note(self, line: str) -> None:
        """What the study does otherwise than its file alone says."""
        self._note = line
        self._page.note(line)
        # Above the live table, so that it stays.
        self._console.print(line, soft_wrap=True)

    def trial_started(self, record: TrialRecord) -> None:
        """A trial is about to train."""
        state = self._state
        state.started_at = state.started_at or time.monotonic()
        state.cells[cell_name(record.cell)].num_running += 1
        self._page.trial_started(record)

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """The page has its curve; on the terminal a trial is shown when it ends."""
        self._page.trial_measured(trial_id, measurements)

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial ended."""
        state, cell = self._state, self._state.cells[cell_name(record.cell)]
        state.work_ended += state.work.get(record.trial_id, 0.0)
        cell.num_running -= 1
        cell.num_ended += 1
        cell.num_diverged += record.status == "diverged"
        value = objective_value(record, self._spec, self._metrics)
        best = objective_value(cell.best, self._spec, self._metrics) if cell.best else None
        if value is not None and (best is None or value < best):
            cell.best = record
        self._page.trial_ended(record)
        self._say(self._line(record))

    def _line(self, record: TrialRecord) -> str:
        ended = sum(cell.num_ended for cell in self._state.cells.values())
        planned = sum(cell.num_planned for cell in self._state.cells.values())
        final = record.final
        known = self._value(record)
        missing = f"no {self._objective.name}" if final else "no evaluation"
        loss = f"{self._objective.name} {known}" if known else missing
        error = f": {record.error}" if record.error else ""
        kinds = Counter(str(incident["kind"]) for incident in record.incidents)
        incidents = "".join(f", {kind} {n}×" if n > 1 else f", {kind}" for kind, n in kinds.items())
        return (
            f"[{ended}/{planned}] {record.trial_id} {record.status}{error}, {loss}, "
            f"peak_lr {record.recipe.hyperparameters.peak_lr:.3g}, "
            f"{record.wall_seconds or 0:.1f} s{incidents}; "
            f"{self._time_left()}"
        )

    def _value(self, record: TrialRecord) -> str:
        """What recipes are compared by, at the end of a trial; empty where it was not measured."""
        value = None if record.final is None else self._objective.value_of(record.final)
        return "" if value is None else f"{value:.4g}"

    def _time_left(self) -> str:
        state = self._state
        if state.started_at is None or not state.work_ended:
            return "time left: not known yet"
        per_work = (time.monotonic() - state.started_at) / state.work_ended
        seconds = max(0.0, state.work_planned - state.work_ended) * per_work
        is_round = state.phases == "search" and self._spec.search.is_joint
        part = "round" if is_round else "phase"
        return f"about {seconds / 60:.1f} min left in this {part}"

    def _known(self) -> str:
        """The best recipe so far, and what the search last said of itself."""
        found = [cell.best for cell in self._state.cells.values() if cell.best]
        if not found:
            return self._note
        best = min(found, key=lambda r: objective_value(r, self._spec, self._metrics) or 0.0)
        rate = best.recipe.hyperparameters.peak_lr
        so_far = f"best so far: {cell_name(best.cell)}, peak_lr {rate:.3g}, {self._objective.name}"
        return f"{so_far} {self._value(best)}" + (f"; {self._note}" if self._note else "")

    def _say(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, soft_wrap=True)

    def _render(self) -> Group:
        state = self._state
        table = Table("cell", box=None, pad_edge=False)
        for heading in ("ended", "running", "diverged", f"best {self._objective.name}", "peak_lr"):
            table.add_column(heading, justify="right")
        for name, cell in state.cells.items():
            table.add_row(
                name,
                f"{cell.num_ended}/{cell.num_planned}",
                str(cell.num_running),
                str(cell.num_diverged),
                self._value(cell.best) if cell.best else "",
                f"{cell.best.recipe.hyperparameters.peak_lr:.3g}" if cell.best else "",
            )
        share = state.work_ended / state.work_planned if state.work_planned else 0.0
        return Group(
            Text(f"{self._spec.name}: {state.phases}; {self._time_left()}", style="bold"),
            Text(self._known()),
            ProgressBar(total=1.0, completed=share, width=60),
            table,
        )
