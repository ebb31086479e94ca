"""A report's folder says what its study was tuned for, as the study itself does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.trial import TrialRecord
from scaling.report.comparison.sides import sweep_of_report
from scaling.report.foreign_tables.sweep_table import TableError
from scaling.report.summary import summarize
from scaling.report.tables.trials_parquet import trials_parquet
from scaling.surface.loss_surface import Limit
from tests.analysis.synthetic import study
from tests.analysis.test_metric_objective import planted
from tests.report.kinds import findings_of

KINDS = (
    "objective is steps", "searched by the surface", "two clip norms", "score with seeds",
    "half at the target before the first step", "joint search by the surface",
    "recorded study",
)  # fmt: skip


def write(findings: Findings, folder: Path, *without: str) -> None:
    """What of a report is read back, perhaps as an older version wrote it."""
    known = {name: v for name, v in summarize(findings).items() if name not in without}
    (folder / "summary.json").write_text(json.dumps(known))
    (folder / "trials.parquet").write_bytes(trials_parquet(findings.sweep.rows))


def assert_same(findings: Findings, folder: Path) -> None:
    write(findings, folder)
    found, read = summarize(findings), summarize(analyse(sweep_of_report(folder)))
    shown = ("has_target", "target_metric", "tuned_for", "objective", "loss_unit")
    assert {name: read[name] for name in shown} == {name: found[name] for name in shown}
    for one, other in zip(found["cells"], read["cells"], strict=True):
        differ = {n for n in one if one[n] != other.get(n)}
        assert differ <= {"measured"}  # of runs' curves, which are not in the folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_the_same(kind: str, tmp_path: Path) -> None:
    assert_same(findings_of(kind), tmp_path)


def test_a_transferred_run_lies_where_its_whole_recipe_does(tmp_path: Path) -> None:
    """It chose its rate alone, and the search clipping too."""
    record = study()
    trials: list[TrialRecord] = []
    for number, trial in enumerate(record.trials):
        is_search = trial.phase == "search"
        clip_norm = 1.0 if is_search and number % 2 else None
        hyperparameters = replace(trial.recipe.hyperparameters, clip_norm=clip_norm)
        recipe = replace(trial.recipe, hyperparameters=hyperparameters)
        chosen = {} if trial.phase == "transfer" else {"clip_norm": clip_norm}
        choices = {**trial.choices, **chosen}
        surface_round = 0 if is_search else None
        trials.append(replace(trial, recipe=recipe, choices=choices, surface_round=surface_round))
    stop = Limit(value=0.02)
    found = replace(sweep_of(replace(record, trials=tuple(trials))), small_regret=stop)
    assert_same(analyse(found), tmp_path)
    assert sweep_of_report(tmp_path).small_regret == stop


def test_a_metric_stays_what_was_tuned_for(tmp_path: Path) -> None:
    assert_same(analyse(sweep_of(planted())), tmp_path)


def test_a_folder_of_an_older_version_is_read_where_it_was_tuned_for_the_loss(
    tmp_path: Path,
) -> None:
    write(findings_of("search alone"), tmp_path, "tuned_for")
    assert sweep_of_report(tmp_path).tuned_for.is_loss
    write(analyse(sweep_of(planted())), tmp_path, "tuned_for")
    with pytest.raises(TableError, match="left out what it was tuned for"):
        sweep_of_report(tmp_path)
