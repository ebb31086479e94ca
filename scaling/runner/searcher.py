"""What Ray Tune asks for the next trial."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from scaling.records.trial import TrialRecord
from scaling.search.optuna import CellSearches
from scaling.space.trials import PlannedTrial

Prepare = Callable[[PlannedTrial], dict[str, Any]]


class PlannedTrials(Searcher):
    """Gives Tune the planned trials in order, and Optuna's answers with them.

    A trial whose Tune actor died is given out again: its job went on meanwhile.
    """

    def __init__(
        self,
        planned: Sequence[PlannedTrial],
        prepare: Prepare,
        records: Mapping[str, TrialRecord],
        searches: CellSearches | None,
    ) -> None:
        super().__init__()
        self._planned = list(planned)
        self._again: list[PlannedTrial] = []
        self._prepare = prepare
        self._records = records
        self._searches = searches
        self._live: dict[str, PlannedTrial] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher with the experiment's state, which is never restored from.
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration; Searcher.FINISHED when all have ended."""
        if self._again:
            planned = self._again.pop(0)
        elif self._planned:
            planned = self._planned.pop(0)
            if self._searches is not None:
                planned = self._searches.decide(planned)
        else:
            return None if self._live else Searcher.FINISHED
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
