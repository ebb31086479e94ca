"""Steps to several targets, censored cells, and a study without a target."""

from dataclasses import replace

import pytest

from scaling.analysis.cell_results import cell_results
from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from scaling.records.outcome import crossing
from scaling.records.study import StudyRecord
from scaling.report.summary import summarize
from scaling.spec.evaluation import Target
from tests.analysis.synthetic import BATCHES, Truth, study
from tests.recipes import changed


def at(*losses: tuple[int, float | None]) -> list[Measurement]:
    return [Measurement(step, 8 * step, 8 * step, step, validation_loss=v) for step, v in losses]


def steps_to(target: float, *losses: tuple[int, float | None]) -> float | None:
    reached = crossing(at(*losses), Target(at_most=target))
    return reached.steps if reached else None


def test_crossing_at_the_edges() -> None:
    assert steps_to(2.0, (0, 4.0), (10, 1.0)) == pytest.approx(5)  # halfway in the logarithm
    assert steps_to(2.0, (0, 4.0), (4, None), (10, 1.0)) == pytest.approx(5)
    assert steps_to(2.0, (0, 1.5), (10, 1.0)) == 0  # there at the first evaluation
    assert steps_to(2.0, (5, 1.5), (10, 3.0)) == 5  # rises again: it was reached
    assert steps_to(2.0, (0, 4.0), (10, 2.0), (20, 5.0)) == 10
    assert steps_to(2.0, (0, 4.0), (10, 3.0), (20, 4.5), (30, 2.25), (40, 1.0)) == pytest.approx(
        31.45, abs=0.01
    )
    assert steps_to(2.0, (0, 4.0), (10, 0.0)) == pytest.approx(5)  # no logarithm: linearly
    assert steps_to(2.0, (0, 4.0), (10, -4.0)) == pytest.approx(2.5)
    assert steps_to(2.0, (0, 4.0), (10, 2.01)) is None
    assert steps_to(2.0) is None


def test_every_cells_lowest_is_reached_by_all_and_smaller_targets_take_longer() -> None:
    curves = analyse(sweep_of(study())).target_curves
    assert "the study's" in {curve.origin for curve in curves}
    assert [curve.target for curve in curves] == sorted(
        (curve.target for curve in curves), reverse=True
    )
    everyone = next(curve for curve in curves if curve.origin == "every cell's")
    assert all(cell.num_reached == 3 for cell in everyone.cells)
    for place in range(len(BATCHES)):
        steps = [curve.cells[place].steps.value for curve in curves]
        assert steps == sorted(steps, key=lambda value: value or 0.0)
    assert everyone.fit.value == pytest.approx(100, rel=0.05)


def test_a_study_without_a_target_takes_what_every_cell_reached() -> None:
    findings = analyse(sweep_of(study(target=None)))
    assert findings.tradeoff.value == pytest.approx(100, rel=0.05)
    assert findings.tradeoff_target is not None
    everyone = max(
        min(m.validation_loss or 9.0 for m in row.measurements)
        for row in findings.sweep.rows
        if row.phase == "confirm"
    )
    assert everyone <= findings.tradeoff_target < 1.01 * everyone
    summary = summarize(findings)
    assert summary["cells"][0]["steps_to_target"] is None
    assert "the lowest that every batch reached" in summary["answer"]


@pytest.mark.parametrize("values", [{"schedule": "cosine"}, {"batch_ramp_at_examples": (100,)}])
def test_runs_that_know_their_horizon_give_no_further_target(values: dict[str, object]) -> None:
    record = study(target=None)
    trials = tuple(replace(t, recipe=changed(t.recipe, **values)) for t in record.trials)
    findings = analyse(sweep_of(replace(record, trials=trials)))
    assert findings.target_curves == ()
    assert findings.tradeoff.value is None


def test_a_censored_cell_has_a_lower_bound() -> None:
    record = study(target={"at_most": 0.01})
    for cell in cell_results(sweep_of(record)):
        size = cell.global_batch_size
        assert size is not None
        run = [t.final.step for t in record.trials if t.phase == "confirm" and t.final
               and t.recipe.hyperparameters.global_batch_size == size]  # fmt: skip
        assert cell.target.steps.value is None
        assert cell.target.above == pytest.approx(sum(run) / len(run))
        assert cell.target.best_tuned is None


def test_best_tuned_is_the_fastest_of_the_search_beside_the_confirm_mean() -> None:
    sweep = sweep_of(study())
    for cell in cell_results(sweep):
        steps = [row.steps_to_target for row in sweep.rows_of(cell.cell, "search")]
        assert cell.target.best_tuned == min(value for value in steps if value is not None)
        confirm = [row.steps_to_target or 0 for row in sweep.rows_of(cell.cell, "confirm")]
        assert cell.target.steps.value == pytest.approx(sum(confirm) / 3)
        assert cell.target.steps.value == pytest.approx(
            Truth().steps_to_target(cell.global_batch_size or 0), rel=0.03
        )


def test_a_search_that_never_reached_it_is_bounded_by_its_shortest_whole_run() -> None:
    record = study(target={"at_most": 0.01}, confirm=None, transfer=None, num_seeds=0)
    for cell in cell_results(sweep_of(record)):
        rows = sweep_of(record).rows_of(cell.cell, "search")
        assert cell.target.above == min(
            row.steps for row in rows if row.steps is not None and row.status == "done"
        )


def test_no_cells_no_curves() -> None:
    assert analyse(sweep_of(StudyRecord(study().spec, ()))).target_curves == ()
