"""What the surface says of real and of planted trials, through the whole analysis."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.learning_rate.exponent_of_surface import by_surface
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.report.summary import summarize
from scaling.report.words.learning_rate import law_words
from scaling.surface.path import BestRates
from tests.surface.planted import BATCHES, best_rate, loss

DATA = Path(__file__).parents[1] / "data"


def planted(
    rates: dict[int, list[float]], *, is_adaptive: bool = False, untrained: float | None = None,
    of: Callable[[int, float], float] = loss,
) -> Findings:  # fmt: skip
    first = Measurement(step=0, examples=0, tokens=0, seconds=0.0, validation_loss=untrained)
    rows = [
        TrialRow(
            trial_id=f"{batch}-{rate}", phase="search", status="done",
            cell={"global_batch_size": batch}, global_batch_size=batch,
            recipe_key=f"{batch} {rate}", peak_lr=rate, seed=0,
            objective=of(batch, rate), validation_loss=of(batch, rate),
            choices={"peak_lr": rate}, surface_round=0 if is_adaptive else None,
            measurements=() if untrained is None else (first,),
        )
        for batch, list_ in rates.items()
        for rate in list_
    ]  # fmt: skip
    cells = tuple({"global_batch_size": batch} for batch in rates)
    return analyse(Sweep("planted", "?", tuple(rows), cells))


def before_the_surface(*phases: str, shift: float = 0.0, rule: str | None = None) -> Findings:
    """The default study's trials of before the surface, 24 in the search of four batch sizes.

    `shift` is added to the losses of other seeds than the search's; `rule` takes the place of
    the transfer's.
    """
    table = pd.read_parquet(DATA / "lr_vs_batch.parquet")
    trials: Iterable[Any] = table[table.phase.isin(phases)].itertuples()
    rows = [
        TrialRow(
            trial_id=row.trial_id, phase=row.phase, status=row.status,
            cell={"global_batch_size": row.global_batch_size},
            global_batch_size=row.global_batch_size, recipe_key=row.trial_id, peak_lr=row.peak_lr,
            seed=row.seed, rule=rule or row.rule if row.phase == "transfer" else None,
            objective=row.validation_loss,
            validation_loss=row.validation_loss + shift * (row.phase != "search"),
            choices={"peak_lr": row.peak_lr}, surface_round=0 if row.phase == "search" else None,
        )
        for row in trials
    ]  # fmt: skip
    sizes = sorted({row.global_batch_size for row in rows})
    cells = tuple({"global_batch_size": size} for size in sizes)
    return analyse(Sweep("lr_vs_batch", "?", tuple(rows), cells))


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_the_default_study_s_trials_of_before_the_surface() -> None:
    """24 real trials of four batch sizes: about a third, and linear scaling is ruled out."""
    law = before_the_surface("search").lr_scaling
    assert law.from_surface
    assert law.exponent.value == pytest.approx(0.36, abs=0.08)
    assert law.exponent.interval is not None
    assert law.exponent.interval[1] < 0.6
    assert [entry.strength for entry in law.evidence][2] == "strong"


def test_evidence_ends_where_the_draws_end() -> None:
    """Paths that rise by 0.5 ± 0.01: 0 and 1 are far beyond a thousand draws, 0.51 is not."""
    exponents = 0.5 + 0.01 * np.random.default_rng(0).standard_normal((1000, 1))
    batches = (16, 64, 256)
    rates = BestRates(batches, exponents * np.log(batches), math.log(1e-5), math.log(10.0))
    none, half, linear = by_surface(rates).evidence
    assert half.likelihood_ratio < 1.1
    assert not half.is_bound
    for far in (none, linear):
        assert far.is_bound
        assert far.p_value == pytest.approx(2 / 1001)
        assert far.likelihood_ratio == pytest.approx(118.6, abs=0.1)


def losses_without_a_common_shape(batch: int, rate: float) -> float:
    """Level far below the best rate; above it a cliff at one rate for all batches."""
    distance = math.log(rate / best_rate(batch))
    if distance < 0:
        return 4 - 2 * math.exp(-0.07 * distance**2)
    beyond = max(0.0, math.log(rate / best_rate(BATCHES[-1])) - 0.3)
    return 2 + 0.021 * distance**2 + 3 * beyond**2


def test_where_a_test_refuses_a_common_shape_the_surface_is_read() -> None:
    rates = [7e-5 * 2000 ** (place / 11) for place in range(12)]
    found = planted(dict.fromkeys(BATCHES, rates), of=losses_without_a_common_shape)
    law = found.lr_scaling
    assert law.from_surface
    assert not law.has_common_shape
    assert "No single shape" in law_words(found)
    low, high = law.exponent.interval or (-math.inf, math.inf)
    assert low < 0.5 < high
    assert high - low < 0.7
    for cell in found.cells:
        low, high = cell.best_peak_lr_interval or (0.0, math.inf)
        assert 0 < low <= best_rate(cell.cell["global_batch_size"]) <= high


def test_cells_that_are_no_batch_sizes_keep_bounds_where_a_common_shape_is_refused() -> None:
    rates = [7e-5 * 2000 ** (place / 11) for place in range(12)]
    sweep = planted(dict.fromkeys(BATCHES, rates), of=losses_without_a_common_shape).sweep
    rows = tuple(
        replace(row, cell={"schedule": f"{row.global_batch_size}"}, global_batch_size=64)
        for row in sweep.rows
    )
    cells = tuple({"schedule": f"{batch}"} for batch in BATCHES)
    found = analyse(replace(sweep, rows=rows, cells=cells))
    for cell, batch in zip(found.cells, BATCHES, strict=True):
        assert cell.curve is not None
        assert not cell.curve.has_common_shape
        low, high = cell.best_peak_lr_interval or (0.0, math.inf)
        assert 0 < low < best_rate(batch) < high < math.inf


def test_a_basin_that_the_surface_contradicts_does_not_stand() -> None:
    """Six rates without noise: no test of the basins themselves refuses their common shape."""
    rates = [7e-5 * 2000 ** (place / 5) for place in range(6)]
    findings = planted(dict.fromkeys(BATCHES, rates), of=losses_without_a_common_shape)
    assert findings.lr_scaling.from_surface
    for cell in findings.cells:
        assert cell.curve is not None
        assert cell.curve.from_surface
        low, high = cell.curve.interval or (0.0, math.inf)
        assert low <= best_rate(cell.cell["global_batch_size"]) <= high
    alike = planted(dict.fromkeys(BATCHES, rates))
    assert not any(cell.curve.is_contradicted for cell in alike.cells if cell.curve)


def test_runs_of_confirm_and_transfer_count_too() -> None:
    phases = ("search", "confirm", "transfer")
    search, whole = before_the_surface("search"), before_the_surface(*phases)
    assert width(whole.lr_scaling.exponent.interval) < width(search.lr_scaling.exponent.interval)
    moving_more = before_the_surface(*phases, rule="adam_sde")
    without = before_the_surface("search", "confirm")
    assert moving_more.lr_scaling.exponent == without.lr_scaling.exponent


def test_what_other_seeds_add_to_all_losses_does_not_move_the_best_rates() -> None:
    phases = ("search", "confirm", "transfer")
    for one, other in zip(
        before_the_surface(*phases).cells, before_the_surface(*phases, shift=0.3).cells, strict=True
    ):
        assert one.best_peak_lr is not None
        assert other.best_peak_lr == pytest.approx(one.best_peak_lr, rel=0.3)


def test_cells_with_one_or_two_rates_have_a_best_rate_and_the_study_an_exponent() -> None:
    found = planted(
        {16: [3e-4, 1e-3, 3e-3, 1e-2], 64: [1e-3], 256: [1e-3, 4e-3, 2e-2], 1024: [3e-3, 2e-2]}
    )
    summary = summarize(found)
    for cell, batch in zip(summary["cells"], BATCHES, strict=True):
        low, high = cell["best_peak_lr_interval"] or (None, None)
        assert low is None or low < best_rate(batch)
        assert high is None or high > best_rate(batch)
        assert (low or 0.0) <= cell["best_peak_lr"] <= (high or math.inf)
        assert cell["expected_regret"] > 0
    low, high = summary["lr_scaling"]["interval"]
    assert low < 0.5 < high
    assert [entry["global_batch_size"] for entry in summary["lr_scaling"]["path"]] == list(BATCHES)
    assert 0 <= summary["lr_scaling"]["turns"]["probability"] <= 1


def test_an_edge_cell_has_a_one_sided_interval() -> None:
    rates = [1e-4 * 1.6**k for k in range(8)]  # up to 2.7e-3; at 1,024 the best rate is 8e-3
    cell = summarize(planted(dict.fromkeys(BATCHES, rates)))["cells"][3]
    assert cell["undertuned"]
    low, high = cell["best_peak_lr_interval"]
    assert high is None
    assert low < 8e-3


def test_a_fitted_basin_stands_unless_the_surface_chose_the_trials() -> None:
    rates = [1e-4 * 2.2**k for k in range(9)]
    designed, searched = (
        planted(dict.fromkeys(BATCHES, rates), is_adaptive=chosen) for chosen in (False, True)
    )
    assert not designed.lr_scaling.from_surface
    assert searched.lr_scaling.from_surface
    for found in (designed, searched):
        for cell, batch in zip(found.cells, BATCHES, strict=True):
            assert cell.best_peak_lr is not None
            assert abs(math.log(cell.best_peak_lr / best_rate(batch))) < 0.3


def test_a_searched_cell_is_undertuned_where_its_expected_regret_is_above_the_limit() -> None:
    sparse = planted({b: [1e-4, 1e-1] for b in BATCHES}, is_adaptive=True)
    dense = planted(
        {b: [best_rate(b) * 1.3**k for k in range(-6, 7)] for b in BATCHES}, is_adaptive=True
    )
    assert all(cell.undertuned == ("regret_above_limit",) for cell in sparse.cells)
    assert not any(cell.undertuned for cell in dense.cells)


def test_a_searched_cell_whose_rates_end_too_early_is_flagged() -> None:
    rates = [1e-4 * 1.6**k for k in range(8)]  # up to 2.7e-3; at 1,024 the best rate is 8e-3
    found = planted(dict.fromkeys(BATCHES, rates), is_adaptive=True)
    for cell, is_inside in zip(found.cells, (True, True, False, False), strict=True):
        assert ("highest_rate_best" not in cell.undertuned) == is_inside
    assert summarize(found)["cells"][3]["undertuned"]


@pytest.mark.parametrize("untrained", [None, 3.0])
def test_no_rule_costs_more_than_a_model_that_was_not_trained(untrained: float | None) -> None:
    """Rates that only the smallest and only the largest batch was run with."""
    low, high = [1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3], [8e-3, 1.6e-2, 3.2e-2, 6.4e-2]
    found = planted({BATCHES[0]: low, BATCHES[-1]: high}, untrained=untrained)
    highest = max(r.interval[1] for curve in found.rule_curves for r in curve.regrets)
    assert (highest < 1.3) == (untrained is not None)  # the lowest loss is 2


def test_rates_that_end_too_early_show_neither_a_turn_nor_a_wrong_rule() -> None:
    """The square root holds to 16,384, and the rates tried hold the best ones up to 1,024."""
    batches, rates = [4**power for power in range(2, 8)], list(np.geomspace(1e-4, 1e-2, 8))
    chance = np.random.default_rng(1)

    def noisy(batch: int, rate: float) -> float:
        return loss(batch, rate) + 0.01 * chance.standard_normal()

    findings = planted(dict.fromkeys(batches, rates), of=noisy)
    assert [cell.undertuned for cell in findings.cells[-2:]] == [("highest_rate_best",)] * 2
    law = summarize(findings)["lr_scaling"]
    assert law["turns"]["probability"] is None
    assert "may lie above those tried" in law["turns"]["why"]["probability"]
    [root] = [curve for curve in findings.rule_curves if curve.rule == "sqrt"]
    assert {regret.base_batch_size for regret in root.regrets} == set(batches[:-2])
    assert all(r.is_lower_bound for r in root.regrets if r.global_batch_size > 1024)
    assert root.mean.interval is not None
    assert root.mean.interval[0] < 0


def test_a_shape_that_another_series_refuses_gives_no_exponent() -> None:
    """Cells of one study are tested together; rates and exponents are then both the surface's."""
    chance, rates = np.random.default_rng(0), np.geomspace(1e-4, 1e-1, 12)
    cells = [{"global_batch_size": b, "optimizer": o} for o in ("sgd", "adamw") for b in BATCHES]

    def of(cell: dict[str, Any], rate: float) -> float:
        off = math.log(rate / best_rate(cell["global_batch_size"]))
        if cell["optimizer"] == "adamw":
            return 2 + 0.05 * off**2
        return 2 + (2 * (1 - math.exp(-0.1 * off**2)) if off < 0 else 0.03 * off**2)

    rows: list[TrialRow] = []
    for cell in cells:
        for number, rate in enumerate(rates):
            value = of(cell, rate) + 0.005 * chance.standard_normal()
            rows.append(
                TrialRow(
                    f"{cell}-{number}", "search", "done", cell, cell["global_batch_size"],
                    f"{cell}-{number}", peak_lr=float(rate), seed=0, objective=value,
                    validation_loss=value,
                )
            )  # fmt: skip
    findings = analyse(Sweep("planted", "?", tuple(rows), tuple(cells)))
    assert all(cell.curve and not cell.curve.has_common_shape for cell in findings.cells)
    for series in findings.series:
        assert series.lr_scaling.from_surface
        assert not series.lr_scaling.has_common_shape
