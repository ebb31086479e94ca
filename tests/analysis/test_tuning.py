"""Cells that were searched enough are not flagged; those that were not, are."""

import math

import pytest
from numpy.random import Generator, default_rng

from scaling.analysis.cell_results import cell_results
from scaling.analysis.critical_batch.targets import best_recipe
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.trial import Status

BATCHES = (8, 32, 128, 512)


def sweep(
    rng: Generator, costs: tuple[float, ...], *, best_lr: float = 2e-3, trials: int = 12
) -> Sweep:
    """Twelve trials a cell, rates spread over 5e-5 … 1e-1, each nuisance costing up to `costs`."""
    rows: list[TrialRow] = []
    for batch in BATCHES:
        for index in range(trials):
            share = (index + float(rng.random())) / trials
            lr = 5e-5 * (1e-1 / 5e-5) ** share
            settings = rng.random(len(costs))
            loss = 2.0 + 0.1 * math.log(lr / best_lr) ** 2 + 0.005 * float(rng.standard_normal())
            loss += sum(cost * float(s) ** 2 for cost, s in zip(costs, settings, strict=True))
            rows.append(
                TrialRow(
                    trial_id=f"{batch}-{index}", phase="search", status="done",
                    cell={"global_batch_size": batch}, global_batch_size=batch,
                    recipe_key=f"{batch}-{index}", peak_lr=lr, objective=loss,
                    validation_loss=loss,
                    choices={"peak_lr": lr} | {f"n{i}": float(s) for i, s in enumerate(settings)},
                )
            )  # fmt: skip
    return Sweep("s", "q", tuple(rows), tuple({"global_batch_size": b} for b in BATCHES))


def share_flagged(costs: tuple[float, ...], best_lr: float = 2e-3, studies: int = 15) -> float:
    flags = [
        bool(cell.undertuned)
        for seed in range(studies)
        for cell in cell_results(sweep(default_rng(seed), costs, best_lr=best_lr))
    ]
    return sum(flags) / len(flags)


@pytest.mark.parametrize("costs", [(), (0.05,), (0.05, 0.03), (0.05, 0.03, 0.02)])
def test_clean_cells_are_rarely_flagged(costs: tuple[float, ...]) -> None:
    assert share_flagged(costs) <= 0.1


@pytest.mark.parametrize("best_lr", [1e-6, 1.0])
def test_an_optimum_beyond_the_rates_is_flagged(best_lr: float) -> None:
    assert share_flagged((0.05, 0.03), best_lr) >= 0.95


def test_a_search_too_thin_for_its_space_is_flagged() -> None:
    assert share_flagged((0.8, 0.8, 0.8, 0.8)) >= 0.9


def test_the_reason_names_the_end_that_is_short() -> None:
    (first, *_) = cell_results(sweep(default_rng(0), (), best_lr=1e-6))
    assert first.undertuned[0] in ("lowest_rate_best", "falls_towards_lowest")
    assert first.curve is not None
    assert first.curve.optimum is None


def test_steps_alone_do_not_say_that_rates_are_too_few() -> None:
    """Of four rates, twice apart each, the best of more is always lower."""
    rows = tuple(
        TrialRow(
            trial_id=f"{batch}-{rate}", phase="search", status="done",
            cell={"global_batch_size": batch}, global_batch_size=batch,
            recipe_key=f"{batch}-{rate}", peak_lr=rate,
            objective=(steps := 1000 / batch * (1 + math.log(rate / 3e-3) ** 2)),
            steps_to_target=steps,
        )
        for batch in BATCHES
        for rate in (1e-3, 2e-3, 4e-3, 8e-3)
    )  # fmt: skip
    cells = tuple({"global_batch_size": b} for b in BATCHES)
    found = Sweep("s", "q", rows, cells, has_target=True, objective="steps_to_target")
    assert not any(cell.undertuned for cell in cell_results(found))


def test_how_much_a_trial_missed_the_target_by_hides_no_fall() -> None:
    """Their numbers only order trials, and are billions of times the steps of the others."""
    rng = default_rng(0)
    clip_norms = rng.random(12)

    def flags(missed: float) -> tuple[str, ...]:
        steps = [100.0, *range(400, 470, 10), *[missed] * 4]
        rows = tuple(
            TrialRow(
                trial_id=f"{n}", phase="search", status="done", cell={"global_batch_size": 8},
                global_batch_size=8, recipe_key=f"{n}", peak_lr=1e-3, objective=steps[n],
                choices={"peak_lr": 1e-3, "clip_norm": float(clip_norms[n])},
            )
            for n in range(12)
        )  # fmt: skip
        [cell] = cell_results(Sweep("s", "q", rows, ({"global_batch_size": 8},)))
        return cell.undertuned

    assert flags(460.0) == flags(2.1e12) == ("best_still_falling",)


def test_a_run_that_was_stopped_is_the_best_only_where_none_ran_to_its_end() -> None:
    def run(rate: float, loss: float, status: Status) -> TrialRow:
        return TrialRow(
            trial_id=f"{rate}", phase="search", status=status, cell={"global_batch_size": 8},
            global_batch_size=8, recipe_key=f"{rate}", peak_lr=rate, objective=loss,
            validation_loss=loss, choices={"peak_lr": rate},
        )  # fmt: skip

    stopped = [run(4e-3, 0.85, "stopped"), run(8e-3, 0.86, "stopped")]
    whole = [run(1e-3, 0.95, "done"), run(2e-3, 0.97, "done")]
    assert [row.peak_lr for row in best_recipe([*stopped, *whole])] == [1e-3]
    assert [row.peak_lr for row in best_recipe(stopped)] == [4e-3]
