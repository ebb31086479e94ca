"""What Ray Tune asks for the next trial."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from scaling.records.trial import TrialRecord
from scaling.search.optuna import CellSearches
from scaling.space.trials import PlannedTrial

Prepare = Callable[[PlannedTrial], dict[str, Any]]


class PlannedTrials(Searcher):
    """Gives Tune the planned trials in order, and Optuna's answers with them.

    A trial whose Tune actor died is given out again: its job went on meanwhile.

    Args:
        stages: Trials that run together; the next ones are asked for when all have ended.
        prepare: Makes the configuration of a trial.
        records: How trials ended.
        searches: Optuna's; None after the search.
        most_at_once: Trials that may run side by side now.
    """

    def __init__(
        self,
        stages: Iterator[Sequence[PlannedTrial]],
        prepare: Prepare,
        records: Mapping[str, TrialRecord],
        searches: CellSearches | None,
        most_at_once: Callable[[], int],
    ) -> None:
        super().__init__()
        self._most_at_once = most_at_once
        self._stages = stages
        self._planned: list[PlannedTrial] = []
        self._again: list[PlannedTrial] = []
        self._prepare = prepare
        self._records = records
        self._searches = searches
        self._live: dict[str, PlannedTrial] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher with the experiment's state, which is never restored from.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration; None for now, Searcher.FINISHED when all have ended."""
        while not (self._again or self._planned or self._live):
            stage = next(self._stages, None)
            if stage is None:
                return Searcher.FINISHED
            self._planned = list(stage)
        if len(self._live) >= self._most_at_once():
            return None
        if self._again:
            planned = self._again.pop(0)
        elif self._planned:
            planned = self._planned.pop(0)
            if self._searches is not None:
                planned = self._searches.decide(planned)
        else:
            return None
        self._live[trial_id] = planned
        return self._prepare(planned)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell Optuna how it ended."""
        planned = self._live.pop(trial_id)
        record = self._records.get(planned.trial_id)
        if error and (record is None or record.status == "running"):
            self._again.append(planned)
        elif self._searches is not None and record is not None:
            self._searches.tell(record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's own journal is what resuming reads."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""
