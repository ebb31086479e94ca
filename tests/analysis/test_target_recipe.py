"""Steps to the target are of the recipe for the target, losses of the recipe for the loss."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.report.summary import summarize
from scaling.report.words.headline import first_screen
from scaling.report.words.remarks import flags
from scaling.report.words.sources import sources
from tests.analysis.recorded import default_study
from tests.analysis.synthetic import study

BATCHES = (16, 64, 256, 1024)
FOR_LOSS, FOR_TARGET = 1e-3, 4e-3


def row(phase: str, batch: int, rate: float, seed: int, noise: float) -> TrialRow:
    """The final loss is least at one rate, the steps to the target at four times that."""
    steps = (50 + 5000 / batch) * math.exp(0.15 * math.log(rate / FOR_TARGET) ** 2 + noise)
    loss = 0.5 * math.exp(0.05 * math.log(rate / FOR_LOSS) ** 2 + 0.1 * noise)
    reached = steps if abs(math.log(rate / FOR_TARGET)) < 3 else None
    return TrialRow(
        f"{phase}-{batch}-{rate:.3g}-{seed}", phase, "done", {"global_batch_size": batch}, batch,  # type: ignore[arg-type]
        f"{phase}-{batch}-{rate}", peak_lr=rate, seed=seed, objective=loss, validation_loss=loss,
        steps=1000.0, examples=1000.0 * batch, seconds=10.0, steps_to_target=reached,
        examples_to_target=reached and reached * batch, choices={"peak_lr": rate},
        rule="none" if phase == "transfer" else None,
    )  # fmt: skip


def planted(*, with_transfer: bool) -> Sweep:
    rng = np.random.default_rng(0)
    rows: list[TrialRow] = []
    for batch in BATCHES:
        search = 1e-4 * 1e3 ** ((np.arange(7) + rng.random()) / 7)
        rows += [row("search", batch, rate, 0, 0.03 * rng.standard_normal()) for rate in search]
        for seed in (1, 2, 3):
            rows.append(row("confirm", batch, FOR_LOSS, seed, 0.03 * rng.standard_normal()))
            if with_transfer:
                near = 1.1 * FOR_TARGET
                rows.append(row("transfer", batch, near, seed, 0.03 * rng.standard_normal()))
    cells = tuple({"global_batch_size": batch} for batch in BATCHES)
    return Sweep(
        "planted", "?", tuple(rows), cells, has_target=True, target=1.0, rules=("none",),
        base_batch_size=64,
    )  # fmt: skip


def test_steps_are_of_the_recipe_for_the_target_and_losses_of_that_for_the_loss() -> None:
    """By the confirmed recipes every batch would take a third more steps."""
    summary = summarize(analyse(planted(with_transfer=True)))
    for cell in summary["cells"]:
        assert cell["best_peak_lr_for_target"] == pytest.approx(1.1 * FOR_TARGET)
        assert cell["recipe_peak_lr"] == FOR_LOSS
        assert cell["validation_loss"] == pytest.approx(0.5, rel=0.02)
        low, high = cell["steps_to_target_interval"]
        assert low < 50 + 5000 / cell["global_batch_size"] < high
    fit = summary["critical_batch_size"]["steps_examples"]
    assert fit["min_steps_interval"][0] < 50 < fit["min_steps_interval"][1]
    assert summary["recommendation"]["peak_lr"] == pytest.approx(1.1 * FOR_TARGET)


def test_without_seeds_near_it_the_search_s_own_trial_counts() -> None:
    summary = summarize(analyse(planted(with_transfer=False)))
    for cell in summary["cells"]:
        assert 0.4 < cell["best_peak_lr_for_target"] / FOR_TARGET < 2.5
        expected = 50 + 5000 / cell["global_batch_size"]
        assert cell["steps_to_target"] == pytest.approx(expected, rel=0.2)
        assert cell["steps_to_target_interval"] is None


def test_the_recipe_that_was_confirmed_for_the_target_comes_first() -> None:
    """Transfer runs that are as fast on their own seeds do not take its place."""
    sweep = planted(with_transfer=True)
    rng = np.random.default_rng(7)
    confirmed = [
        row("confirm_target", batch, 0.95 * FOR_TARGET, seed, 0.03 * rng.standard_normal())
        for batch in BATCHES
        for seed in (1, 2, 3)
    ]
    found = analyse(replace(sweep, rows=(*sweep.rows, *confirmed)))
    for cell in found.cells:
        assert cell.target.peak_lr == pytest.approx(0.95 * FOR_TARGET)
        assert {r.phase for r in cell.target.trials} == {"confirm_target"}
        assert cell.target.steps.count == 3
        assert {r.peak_lr for r in cell.replicates} == {FOR_LOSS}
    assert "It was confirmed with new seeds at global_batch_size 16" in sources(found)


def test_a_recipe_for_the_target_that_is_clearly_slower_than_another_is_not_taken() -> None:
    sweep = planted(with_transfer=True)
    slow = [row("confirm_target", b, 8 * FOR_TARGET, s, 0.0) for b in BATCHES for s in (1, 2, 3)]
    found = analyse(replace(sweep, rows=(*sweep.rows, *slow)))
    for cell in found.cells:
        assert cell.target.peak_lr == pytest.approx(1.1 * FOR_TARGET)


def test_the_default_study_s_trials() -> None:
    """At B = 8 its transfer runs took 433 to 451 steps, the confirmed recipe 505."""
    summary = summarize(analyse(default_study()))
    first = summary["cells"][0]
    assert first["steps_to_target"] == pytest.approx(440, abs=1)
    assert first["best_peak_lr_for_target"] == pytest.approx(0.00327, rel=0.01)
    assert first["recipe_peak_lr"] == pytest.approx(0.00168, rel=0.01)
    fit = summary["critical_batch_size"]["steps_examples"]
    assert (fit["value"], *fit["interval"]) == pytest.approx((92, 78, 109), abs=0.5)
    assert not fit["misfit_exceeds_seeds"]


def test_by_the_confirmed_recipes_alone_the_curve_fits_poorly() -> None:
    sweep = default_study()
    confirmed = tuple(
        replace(r, steps_to_target=r.steps_to_target if r.phase == "confirm" else None)
        for r in sweep.rows
    )
    fit = summarize(analyse(replace(sweep, rows=confirmed)))["critical_batch_size"][
        "steps_examples"
    ]
    assert (fit["value"], *fit["interval"]) == pytest.approx((106, 70, 163), abs=0.6)
    assert fit["misfit_exceeds_seeds"]


def test_the_words_name_both_recipes_and_unequal_examples() -> None:
    found = analyse(default_study())
    cost = next(line.text for line in first_screen(found) if line.topic == "cost")
    assert cost.startswith("At equal examples, from batch 8 to 128: final loss ")
    said = sources(found)
    assert "of each cell's recipe for the target" in said
    assert "differs from the recipe for the loss at global_batch_size 8" in said
    assert flags(found)[-1] == (
        "global_batch_size 512: its runs saw 28,672 examples, the shortest runs 10,000; losses and "
        "gaps are not at equal examples."
    )


def test_every_target_of_a_cell_is_of_one_recipe() -> None:
    """By the recipe for the loss 1.05 would take more steps than 1.0 takes by the other."""
    sweep = planted(with_transfer=True)
    recipe = study().trials[0].recipe
    assert recipe is not None
    rows = tuple(
        replace(
            r, recipe=recipe,
            measurements=tuple(
                Measurement(
                    step, step * (r.global_batch_size or 0), None, step,
                    validation_loss=math.exp(1 - step / (r.steps_to_target or math.inf)),
                )
                for step in range(0, 1001, 5)
            ),
        )
        for r in sweep.rows
    )  # fmt: skip
    curves = analyse(replace(sweep, rows=rows)).target_curves
    curves = [curve for curve in curves if all(t.steps.value for t in curve.cells)]
    assert len(curves) > 2
    for place in range(len(BATCHES)):
        reached = [curve.cells[place] for curve in curves]
        assert {t.peak_lr for t in reached} == {1.1 * FOR_TARGET}
        steps = [t.steps.value or math.inf for t in reached]
        assert steps == sorted(steps)
