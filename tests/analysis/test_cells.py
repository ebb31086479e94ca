"""Gaps, targets, regrets, flags and the noise scale of planted studies."""

from dataclasses import replace

import pytest
from numpy.random import Generator, default_rng

from scaling.analysis.cell_results import CellResult, cell_results
from scaling.analysis.critical_batch.targets import best_recipe, fastest
from scaling.analysis.findings import analyse
from scaling.analysis.learning_rate.rule_regret import Regret, regrets
from scaling.analysis.learning_rate.tuning import expected_best
from scaling.analysis.trial_rows import TrialRow, sweep_of
from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord
from scaling.report.tables.study_tables import regret_table
from scaling.report.words.remarks import flags
from scaling.report.words.why_null import of_regret
from tests.analysis.synthetic import BATCHES, Truth, joint_study, spec, study, trial


@pytest.fixture(scope="module")
def planted() -> StudyRecord:
    return study()


@pytest.fixture(scope="module")
def cells(planted: StudyRecord) -> tuple[CellResult, ...]:
    return cell_results(sweep_of(planted))


def test_planted_gap_is_covered(cells: tuple[CellResult, ...]) -> None:
    for cell in cells:
        assert cell.held_out == "test_loss"
        assert cell.gap.value == pytest.approx(0.2)
        assert cell.gap.interval is not None
        # the seeds agree exactly, so what is left is 1.645 · hypot(0.004, 0.003)
        assert cell.gap.interval == pytest.approx((0.2 - 0.00822, 0.2 + 0.00822), abs=1e-4)


def test_gap_without_confirm_uses_validation_and_has_no_interval() -> None:
    record = study(confirm=None, transfer=None, num_seeds=0)
    cell = cell_results(sweep_of(record))[0]
    assert (cell.source, cell.held_out, cell.num_seeds) == ("search", "validation_loss", 0)
    assert cell.gap.value == pytest.approx(0.19)
    assert cell.gap.interval is None
    assert cell.test_loss.value is None


def test_a_workload_without_train_loss_has_no_gap(planted: StudyRecord) -> None:
    def stripped(m: Measurement) -> Measurement:
        return Measurement(
            m.step, m.examples, m.tokens, m.seconds, validation_loss=m.validation_loss
        )

    trials = tuple(
        replace(t, measurements=tuple(map(stripped, t.measurements))) for t in planted.trials
    )
    cell = cell_results(sweep_of(replace(planted, trials=trials)))[0]
    assert cell.gap.value is None
    assert cell.noise_scale.value is None
    assert cell.validation_loss.interval is not None


def test_steps_to_target_are_means_over_confirm_seeds(cells: tuple[CellResult, ...]) -> None:
    for cell in cells:
        assert cell.global_batch_size is not None
        assert cell.target.num_reached == 3
        expected = Truth().steps_to_target(cell.global_batch_size)
        assert cell.target.steps.value == pytest.approx(expected, rel=0.03)
        assert cell.target.examples.value == pytest.approx(
            expected * cell.global_batch_size, rel=0.03
        )
        assert cell.target.seconds.interval is not None


def test_one_censored_seed_leaves_no_mean(planted: StudyRecord) -> None:
    last = planted.trials[48]
    assert last.phase == "confirm"
    high = tuple(replace(m, validation_loss=2.0) for m in last.measurements)
    trials = (*planted.trials[:48], replace(last, measurements=high), *planted.trials[49:])
    before = cell_results(sweep_of(planted))[0]
    cell = cell_results(sweep_of(replace(planted, trials=trials)))[0]
    assert cell.target.steps.value is None
    assert (cell.target.num_reached, len(cell.target.trials)) == (2, 3)
    # Beside the number of search trials stand those of them, else it could be 6 of 5.
    assert cell.num_censored == before.num_censored


def test_without_confirm_the_fastest_search_trial_counts() -> None:
    record = study(confirm=None, transfer=None, num_seeds=0)
    for cell in cell_results(sweep_of(record)):
        rows = sweep_of(record).rows_of(cell.cell, "search")
        steps = [row.steps_to_target for row in rows if row.steps_to_target is not None]
        assert cell.target.steps.value == min(steps)
        assert cell.target.steps.interval is None


def test_diverged_trials_are_counted_and_have_no_loss(planted: StudyRecord) -> None:
    sweep = sweep_of(planted)
    diverged = [row for row in sweep.rows if row.status == "diverged"]
    assert {row.phase for row in diverged} > {"search"}
    assert all(row.validation_loss is None and row.steps_to_target is None for row in diverged)
    of_search = sum(row.phase == "search" for row in diverged)
    assert sum(cell.num_diverged for cell in cell_results(sweep)) == of_search


def test_noise_scale_is_covered(planted: StudyRecord) -> None:
    noise = analyse(sweep_of(planted)).noise_scale
    assert noise.global_batch_size == 64
    assert noise.estimate.interval is not None
    assert noise.estimate.interval[0] < 100 < noise.estimate.interval[1]


def test_regret_is_paired_by_seed(planted: StudyRecord) -> None:
    by_rule = {(r.rule, r.global_batch_size): r for r in regrets(sweep_of(planted))}
    assert {batch for _, batch in by_rule} == set(BATCHES) - {64}
    sqrt = by_rule["sqrt", 256]
    assert sqrt.interval is not None
    assert sqrt.interval[0] < 0 < sqrt.interval[1]
    none = by_rule["none", 1024]
    truth = Truth()
    expected = truth.loss(1024, truth.optimum(64)) - truth.loss(1024, truth.optimum(1024))
    assert none.regret == pytest.approx(expected, abs=0.006)
    assert none.num_seeds == 3
    linear = by_rule["linear", 1024]
    assert (linear.regret, linear.interval, linear.diverged) == (None, None, True)


def test_no_rule_wins_where_a_seed_of_the_tuned_recipe_diverged(planted: StudyRecord) -> None:
    sweep = sweep_of(planted)
    rows = list(sweep.rows)
    place = next(
        n for n, r in enumerate(rows) if (r.phase, r.global_batch_size) == ("confirm", 256)
    )
    none = {"objective": None, "validation_loss": None, "test_loss": None}
    rows[place] = replace(rows[place], status="diverged", **none)
    found = analyse(replace(sweep, rows=tuple(rows)))
    regret = next(r for r in found.regrets if (r.rule, r.global_batch_size) == ("sqrt", 256))
    assert (regret.regret, regret.diverged, regret.tuned_diverged) == (None, False, True)
    assert of_regret(regret) == "a run with the recipe tuned at this batch size diverged"
    said = "A seed of the recipe tuned at 256 diverged: no rule has a regret there."
    assert said in flags(found)
    assert regret_table(found).rows[found.regrets.index(regret)][-1] == "the tuned recipe diverged"
    parts = next(p for p in found.loss_parts if p.global_batch_size == 256)
    assert (parts.total.value, parts.missing) == (None, "seed_diverged")


def test_a_refused_rule_is_not_applicable(planted: StudyRecord) -> None:
    refusal = [{"rule": "adam_sde", "global_batch_size": 1024, "why": "kappa"}]
    transfer = {"base_batch_size": 64, "rules": ["adam_sde"]}
    record = StudyRecord(spec(transfer=transfer), planted.trials, {"rules_refused": refusal})
    found = {r.global_batch_size: r for r in regrets(sweep_of(record))}
    assert found[1024] == Regret("adam_sde", 1024, applicable=False)
    assert found[256].applicable


def test_edge_of_the_range_is_undertuned() -> None:
    cells = cell_results(sweep_of(study(Truth(exponent=0.0, best_lr=3.0))))
    assert all(cell.undertuned for cell in cells)
    assert all(cell.best_peak_lr_interval is None for cell in cells)


def test_a_bracketed_optimum_is_not_undertuned(cells: tuple[CellResult, ...]) -> None:
    assert not any(cell.undertuned for cell in cells)


def test_a_lucky_single_trial_is_not_the_best_recipe() -> None:
    def trials(rng: Generator, lower: float) -> list[TrialRow]:
        """Four recipes of three seeds, and eight of one; the last one may be better."""
        found: list[TrialRow] = []
        for recipe in range(12):
            for seed in range(3 if recipe < 4 else 1):
                loss = 2 + 0.02 * rng.standard_normal() - lower * (recipe == 11)
                found.append(TrialRow(
                    f"{recipe}-{seed}", "search", "done", {}, 16, f"recipe {recipe}", seed=seed,
                    objective=loss, validation_loss=loss, steps=100, steps_to_target=50 * loss,
                ))  # fmt: skip
        return found

    for find in (best_recipe, fastest):
        rng = default_rng(0)
        lucky = sum(len(find(trials(rng, 0.0))) == 1 for _ in range(200))
        assert lucky < 0.15 * 200
        assert all(find(trials(rng, 0.2))[0].recipe_key == "recipe 11" for _ in range(20))


def test_two_seeds_of_a_poor_recipe_displace_no_better_one() -> None:
    """A pair has one degree of freedom: within its noise is everything."""
    losses = [(f"recipe {n}", 0, 2.0 + 0.05 * n) for n in range(9)]
    losses += [("poor", 1, 2.31), ("poor", 2, 2.43)]
    rows = [
        TrialRow(
            f"{key}-{seed}", "search", "done", {}, 16, key, seed=seed, objective=loss,
            validation_loss=loss,
        )
        for key, seed, loss in losses
    ]  # fmt: skip
    assert [row.recipe_key for row in best_recipe(rows)] == ["recipe 0"]


def test_expected_best_of_n() -> None:
    assert expected_best([3.0, 1.0, 2.0], 1) == pytest.approx(2.0)
    assert expected_best([3.0, 1.0, 2.0], 2) == pytest.approx((1 + 1 + 2) / 3)
    assert expected_best([3.0, 1.0, 2.0], 3) == 1.0


def test_joint_search_has_one_cell_and_no_exponent() -> None:
    findings = analyse(sweep_of(joint_study()))
    assert findings.sweep.is_joint
    assert [dict(cell.cell) for cell in findings.cells] == [{}]
    assert findings.cells[0].best is not None
    assert findings.cells[0].global_batch_size == findings.cells[0].best.global_batch_size
    assert findings.lr_scaling.exponent.value is None
    assert findings.tradeoff.value is None


def test_cells_of_two_axes_are_told_apart() -> None:
    rng = default_rng(0)
    cells = [{"global_batch_size": b, "optimizer": o} for b in (16, 64) for o in ("adamw", "sgd")]
    trials = tuple(
        trial(Truth(), "search", c["global_batch_size"], lr, number=10 * i + j, rng=rng, cell=c)
        for i, c in enumerate(cells)
        for j, lr in enumerate((1e-3, 3e-3, 1e-2))
    )
    scientific = {"global_batch_size": [16, 64], "optimizer": ["adamw", "sgd"]}
    record = StudyRecord(spec(scientific=scientific, transfer=None, confirm=None), trials)
    findings = analyse(sweep_of(record))
    assert [cell.series for cell in findings.cells] == ["optimizer adamw", "optimizer sgd"] * 2
    assert not findings.one_series
    assert findings.tradeoff.value is None


def test_fixed_rates_give_no_exponent() -> None:
    rng = default_rng(0)
    trials = tuple(
        trial(Truth(), "search", b, Truth().optimum(b), number=0, rng=rng, choices={})
        for b in BATCHES
    )
    record = StudyRecord(spec(transfer=None, confirm=None), trials)
    findings = analyse(sweep_of(record))
    assert findings.lr_scaling.exponent.value is None
    assert findings.cells[0].best_peak_lr == Truth().optimum(16)
    assert findings.tradeoff.value == pytest.approx(100, rel=0.1)


def test_seconds_of_a_seed_on_a_busy_machine_leave_the_interval_above_zero() -> None:
    record = study()
    trials = tuple(
        replace(t, measurements=tuple(replace(m, seconds=20 * m.seconds) for m in t.measurements))
        if t.phase == "confirm" and t.recipe.seed == 100
        else t
        for t in record.trials
    )
    for cell in analyse(sweep_of(replace(record, trials=trials))).cells:
        low, high = cell.target.seconds.interval or (0.0, 0.0)
        assert 0 < low < (cell.target.seconds.value or 0.0) < high
