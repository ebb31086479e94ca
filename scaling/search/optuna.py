"""The search of each cell by Optuna."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from scaling.records.ledger import cut_unfinished_line
from scaling.records.objective import objective_of
from scaling.records.outcome import objective_value
from scaling.records.trial import TrialRecord
from scaling.search.distributions import optuna_distributions
from scaling.space.cells import Cell, cell_name, cell_seed, hyperparameters
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.space.trials import PlannedTrial
from scaling.spec.study import StudySpec


class CellSearches:
    """One Optuna study for each cell, in a journal file that optuna-dashboard can read.

    Outcomes are told as what they are: a trial that ran to its budget is COMPLETE with its
    objective (see `objective_value`), one stopped early PRUNED, one that diverged or failed FAIL.
    """

    def __init__(
        self, spec: StudySpec, storage: Path, facts: Facts, records: Mapping[str, TrialRecord]
    ) -> None:
        optuna.logging.disable_default_handler()
        self._spec, self._facts, self._records = spec, facts, records
        journal = storage / "optuna.journal"
        cut_unfinished_line(journal)
        backend = JournalFileBackend(str(journal))
        self._storage = JournalStorage(backend)
        self._studies: dict[str, optuna.Study] = {}
        self._asked: dict[str, tuple[optuna.Study, optuna.Trial]] = {}
        self._lost_choices: dict[str, dict[str, Any]] = {}

    def decide(self, planned: PlannedTrial) -> PlannedTrial:
        """Ask the cell's study; a planned point is enqueued, so that Optuna knows it.

        A trial that an earlier run asked for and did not end keeps its point.
        """
        study = self._study(planned.cell, _suffix(planned))
        known = (
            dict(planned.choices) if planned.recipe else self._lost_choices.get(planned.trial_id)
        )
        if known is not None:
            study.enqueue_trial(known)
        trial = study.ask(optuna_distributions(self._spec, planned.extended))
        trial.set_user_attr("trial_id", planned.trial_id)
        self._asked[planned.trial_id] = study, trial
        if planned.recipe is not None:
            return planned
        setting = hyperparameters(self._spec, planned.cell, trial.params)
        recipe = resolve(self._spec, setting, seed=self._spec.seed, facts=self._facts)
        return replace(planned, choices=trial.params, recipe=recipe)

    def tell(self, record: TrialRecord) -> None:
        """Tell the cell's study how a trial that it decided ended."""
        asked = self._asked.pop(record.trial_id, None)
        if asked is None:
            return
        study, trial = asked
        objective = objective_of(self._spec, self._facts.metrics)
        for measurement in record.measurements:
            if (cost := objective.cost_of(measurement)) is not None:
                trial.report(cost, measurement.step)
        self._tell(study, trial.number, record)

    def _tell(self, study: optuna.Study, number: int, record: TrialRecord) -> None:
        value = objective_value(record, self._spec, self._facts.metrics)
        match record.status:
            case "done" if value is not None:
                study.tell(number, value)
            case "stopped":
                study.tell(number, state=TrialState.PRUNED)
            case "done" | "diverged" | "failed" | "running":
                study.tell(number, state=TrialState.FAIL)
            case unknown:
                assert_never(unknown)

    def _study(self, cell: Cell, suffix: str) -> optuna.Study:
        name = f"{self._spec.name}/{cell_name(cell)}{suffix}"
        if name not in self._studies:
            study = optuna.create_study(storage=self._storage, study_name=name, load_if_exists=True)
            self._take_up(study)
            # Another seed than the run before had, which would draw the same points again.
            seed = cell_seed(self._spec, cell, self._facts.cell_places)
            study.sampler = self._sampler(seed + len(study.trials))
            self._studies[name] = study
        return self._studies[name]

    def _take_up(self, study: optuna.Study) -> None:
        """Settle what a run that was cut off had asked for."""
        for trial in study.get_trials(deepcopy=False):
            trial_id = trial.user_attrs.get("trial_id")
            record = self._records.get(trial_id or "")
            if trial.state == TrialState.RUNNING:
                if record is not None and record.status != "running":
                    self._tell(study, trial.number, record)
                else:
                    study.tell(trial.number, state=TrialState.FAIL)
            # Ended ones too: in a copy of the study's state this journal may be ahead of the
            # trials, and only those without a record are asked for again.
            if trial_id is not None:
                self._lost_choices[trial_id] = dict(trial.params)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        seed %= 2**32
        match self._spec.search.adaptive:
            case None:
                return optuna.samplers.RandomSampler(seed=seed)  # every point is enqueued
            case "tpe":
                # Trials run side by side: those that have not ended count as bad ones, so that the
                # sampler does not ask for the same point twice.
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
            case unknown:
                assert_never(unknown)


def _suffix(planned: PlannedTrial) -> str:
    """Optuna lets the ends of a range move within a study, but not a list of values grow."""
    lists_more = any(drawn.choice is not None for drawn in planned.extended.values())
    return f" round {planned.search_round}" if lists_more else ""
