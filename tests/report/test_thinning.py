"""Dense figures draw the best trials and an even choice of the others."""

from numpy.random import default_rng

from scaling.analysis.trial_rows import TrialRow, sweep_of
from scaling.records.study import StudyRecord
from scaling.report.charts.thinning import lower_envelope, thinned_points, thinned_trials
from tests.analysis.synthetic import Truth, search, spec


def rows(trials: int) -> list[list[TrialRow]]:
    record = StudyRecord(spec(), tuple(search(Truth(), default_rng(0), trials=trials)))
    sweep = sweep_of(record)
    return [list(sweep.rows_of(cell, "search")) for cell in sweep.cells]


def test_few_trials_are_all_drawn() -> None:
    assert thinned_trials(rows(10), most=40) == rows(10)


def test_of_many_trials_the_best_stay_and_the_order_does() -> None:
    cells = rows(100)
    kept = thinned_trials(cells, most=80)
    for cell, drawn in zip(cells, kept, strict=True):
        assert len(drawn) == 20
        assert [row for row in cell if row in drawn] == drawn
        best = sorted(
            (row for row in cell if row.validation_loss), key=lambda r: r.validation_loss or 0
        )
        assert all(row in drawn for row in best[:5])
    assert any(row.status == "diverged" for drawn in kept for row in drawn)


def test_of_many_cells_no_more_trials_are_drawn_than_asked_for() -> None:
    cells = rows(10) * 25
    assert sum(map(len, thinned_trials(cells, most=30))) == 30
    assert sum(map(len, thinned_trials(cells, most=250))) <= 250


def test_a_curve_keeps_its_ends() -> None:
    points = thinned_points(range(1000), 50)
    assert (points[0], points[-1]) == (0, 999)
    assert len(points) <= 50


def test_the_envelope_keeps_the_lowest() -> None:
    points = [(1.0 + index / 100, abs(index - 500) / 100) for index in range(1000)]
    kept = lower_envelope(points, 20)
    assert len(kept) == 20
    assert min(loss for _, loss in kept) == 0.0
    assert lower_envelope(points[:5], 20) == tuple(points[:5])
