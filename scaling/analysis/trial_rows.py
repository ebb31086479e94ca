"""Trials as the analysis sees them: one flat row each, from a study or from a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from scaling.analysis.conditions import Conditions, conditions_of
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.measured import of_run
from scaling.analysis.statistics.uncertainty import (
    SeedVariance,
    excess_variances,
    seed_variance,
)
from scaling.records.measurement import Measurement
from scaling.records.metrics import Metric, Unit, undescribed
from scaling.records.objective import (
    VALIDATION_LOSS,
    Objective,
    loss_unit,
    objective_of,
    objective_of_target,
)
from scaling.records.outcome import crossing, left_to_target, objective_value
from scaling.records.recipe import Recipe
from scaling.records.scale import NUM_PARAMETERS, WITHOUT_EMBEDDINGS, scale_names
from scaling.records.study import StudyRecord
from scaling.records.trial import Status, TrialRecord
from scaling.spec.phases import TO_TARGET, USUAL_STOP, Limits, Phase
from scaling.spec.study import StudySpec
from scaling.surface.loss_surface import Limit

Cell = Mapping[str, Any]

_UNSTABLE = 100.0
"""Times the variance of most recipes from which on a recipe's seeds have nothing in common."""


@dataclass(frozen=True, slots=True)  # tables have up to a million
class TrialRow:
    """One trial. Losses are per target, in the sweep's `loss_unit`; None is what was not measured.

    Attributes:
        recipe_key: Equal for trials that differ in the seed alone.
        objective: What the search minimizes; orders trials and is never a result.
        steps: Optimizer steps of the whole run.
        steps_to_target: Steps until the target was first reached; None when it never was.
        left_to_target: Share of the way from its first evaluation to the target that it had left
            at its end. None where longer runs would be other runs: its schedule knows the horizon,
            or its batch grows.
        first_gap: Of a trial that reached it before its second evaluation, the steps of the two.
        grad_sq_norm: Last estimate of |G|².
        grad_covariance_trace: Last estimate of tr Σ, for one example.
        choices: The nuisance values that the search drew.
        recipe: Of a study's own trial; None for a row of a table.
        search_round: Above 0 for a search trial beyond the range of the study file.
        measured: Each measurement of the run as one number, by its name in the record.
        metrics: The task's own metrics at the end.
        tuned_for: What recipes are compared by.
        incidents: What happened to the trial besides training, as in its record.
        error: One line, of a trial that failed.
    """

    trial_id: str
    phase: Phase
    status: Status
    cell: Cell
    global_batch_size: int
    recipe_key: str
    peak_lr: float | None = None
    seed: int | None = None
    rule: str | None = None
    warmup_steps: int | None = None
    clip_norm: float | None = None
    objective: float | None = None
    validation_loss: float | None = None
    validation_loss_stderr: float | None = None
    train_loss: float | None = None
    train_loss_stderr: float | None = None
    test_loss: float | None = None
    test_loss_stderr: float | None = None
    steps: float | None = None
    examples: float | None = None
    seconds: float | None = None
    steps_to_target: float | None = None
    examples_to_target: float | None = None
    seconds_to_target: float | None = None
    left_to_target: float | None = None
    first_gap: tuple[float, float] | None = None
    grad_sq_norm: float | None = None
    grad_covariance_trace: float | None = None
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recipe: Recipe | None = None
    measurements: tuple[Measurement, ...] = ()
    search_round: int = 0
    surface_round: int | None = None
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    tuned_for: Objective = VALIDATION_LOSS
    incidents: tuple[Mapping[str, Any], ...] = ()
    error: str | None = None

    @property
    def tuned_value(self) -> float | None:
        """What recipes are compared by, at the end of the run."""
        loss, objective = self.validation_loss, self.tuned_for
        return loss if objective.is_loss else self.metrics.get(objective.name)

    @property
    def cost(self) -> float | None:
        """The same with lower ones better: minus what is maximized."""
        value = self.tuned_value
        return None if value is None else self.tuned_for.oriented(value)

    @property
    def ended(self) -> bool:
        """True when the trial ran to an end that says something about its recipe."""
        return self.status in ("done", "stopped", "diverged")

    @property
    def censored(self) -> bool:
        """True when the trial ended normally and never reached the target."""
        return self.status in ("done", "stopped") and self.steps_to_target is None


@dataclass(frozen=True)
class Baseline:
    """What guessing by the training data's frequencies gives, whatever the input.

    Attributes:
        guess: What it guesses by, as in class frequencies.
        validation_loss: Per target, on the examples that trials are evaluated on.
        accuracy: Share of those targets that are the likeliest one.
    """

    guess: str
    validation_loss: float
    validation_loss_stderr: float | None = None
    test_loss: float | None = None
    test_loss_stderr: float | None = None
    accuracy: float | None = None
    loss_unit: Unit = VALIDATION_LOSS.unit


@dataclass(frozen=True)
class Sweep:
    """All trials of one question, and what must be known of the study to read them.

    Attributes:
        cells: The scientific values compared; one empty mapping for a joint search.
        has_target: True when steps to a target were counted.
        target: What to reach of `target_metric`; None when there is none or it is not known.
        rules: The rules of the transfer phase.
        base_batch_size: Examples per step at which the transferred recipe was tuned.
        refused: (rule, global_batch_size) at which a rule defines no recipe.
        tuned_for: What recipes are compared by at the end of their runs: the loss, or a metric.
        target_metric: What the target is a value of.
        loss_unit: Unit of every loss, gap and difference of losses; empty where it has no name.
        limits: What the next run may take.
        branch_tolerance: Loss by which a branch may end above its base; None without branches.
        baseline: The least that a trial has to beat; None where it was not measured.
        conditions: What the losses were measured under; None where that is not known.
        metrics: What is said of each of the task's own metrics.
        small_regret: The regret up to which a cell counts as searched enough.
        ladder: What is asked of runs of several sizes; None where all have one size.
    """

    name: str
    question: str
    rows: tuple[TrialRow, ...]
    cells: tuple[Cell, ...]
    has_target: bool = False
    target: float | None = None
    objective: str = "validation_loss"
    rules: tuple[str, ...] = ()
    base_batch_size: int | None = None
    refused: frozenset[tuple[str, int]] = frozenset()
    tuned_for: Objective = VALIDATION_LOSS
    target_metric: Objective = VALIDATION_LOSS
    loss_unit: Unit = VALIDATION_LOSS.unit
    limits: Limits = Limits()  # noqa: RUF009  # immutable
    branch_tolerance: float | None = None
    baseline: Baseline | None = None
    conditions: Conditions | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])
    small_regret: Limit = Limit(USUAL_STOP["regret_at_most_ratio"])  # noqa: RUF009  # immutable
    ladder: LadderQuestion | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether the trials were chosen by what earlier ones showed on the surface."""
        return any(row.surface_round is not None for row in self.rows)

    @property
    def is_joint(self) -> bool:
        """True when the batch size was searched together with the rest, in one empty cell."""
        return self.cells == ({},) and len({row.global_batch_size for row in self.rows}) > 1

    def rows_of(self, cell: Cell, phase: Phase) -> tuple[TrialRow, ...]:
        """The rows of one cell in one phase, in the order in which they were started."""
        found = (phases for known, phases in self._by_cell if known == cell)
        return tuple(row for phases in found for row in phases.get(phase, ()))

    def steady_search(self, cell: Cell) -> tuple[TrialRow, ...]:
        """The search rows of one cell as best rates are read from them.

        A recipe that is unstable in some of its seeds has no loss of its own: its rows count as
        diverged there.
        """
        unstable = self._unstable
        return tuple(
            replace(row, status="diverged", validation_loss=None, metrics={}, objective=None)
            if row.trial_id in unstable
            else row
            for row in self.rows_of(cell, "search")
        )

    @cached_property
    def _unstable(self) -> frozenset[str]:
        """Trials of recipes whose seeds differ many times more than those of most recipes do."""
        recipes: dict[tuple[int, str], dict[int, tuple[str, float]]] = {}
        for row in self.rows:
            if row.phase != "search" or row.status != "done":
                continue
            if row.seed is not None and row.cost is not None:
                key = (row.global_batch_size, row.recipe_key)
                recipes.setdefault(key, {})[row.seed] = (row.trial_id, row.cost)
        groups = [group for group in recipes.values() if len(group) > 1]
        costs = [{seed: cost for seed, (_, cost) in group.items()} for group in groups]
        excesses = excess_variances(costs)
        return frozenset(
            trial
            for group, excess in zip(groups, excesses, strict=True)
            if excess > _UNSTABLE
            for trial, _ in group.values()
        )

    @cached_property
    def least_loss(self) -> float | None:
        """What no loss is below: 0 where none of any trial is, as of likelihoods and squares."""
        splits = ("validation_loss", "train_loss", "test_loss")
        losses = (getattr(row, split) for row in self.rows for split in splits)
        return 0.0 if all(loss is None or loss >= 0 for loss in losses) else None

    @cached_property
    def loss_noise(self) -> SeedVariance | None:
        """Variance of `cost` over seeds, pooled over recipes that have several.

        None without a recipe that ran with two seeds, or where the search varied more than the
        rate: then losses at one rate differ by much more than seeds.
        """
        searched = {name for row in self.rows if row.phase == "search" for name in row.choices}
        if searched - {"peak_lr", "base_lr"}:
            return None
        groups: dict[tuple[object, ...], dict[int, float]] = {}
        cells: dict[int, object] = {}  # of the cells of a large table, which its rows share
        for row in self.rows:
            if row.seed is None or row.cost is None or not row.peak_lr:
                continue
            if row.phase in ("search", "confirm") and row.status == "done":
                cell = cells.get(id(row.cell))
                if cell is None:
                    cell = cells[id(row.cell)] = tuple(sorted(row.cell.items()))
                recipe = row.recipe_key if row.phase == "search" else row.phase
                key = (recipe, cell, row.peak_lr, row.global_batch_size)
                groups.setdefault(key, {})[row.seed] = row.cost
        return seed_variance(list(groups.values()))

    @cached_property
    def _by_cell(self) -> list[tuple[Cell, dict[Phase, list[TrialRow]]]]:
        """The rows by cell and phase, found in one pass."""
        groups: list[tuple[Cell, dict[Phase, list[TrialRow]]]] = []
        places: dict[int, int] = {}  # of the cells of a large table, which its rows share
        for row in self.rows:
            place = places.get(id(row.cell))
            if place is None:
                same = (n for n, (known, _) in enumerate(groups) if known == row.cell)
                place = places[id(row.cell)] = next(same, len(groups))
                if place == len(groups):
                    groups.append((row.cell, {}))
            groups[place][1].setdefault(row.phase, []).append(row)
        return groups


def sweep_of(study: StudyRecord) -> Sweep:
    """The rows of a recorded study; trials that are still running are left out."""
    spec, metrics = study.spec, study.metrics
    ended = [trial for trial in study.trials if trial.status != "running"]
    return Sweep(
        name=spec.name,
        question=spec.question,
        rows=tuple(row_of(trial, spec, metrics) for trial in ended),
        cells=_cells(spec, ended),
        has_target=spec.target is not None,
        target=spec.target.value if spec.target else None,
        target_metric=objective_of_target(spec.target, metrics) if spec.target else VALIDATION_LOSS,
        objective=spec.search.objective,
        tuned_for=objective_of(spec, metrics),
        loss_unit=loss_unit(metrics),
        rules=spec.transfer.rules if spec.transfer else (),
        base_batch_size=spec.transfer.base_batch_size if spec.transfer else None,
        refused=_refused(study.environment),
        limits=spec.recommendation,
        branch_tolerance=spec.branch.tolerance if spec.branch else None,
        baseline=_baseline(study.environment, loss_unit(metrics)),
        conditions=conditions_of(study),
        metrics=_described_metrics(metrics, ended),
        small_regret=_small_regret(spec),
        ladder=_ladder(study, ended) if spec.ladder is not None else None,
    )


def _ladder(study: StudyRecord, trials: Sequence[TrialRecord]) -> LadderQuestion:
    """What a study's ladder asks, of the numbers that its sizes differ in."""
    scales = [trial.scale for trial in trials]
    names = scale_names(scales)
    other = tuple(WITHOUT_EMBEDDINGS if name == NUM_PARAMETERS else name for name in names)
    has_other = other != names and all(WITHOUT_EMBEDDINGS in scale for scale in scales)
    return LadderQuestion(
        scale=names,
        predict=tuple(study.environment.get("predicted_scales") or ()),
        tokens_per_example=study.environment.get("tokens_per_example"),
        other_scales=(other,) if has_other else (),
        is_study=True,
    )


def _small_regret(spec: StudySpec) -> Limit:
    """Of the loss or metric at the end; one that is a number of steps says nothing of it."""
    stop = spec.search.stop
    if stop is None or spec.search.objective in TO_TARGET:
        return Sweep.small_regret
    return Limit(stop.regret_at_most_ratio, stop.regret_at_most)


def row_of(trial: TrialRecord, spec: StudySpec, metrics: Mapping[str, Metric]) -> TrialRow:
    """One trial as a row; a diverged or failed trial has no final losses and no target."""
    final = trial.final
    lost = trial.status in ("diverged", "failed")
    last = None if lost else final
    reached = None if lost or spec.target is None else crossing(trial.measurements, spec.target)
    noise = next((m for m in reversed(trial.measurements) if m.grad_sq_norm is not None), None)
    hparams = trial.recipe.hyperparameters
    return TrialRow(
        trial_id=trial.trial_id,
        phase=trial.phase,
        status=trial.status,
        cell=_sized_cell(trial),
        global_batch_size=hparams.global_batch_size,
        recipe_key=trial.trial_id,
        peak_lr=hparams.peak_lr,
        seed=trial.recipe.seed,
        rule=trial.rule,
        warmup_steps=hparams.warmup_steps,
        clip_norm=hparams.clip_norm,
        objective=objective_value(trial, spec, metrics),
        validation_loss=last.validation_loss if last else None,
        validation_loss_stderr=last.validation_loss_stderr if last else None,
        train_loss=last.train_loss if last else None,
        train_loss_stderr=last.train_loss_stderr if last else None,
        test_loss=last.test_loss if last else None,
        test_loss_stderr=last.test_loss_stderr if last else None,
        steps=final.step if final else None,
        examples=final.examples if final else None,
        seconds=final.seconds if final else None,
        steps_to_target=reached.steps if reached else None,
        examples_to_target=reached.examples if reached else None,
        seconds_to_target=reached.seconds if reached else None,
        left_to_target=None
        if hparams.has_horizon or spec.target is None
        else left_to_target(trial.measurements, spec.target),
        first_gap=reached.first_gap if reached else None,
        grad_sq_norm=noise.grad_sq_norm if noise else None,
        grad_covariance_trace=noise.grad_covariance_trace if noise else None,
        choices=dict(trial.choices),
        recipe=trial.recipe,
        measurements=trial.measurements,
        search_round=trial.search_round,
        surface_round=trial.surface_round,
        measured=of_run(trial.measurements),
        metrics=last.metrics if last else {},
        tuned_for=objective_of(spec, metrics),
        incidents=trial.incidents,
        error=trial.error,
    )


def incidents_of(row: TrialRow) -> list[Mapping[str, Any]]:
    """What happened to a trial besides training; that it failed, and why, is the last of it."""
    failed = [{"kind": "failed", "cause": row.error}] if row.status == "failed" else []
    return [*row.incidents, *failed]


def _cells(spec: StudySpec, trials: Sequence[TrialRecord]) -> tuple[Cell, ...]:
    """The cells that have trials, in the order of the study file."""
    axes = spec.scientific_values()
    if not axes:
        return ({},)
    seen: list[Cell] = []
    for trial in trials:
        if (cell := _sized_cell(trial)) not in seen:
            seen.append(cell)
    places = {name: [repr(value) for value in values] for name, values in axes.items()}

    def place(cell: Cell) -> list[int]:
        return [places[name].index(repr(cell[name])) for name in axes if name in cell]

    if spec.ladder is not None:  # a check's batch sizes are in no list
        return tuple(sorted(seen, key=lambda cell: list(cell.values())))
    return tuple(sorted(seen, key=place))


def _sized_cell(trial: TrialRecord) -> Cell:
    """The cell of a trial; in a ladder its batch size, and what makes its size large."""
    if not trial.scale:
        return dict(trial.cell)
    scale = {n: int(v) if v.is_integer() else v for n, v in trial.scale.items()}
    return {**scale, "global_batch_size": trial.cell["global_batch_size"]}


def _baseline(environment: Mapping[str, Any], unit: Unit) -> Baseline | None:
    guess, loss = environment.get("baseline"), environment.get("baseline_validation_loss")
    if guess is None or loss is None:
        return None
    rest = ("validation_loss_stderr", "test_loss", "test_loss_stderr", "accuracy")
    known = {name: environment.get(f"baseline_{name}") for name in rest}
    return Baseline(guess, loss, **known, loss_unit=unit)


def _described_metrics(
    described: Mapping[str, Metric], trials: Sequence[TrialRecord]
) -> dict[str, Metric]:
    """By the task; of one that it said nothing of, only the name is known."""
    measured = dict.fromkeys(
        name for trial in trials if trial.final is not None for name in trial.final.metrics
    )
    unknown = {name: undescribed(name) for name in measured if name not in described}
    return {name: metric for name, metric in described.items() if name in measured} | unknown


def _refused(environment: Mapping[str, Any]) -> frozenset[tuple[str, int]]:
    refusals = cast("list[dict[str, Any]]", environment.get("rules_refused") or [])
    return frozenset((str(r["rule"]), int(r["global_batch_size"])) for r in refusals)
