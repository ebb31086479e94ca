"""Everything the report says, as numbers: one call from rows to findings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits  # pyright: ignore -- it ships no types

from scaling.analysis.cell_results import CellResult, cell_results
from scaling.analysis.critical_batch.agreement import Agreement, Definition, agreements
from scaling.analysis.critical_batch.branched_training import BranchedTraining, branched_training
from scaling.analysis.critical_batch.noise_along_run import NoiseCurve, noise_curve
from scaling.analysis.critical_batch.overhead import Overhead, overhead
from scaling.analysis.critical_batch.regimes import LocalScaling, local_scaling
from scaling.analysis.critical_batch.target_curves import TargetCurve
from scaling.analysis.critical_batch.target_recipe import surface_of_steps
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.generalization.gap_relations import GapRelation, gap_relations
from scaling.analysis.generalization.loss_parts import LossParts, loss_parts
from scaling.analysis.generalization.matched_gap import MatchedGap, matched_gaps
from scaling.analysis.ladder.back_test import preferred_scale
from scaling.analysis.ladder.carried import CarriedRecipe, carried_recipes
from scaling.analysis.ladder.check import LadderCheck, check_of
from scaling.analysis.ladder.reading import LadderReading, read_ladder
from scaling.analysis.ladder.runs import problem_of, runs_of
from scaling.analysis.learning_rate.exponent import BestRate, LrScaling
from scaling.analysis.learning_rate.rule_regret import Regret, RuleCurve, regrets
from scaling.analysis.learning_rate.surface_reading import read_surface
from scaling.analysis.next_run.recommendation import Recommendation, recommend
from scaling.analysis.series import Series, all_series
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate
from scaling.analysis.trial_rows import Sweep
from scaling.spec.phases import Limits


@dataclass(frozen=True)
class NoiseScale:
    """The gradient noise scale of one cell, as a critical batch size.

    Attributes:
        estimate: In examples.
        global_batch_size: Of the cell it was measured in; None when it was not.
    """

    estimate: Estimate
    global_batch_size: int | None = None
    curve: NoiseCurve | None = None


@dataclass(frozen=True)
class Findings:
    """What a sweep shows, with intervals.

    Attributes:
        one_series: True when the cells differ in nothing but the batch size, so that a fit over
            all of them means something.
        series: Where they differ in more, the cells of each combination of the other axes, which
            differ in the batch size alone; empty where all cells are one series, and in a joint
            search.
        tradeoff: At the study's target; in a study without one, at the lowest loss that every
            cell reached, which was chosen after the fact.
        tradeoff_target: The loss of it; None where it is not known.
        regrets: Of each rule from the transfer's base batch size, as it was run.
        rule_curves: Of each rule between all pairs of batch sizes, by the surface.
        rate_band: The surface's best rates between the batch sizes.
        regimes: What a larger batch still buys, at each batch size of the trade-off.
        overhead: Where 20% more examples are spent than at a reference batch.
        agreements: The critical batch sizes of different definitions, by pairs.
        noise_curves: The noise scale along the runs, in the order of the cells.
        loss_parts: What of a larger batch's loss is due to fewer updates.
        ladder: What runs of several sizes say, by the count of a size that predicts better; None
            where all have one size, or the runs are too few.
        carried: The whole recipe of each of the ladder's predictions, by rules; empty for a table.
        check: What training a ladder's last size at its prediction, and around it, came to.
    """

    sweep: Sweep
    cells: tuple[CellResult, ...]
    one_series: bool
    series: tuple[Series, ...]
    lr_scaling: LrScaling
    tradeoff: TradeoffFit
    noise_scale: NoiseScale
    regrets: tuple[Regret, ...]
    rule_curves: tuple[RuleCurve, ...]
    rate_band: tuple[BestRate, ...]
    matched_gaps: tuple[MatchedGap, ...]
    tradeoff_target: float | None
    regimes: tuple[LocalScaling, ...]
    overhead: Overhead
    agreements: tuple[Agreement, ...]
    target_curves: tuple[TargetCurve, ...]
    noise_curves: tuple[NoiseCurve, ...]
    loss_parts: tuple[LossParts, ...]
    gap_relations: tuple[GapRelation, ...]
    branched: BranchedTraining
    recommendation: Recommendation
    ladder: LadderReading | None
    carried: tuple[CarriedRecipe, ...]
    check: LadderCheck | None

    @property
    def num_search(self) -> int:
        """Search trials of the whole study."""
        return sum(cell.num_trials for cell in self.cells)

    def count(self, status: str) -> int:
        """Trials of all phases that ended so."""
        return sum(row.status == status for row in self.sweep.rows)


def analyse(sweep: Sweep) -> Findings:
    """All findings of a sweep; what the data do not allow is absent, never guessed."""
    searches = [sweep.steady_search(cell) for cell in sweep.cells]
    with threadpool_limits(1):  # the matrices are small, and sums on threads differ in the end
        reading = None if sweep.is_joint else read_surface(sweep, searches)
        cells = cell_results(sweep, reading, surface_of_steps(sweep))
        series = () if sweep.is_joint else all_series(sweep, cells, reading)
    whole = next((s for s in series if not s.others and len(s.cells) == len(cells)), None)
    along = whole or Series(
        {},
        LrScaling(ABSENT, missing="cells_differ_otherwise"),
        TradeoffFit(missing="cells_differ_otherwise"),
        sweep.target,
    )
    fit = along.tradeoff
    noise_curves = tuple(
        noise_curve(cell.replicates, has_target=sweep.has_target) for cell in cells
    )
    noise_scale = NoiseScale(ABSENT)
    if whole and cells:
        noise_scale = _noise_scale(sweep, cells, noise_curves)
    branched = branched_training(sweep)
    sizes, steps = _mean_steps(along)
    ladder = _ladder(sweep)
    return Findings(
        sweep=sweep,
        cells=cells,
        one_series=whole is not None,
        series=() if whole or sweep.ladder else series,
        lr_scaling=along.lr_scaling,
        tradeoff=fit,
        noise_scale=noise_scale,
        regrets=regrets(sweep),
        rule_curves=along.rule_curves,
        rate_band=along.rate_band,
        matched_gaps=matched_gaps(cells, sweep.base_batch_size),
        tradeoff_target=along.tradeoff_target,
        regimes=local_scaling(fit, sizes),
        overhead=overhead(fit, sizes, steps),
        agreements=agreements(
            {
                "steps_examples": fit.headline,
                **_noise_beside(noise_scale),
                "branched": _branched_estimate(branched),
            }
        ),
        target_curves=along.target_curves,
        noise_curves=noise_curves,
        loss_parts=loss_parts(cells, sweep.base_batch_size) if whole else (),
        gap_relations=gap_relations(cells) if not sweep.is_joint else (),
        branched=branched,
        recommendation=recommend(sweep, cells),
        ladder=ladder,
        carried=carried_recipes(sweep, ladder.question, ladder.predictions) if ladder else (),
        check=check_of(sweep),
    )


def within(found: Findings, limits: Limits) -> Findings:
    """The same findings, with what to run within other limits."""
    sweep = replace(found.sweep, limits=limits)
    return replace(found, sweep=sweep, recommendation=recommend(sweep, found.cells))


def _ladder(sweep: Sweep) -> LadderReading | None:
    question = sweep.ladder
    if question is None or problem_of(sweep, question.scale) is not None:
        return None
    others = [names for names in question.other_scales if problem_of(sweep, names) is None]
    runs = {names: runs_of(sweep, names) for names in (question.scale, *others)}
    if len(runs) > 1:
        question = replace(question, scale=preferred_scale(runs, question.tokens_per_example))
    return read_ladder(runs[question.scale], question)


def _noise_beside(scale: NoiseScale) -> dict[Definition, Estimate]:
    """The noise scale that a trade-off is comparable with: where the runs reached the target."""
    if scale.curve is not None and scale.curve.at_target.value:
        return {"noise_scale_at_target": scale.curve.at_target}
    return {"noise_scale_at_end": scale.estimate}


def _branched_estimate(branched: BranchedTraining) -> Estimate:
    """At the last point; a batch that is only a bound is no estimate."""
    last = branched.last
    if last is None or last.value is None or last.is_bound:
        return ABSENT
    return Estimate(last.value, last.interval)


def _mean_steps(series: Series) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """By rising batch size, of the cells behind the trade-off."""
    points = sorted(
        (cell.global_batch_size, target.steps.value)
        for cell, target in zip(series.cells, series.reached, strict=True)
        if cell.global_batch_size is not None and target.steps.value and target.first_gap is None
    )
    return tuple(size for size, _ in points), tuple(steps for _, steps in points)


def _noise_scale(
    sweep: Sweep, cells: Sequence[CellResult], curves: Sequence[NoiseCurve]
) -> NoiseScale:
    """At the base batch of the transfer, else at the middle one."""
    pairs = list(zip(cells, curves, strict=True))
    ordered = sorted(pairs, key=lambda pair: pair[0].global_batch_size or 0)
    base = [pair for pair in pairs if pair[0].global_batch_size == sweep.base_batch_size]
    chosen, curve = base[0] if base else ordered[(len(ordered) - 1) // 2]
    if chosen.noise_scale.value is None or chosen.global_batch_size is None:
        return NoiseScale(chosen.noise_scale)
    return NoiseScale(chosen.noise_scale, chosen.global_batch_size, curve)
