"""The page that shows a study while it runs."""

import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.driver.live_page import NAME, LivePage
from scaling.records.outcome import best_trial, objective_value
from tests.analysis.synthetic import study


def test_the_page_follows_the_trials_and_ends_with_them(tmp_path: Path) -> None:
    record = study()
    searched = [trial for trial in record.trials if trial.phase == "search"]
    first, second, *_ = searched
    with LivePage(record.spec, tmp_path, {}, {}) as page:
        page.phase("search")
        page.note("search: 2 of at most 40 trials have ended; expected regret 3%")
        page.trial_started(replace(first, status="running", measurements=()))
        page.trial_measured(first.trial_id, first.measurements)
        page.trial_ended(first)
        page.trial_started(replace(second, status="running", measurements=()))
        deadline = time.monotonic() + 60
        while not (tmp_path / NAME).exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running = (tmp_path / NAME).read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in running
    assert "ended: 1; still running:\n1." in running
    assert "expected regret 3%" in running
    assert f"peak\nlearning rate of {first.recipe.hyperparameters.peak_lr:.3g}" in running
    assert "data:image/svg+xml;base64," in running
    ended = (tmp_path / NAME).read_text(encoding="utf-8")
    assert "refresh" not in ended
    assert "All trials have ended" in ended


def test_a_study_that_stops_does_not_send_to_its_report(tmp_path: Path) -> None:
    record = study()
    page = LivePage(record.spec, tmp_path, {}, {record.trials[0].trial_id: record.trials[0]})
    with pytest.raises(KeyboardInterrupt), page:
        raise KeyboardInterrupt
    stopped = (tmp_path / NAME).read_text(encoding="utf-8")
    assert "--resume goes on" in stopped
    assert "report" not in stopped


@pytest.mark.parametrize("loss", [0.0, -2.5, math.inf, math.nan, 1e300])
def test_any_loss_is_drawn_or_left_out(tmp_path: Path, loss: float) -> None:
    record = study()
    first, *_ = record.trials
    odd = replace(first.measurements[-1], validation_loss=loss)
    trial = replace(first, measurements=(*first.measurements[:-1], odd))
    with LivePage(record.spec, tmp_path, {}, {}) as page:
        page.trial_ended(trial)
    assert (tmp_path / NAME).exists()


def test_it_asks_nothing_of_a_network_and_runs_no_text_of_a_study(tmp_path: Path) -> None:
    record = study()
    spec = record.spec.model_copy(update={"question": "<script>alert(1)</script>?"})
    with LivePage(spec, tmp_path, {}, {trial.trial_id: trial for trial in record.trials}):
        pass
    page = (tmp_path / NAME).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)


def test_a_folder_that_cannot_be_written_does_not_end_the_study(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    record = study()
    with LivePage(record.spec, tmp_path / "taken", {}, {}) as page:
        page.trial_ended(record.trials[0])
    assert (tmp_path / "taken").read_text() == ""


def test_a_chart_that_cannot_be_drawn_does_not_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("scaling.report.charts.running.running_curves")
    record = study()
    with LivePage(record.spec, tmp_path, {}, {}) as page:
        page.trial_ended(record.trials[0])
    assert "live.html was not written: cannot import name" in caplog.text


def test_a_start_that_is_refused_leaves_no_page(tmp_path: Path) -> None:
    with LivePage(study().spec, tmp_path, {}, {}) as page:
        page.note("waiting for 1 GPU")
    assert not (tmp_path / NAME).exists()


def test_a_search_by_steps_says_the_fewest_steps(tmp_path: Path) -> None:
    record = study(search={"trials_per_cell": 12, "objective": "steps_to_target"})
    with LivePage(record.spec, tmp_path, {}, {trial.trial_id: trial for trial in record.trials}):
        pass
    page = (tmp_path / NAME).read_text(encoding="utf-8")
    best = best_trial([t for t in record.trials if t.phase == "search"], record.spec, {})
    assert best is not None
    steps = objective_value(best, record.spec, {})
    assert f"The best steps_to_target so far is {steps:.4g}," in page
