"""Which recipes the numbers are of, and where they are biased since the same trials picked them."""

from dataclasses import replace
from pathlib import Path

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.report.tables.study_tables import cells_table
from scaling.report.words.reasons import reason_words
from scaling.report.words.remarks import critical_notes
from scaling.report.words.sources import recipe_rate, sources
from scaling.report.words.terms import terms
from tests.analysis.synthetic import study
from tests.analysis.test_metric_objective import planted, without
from tests.report.kinds import RATES, cut, findings_of, table

SEARCHED = "Selected and measured on the same search trials"


def meaning(findings: Findings, of: str) -> str:
    return next(text for names, text in terms(findings) if of in names.split(", "))


def test_a_search_that_goes_by_steps_picks_a_recipe_for_the_target() -> None:
    found = findings_of("objective is steps")
    said = sources(found)
    assert "each cell's recipe for the target, with seeds that the search never saw" in said
    assert "for the loss" not in said
    assert "peak_lr of the search's recipe" in cells_table(found).columns
    assert "lowest loss" not in meaning(found, "recipe for the target")
    by_examples = replace(found, sweep=replace(found.sweep, objective="examples_to_target"))
    assert "takes the fewest examples to the" in meaning(by_examples, "recipe for the target")
    record = study(
        transfer=None, confirm=None, search={"trials_per_cell": 12, "objective": "steps_to_target"}
    )
    search = tuple(trial for trial in record.trials if trial.phase == "search")
    alone = analyse(sweep_of(replace(record, trials=search)))
    assert "biased low" not in sources(alone)  # of losses that nothing was selected by
    assert "Their rate is the peak_lr of the search's recipe" in sources(alone)
    assert "biased low" in " ".join(critical_notes(alone))


@pytest.fixture(scope="module")
def accuracy() -> Findings:
    record = without(planted(), "transfer", "confirm")
    return analyse(sweep_of(record))


def test_a_metric_that_is_maximized_is_biased_towards_better_values(accuracy: Findings) -> None:
    said = sources(accuracy)
    assert "Their accuracy is biased towards better values (selected and measured on the" in said
    assert "Their rate is the peak_lr for the accuracy;" in said
    assert "biased low" not in said
    assert "results are those of the best recipe" in said
    assert recipe_rate(accuracy.sweep) in cells_table(accuracy).columns
    assert "the best accuracy at the end" in meaning(accuracy, "recipe for the target")


def test_the_search_s_own_steps_are_not_told_as_those_with_new_seeds(accuracy: Findings) -> None:
    said = sources(accuracy)
    assert "are those of each cell's search trials that took the fewest steps." in said
    assert "new seeds" not in said


def test_nothing_is_selected_where_each_batch_has_one_recipe(tmp_path: Path) -> None:
    header = "global_batch_size,peak_lr,steps_to_target,seed"
    lines = [f"{b},0.1,{60 + 4096 // b + k},{k}" for b in (16, 64, 256, 1024) for k in (0, 3, 5)]
    one = table(tmp_path, header, lines)
    assert SEARCHED not in reason_words(one.recommendation.reason)
    assert "biased low" not in " ".join(critical_notes(one))
    assert sources(one).startswith(
        "There are no confirm trials: steps are those of the best recipe"
    )
    more = [
        f"{b},{rate},{60 + 4096 // b + k},{k}" for b in (16, 64) for k, rate in enumerate(RATES)
    ]
    several = table(tmp_path, header, more)
    assert SEARCHED in reason_words(several.recommendation.reason)
    assert "biased low" in " ".join(critical_notes(several))


def test_steps_of_runs_with_new_seeds_are_not_biased() -> None:
    """Without a confirm phase, those of the transfer: at some cells, or at all of them."""
    found = findings_of("recipes for loss and target")
    assert all(row.phase != "search" for cell in found.cells for row in cell.target.trials)
    assert SEARCHED not in reason_words(found.recommendation.reason)
    assert "biased low" not in " ".join(critical_notes(found))
    first, *others = found.cells
    search = found.sweep.rows_of(first.cell, "search")
    mixed = replace(first, target=replace(first.target, trials=search[:1]))
    notes = " ".join(critical_notes(replace(found, cells=(mixed, *others))))
    name = f"The steps at {first.global_batch_size} are those of the search's fastest trials"
    assert name in notes


def test_cells_without_confirm_trials_are_named() -> None:
    """A study that was interrupted after its first confirm trials."""
    said = sources(cut(52))
    assert "Those of global_batch_size 256 and global_batch_size 1024 have no new seeds" in said
    assert "they are values of the search. They are biased low" in said
    assert "have no new seeds" not in sources(findings_of("whole study"))


@pytest.mark.parametrize(("kind", "start"), [
    ("nothing", "No trial ended with a result"),
    ("all failed", "No trial ended with a result"),
    ("one trial", "There are no confirm trials"),
])  # fmt: skip
def test_nothing_is_said_of_a_choice_that_was_not_made(kind: str, start: str) -> None:
    said = sources(findings_of(kind))
    assert said.startswith(start)
    assert "Each cell has one recipe" not in said or kind == "one trial"


def test_a_target_that_nothing_reached_has_no_fastest_recipe() -> None:
    said = sources(findings_of("target never reached"))
    assert "None of the cells' trials for the target reached it." in said
    assert "fewest steps" not in said
