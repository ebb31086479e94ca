"""Importance on planted searches: the rate decides, weight decay and clipping do not."""

import math
import subprocess
import sys

import pytest
from numpy.random import default_rng

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.charts.figures import figures
from scaling.report.importance import MIN_TRIALS, Importance, importance_of
from tests.analysis.synthetic import Truth, joint_study, spec, study, trial

NUISANCE = {
    "peak_lr": {"log_uniform": [1e-4, 1e-1]},
    "weight_decay": {"uniform": [0.0, 0.1]},
    "clip_norm": {"choice": [None, 1.0]},
}


def searched(num_trials: int, batches: tuple[int, ...] = (16, 64, 256), **changes: object):
    """A study whose loss depends on the rate alone."""
    rng = default_rng(0)
    trials: list[TrialRecord] = []
    for batch in batches:
        for number in range(num_trials):
            lr = float(10 ** rng.uniform(-4, -1))
            choices = {
                "peak_lr": lr,
                "weight_decay": float(rng.uniform(0, 0.1)),
                "clip_norm": None if rng.random() < 0.5 else 1.0,
            }
            trials.append(
                trial(Truth(), "search", batch, lr, number=number, rng=rng, choices=choices)
            )
    sections = {
        "scientific": {"global_batch_size": list(batches)},
        "transfer": None,
        "confirm": None,
        "nuisance": NUISANCE,
    }
    return StudyRecord(spec(**(sections | changes)), tuple(trials))


def found(record: StudyRecord) -> Importance:
    return importance_of(record, sweep_of(record))


def test_the_hyperparameter_that_decides_comes_first() -> None:
    importance = found(searched(24))
    assert next(iter(importance.shares)) == "peak_lr"
    rate = importance.shares["peak_lr"]
    assert rate.value is not None
    assert rate.interval is not None
    assert rate.value > 0.8
    others = [share for name, share in importance.shares.items() if name != "peak_lr"]
    assert all(share.interval and share.interval[1] < rate.interval[0] for share in others)
    assert rate.count == len(importance.by_cell) == 3
    assert importance.num_trials == 72
    for share in importance.shares.values():
        assert share.interval is not None
        assert 0 <= share.interval[0] <= (share.value or 0) <= share.interval[1] <= 1
    assert sum(share.value or 0 for share in importance.shares.values()) == pytest.approx(1)


def test_the_same_records_give_the_same_shares() -> None:
    record = searched(12, (16, 64))
    assert found(record) == found(record)


def test_one_search_gets_its_interval_from_its_trials() -> None:
    record = joint_study(trials=15)
    importance = found(record)
    assert set(importance.shares) == set(record.spec.nuisance.distributions())
    assert "jackknife" in importance.note
    assert all(share.interval is not None for share in importance.shares.values())


def test_too_few_trials_are_not_enough_data() -> None:
    assert "not enough data" in found(searched(MIN_TRIALS - 1)).note
    assert not found(searched(MIN_TRIALS - 1)).shares


def test_one_hyperparameter_has_no_rivals() -> None:
    assert found(study()).note == "fewer than two hyperparameters were searched"


def test_censored_trials_count_by_rank() -> None:
    """Their stand-ins of 1e12 would otherwise be all of the variance."""
    search = {"trials_per_cell": 24, "objective": "steps_to_target"}
    importance = found(searched(24, (16, 64), search=search))
    assert "rank" in importance.note
    assert (importance.shares["peak_lr"].value or math.nan) > 0.8


@pytest.mark.parametrize(("batches", "whose"), [
    ((16, 64), "24 finished trials: each"), ((16,), "12 finished trials of global_batch_size 16:"),
])  # fmt: skip
def test_the_figure_says_whose_trials_are_behind_it(batches: tuple[int, ...], whose: str) -> None:
    record = searched(12, batches)
    sweep = sweep_of(record)
    made = {f.name: f for f in figures(analyse(sweep), {}, importance_of(record, sweep))}
    assert whose in made["importance"].caption
    assert made["importance"].spec is not None


def test_analysis_loads_no_optuna() -> None:
    code = "import sys, scaling.analysis.findings; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
