"""The search on the loss surface as a sampler for any Optuna study.

sampler = SurfaceSampler(cells=("global_batch_size",), num_trials=24, seed=0)
study = optuna.create_study(sampler=sampler)
study.optimize(objective, n_trials=24)  # suggests global_batch_size as a list, peak_lr as a range
sampler.best(study)  # each batch size's best recipe, with its expected regret
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from scaling.search.surface import Proposal, SurfaceSearch
from scaling.spec.phases import Stop
from scaling.surface.loss_surface import CellBest, Outcome
from scaling.surface.space import Axis, Space

_NO_BUDGET = 10**6
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class SurfaceSampler(optuna.samplers.BaseSampler):
    """Searches for the best setting at every value of some parameters, on one surface.

    The parameter `peak_lr` is taken for the learning rate and `global_batch_size` for the batch
    size. A trial that failed, was pruned or has no finite value lies above all others. What a
    trial is given follows from the trials of earlier rounds alone; with several at a time, one
    of an earlier round that has not ended yet is left out.
    """

    def __init__(
        self,
        cells: Sequence[str] = (),
        *,
        num_trials: int | None = None,
        round_size: int = 1,
        seed: int = 0,
        stop: Stop | None = None,
        prior_peak_lr: float | None = None,
        space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        """A sampler.

        Args:
            cells: Parameters, each suggested from a list, whose every combination is a cell: it
                gets a best setting of its own. Without any there is one cell.
            num_trials: Budget of the study; every cell has a trial by its end.
            round_size: Trials of a round after the first.
            seed: Of the first round, and of what is drawn outside the surface.
            stop: When the study is stopped before its end.
            prior_peak_lr: A rate that is thought to be good at the middle cell.
            space: The parameters' distributions; where left out, the first trial is random and
                tells them.

        Raises:
            ValueError: If `num_trials` or `round_size` is less than 1.
        """
        for name, value in (("num_trials", num_trials), ("round_size", round_size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, is {value}")
        self._cells = tuple(cells)
        self._round_size, self._seed, self._stop = round_size, seed, stop
        self._num_trials = num_trials or _NO_BUDGET
        self._prior_peak_lr = prior_peak_lr
        self._given = dict(space) if space is not None else None
        self._intersection = IntersectionSearchSpace()
        self._independent = optuna.samplers.RandomSampler(seed=seed)
        self._round: tuple[Any, list[Proposal]] = (None, [])

    def reseed_rng(self) -> None:
        """Give what is drawn outside the surface another seed; a round's trials have none."""
        self._independent.reseed_rng()

    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002  # Optuna's signature
    ) -> dict[str, BaseDistribution]:
        """The space given, or else what all ended trials have in common."""
        if self._given is not None:
            return self._given
        common = self._intersection.calculate(study)
        return {name: known for name, known in common.items() if not known.single()}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The trial's place in its round.

        Raises:
            ValueError: If the study has several objectives, or a parameter of `cells` is no list.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        search = self._search(search_space)
        size, first = search.round_size, search.num_in_design
        start = 0 if trial.number < first else first + (trial.number - first) // size * size
        proposals = self._proposals(study, search, search_space, start)
        place = trial.number - start
        if place >= len(proposals):
            return {}
        cell, point = proposals[place]
        setting = {**search.space.cells[cell], **point}
        return {name: _nearest(known, setting[name]) for name, known in search_space.items()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value, for what is not part of the surface.

        Raises:
            ValueError: If the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,  # noqa: ARG002  # Optuna's signature
        values: Sequence[float] | None,  # noqa: ARG002
    ) -> None:
        """Stop the study where its regret is small enough; only where `stop` was given."""
        search_space = self.infer_relative_search_space(study, trial)
        if self._stop is None or not search_space:
            return
        search = self._search(search_space)
        # The trial that just ended counts at the end of the next one: it is not stored yet.
        outcomes = _outcomes(study, search.space, trial.number)
        is_round = trial.number >= search.num_in_design and (
            (trial.number - search.num_in_design) % search.round_size == 0
        )
        if is_round and outcomes and search.is_over(outcomes):
            study.stop()

    def best(self, study: optuna.Study) -> dict[tuple[Any, ...], CellBest]:
        """The best recipe of each cell by the values of its parameters; empty without trials.

        Values and regrets are of the objective, whichever its direction.
        """
        trials = study.get_trials(deepcopy=False)
        search_space = self.infer_relative_search_space(study, trials[-1]) if trials else {}
        search = self._search(search_space) if search_space else None
        outcomes = _outcomes(study, search.space, len(trials)) if search else []
        if search is None or not outcomes:
            return {}
        keys = [tuple(cell[name] for name in self._cells) for cell in search.space.cells]
        sign = _sign(study)
        bests = [
            best if best.value is None else replace(best, value=sign * best.value)
            for best in search.best(outcomes)
        ]
        return dict(zip(keys, bests, strict=True))

    def _proposals(
        self,
        study: optuna.Study,
        search: SurfaceSearch,
        search_space: Mapping[str, BaseDistribution],
        start: int,
    ) -> list[Proposal]:
        outcomes = _outcomes(study, search.space, start)
        key = (start, tuple(search_space.items()), tuple(o.value for o in outcomes))
        if self._round[0] != key:
            self._round = key, search.proposals(outcomes, start)
        return self._round[1]

    def _search(self, search_space: Mapping[str, BaseDistribution]) -> SurfaceSearch:
        lists: list[tuple[Any, ...]] = []
        for name in self._cells:
            known = search_space.get(name)
            if not isinstance(known, CategoricalDistribution):
                raise ValueError(f"cells: {name} must be suggested from a list, is {known}")
            lists.append(known.choices)
        settings = [dict(zip(self._cells, v, strict=True)) for v in itertools.product(*lists)]
        axes = [_axis(n, known) for n, known in search_space.items() if n not in self._cells]
        return SurfaceSearch(
            Space(tuple(settings), tuple(axes)), self._num_trials, self._round_size, self._seed,
            self._stop, self._prior_peak_lr,
        )  # fmt: skip


def _outcomes(study: optuna.Study, space: Space, before: int) -> list[Outcome]:
    """Ended trials with a lower number, that lie in the space."""
    sign = _sign(study)
    found: list[Outcome] = []
    for trial in study.get_trials(deepcopy=False, states=_ENDED):
        point = {axis.name: trial.params.get(axis.name) for axis in space.axes}
        cell = next(
            (i for i, c in enumerate(space.cells) if c.items() <= trial.params.items()), None
        )
        if trial.number >= before or cell is None or None in point.values():
            continue
        done = trial.state == TrialState.COMPLETE and trial.value is not None
        found.append(Outcome(cell, point, sign * float(trial.value or 0.0) if done else None))
    return found


def _sign(study: optuna.Study) -> float:
    return -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0


def _axis(name: str, known: BaseDistribution) -> Axis:
    if isinstance(known, CategoricalDistribution):
        return Axis(name, choice=known.choices)
    assert isinstance(known, FloatDistribution | IntDistribution)
    return Axis(name, low=float(known.low), high=float(known.high), log=known.log)


def _nearest(known: BaseDistribution, value: Any) -> Any:
    """A value as the distribution has it: on its steps, and of its type."""
    if isinstance(known, CategoricalDistribution):
        return value
    assert isinstance(known, FloatDistribution | IntDistribution)
    if known.step is not None:
        steps = round((value - known.low) / known.step)
        value = min(known.low + steps * known.step, known.high)
    return int(value) if isinstance(known, IntDistribution) else float(value)
