"""What is flagged of cells, rules and comparisons, in words that fit how many there are."""

from dataclasses import replace
from pathlib import Path

import pytest

from scaling.analysis.contrasts import compare
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.learning_rate.tuning import Undertuned
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import Status
from scaling.report.words.differences import comparability_notes, comparison_headline
from scaling.report.words.headline import first_screen
from scaling.report.words.learning_rate import rule_costs_words
from scaling.report.words.remarks import flags
from scaling.report.words.sources import sources
from scaling.report.words.unknown import unknown
from scaling.report.words.why_null import of_recommendation
from scaling.spec.phases import Limits
from tests.analysis.synthetic import study
from tests.analysis.test_metric_objective import planted
from tests.report.kinds import RATES, changed, findings_of, table


def with_lost(*ids: str, status: Status = "failed") -> Findings:
    record = study(num_seeds=2)
    trials = [replace(t, status=status) if t.trial_id in ids else t for t in record.trials]
    return analyse(sweep_of(replace(record, trials=tuple(trials))))


def test_means_are_over_other_seeds_only_where_there_are_others() -> None:
    found = flags(with_lost("confirm-16-0", "confirm-16-1", "confirm-64-0"))
    assert "global_batch_size 16: 2 of 2 confirm seeds were lost, so it has no means." in found
    lost = "global_batch_size 64: 1 of 2 confirm seeds were lost; its means are over the others."
    assert lost in found


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_of_what_is_lost_nothing_is_said_to_be_a_mean(status: Status) -> None:
    lost = changed(lambda _, t: replace(t, status=status) if t.phase == "confirm" else t)
    assert "Losses and gaps are means" not in sources(lost)
    assert "Losses and gaps are means" in sources(findings_of("whole study"))
    assert sources(findings_of("all failed")).startswith("No trial ended with a result")


@pytest.mark.parametrize(
    ("num_reached", "words"),
    [
        (1, "The others nearly did, and count with the steps that they would probably have taken."),
        (2, "The other nearly did, and counts with the steps that it would probably have taken."),
    ],
)
def test_one_seed_that_missed_the_target_is_not_several(num_reached: int, words: str) -> None:
    found = findings_of("whole study")
    first, *others = found.cells
    missed = replace(first, target=replace(first.target, num_reached=num_reached))
    (flag,) = [f for f in flags(replace(found, cells=(missed, *others))) if "reached the" in f]
    assert flag.endswith(words)


@pytest.mark.parametrize(("batches", "more"), [((16,), True), ((16, 64, 256, 1024), False)])
def test_not_every_cell_has_more_trials_than_the_others(
    batches: tuple[int, ...], more: bool
) -> None:
    sweep = sweep_of(study())
    extra = [
        replace(row, trial_id=f"{row.trial_id}-more", search_round=1, recipe_key="more")
        for row in sweep.rows
        if row.trial_id.endswith("-3") and row.phase == "search"
        if row.global_batch_size in batches
    ]
    found = analyse(replace(sweep, rows=(*sweep.rows, *extra)))
    said = [flag for flag in flags(found) if "searched beyond" in flag]
    assert len(said) == len(batches)
    assert all(flag.endswith("more than other cells.") == more for flag in said)
    assert all("It has 13 trials in all" in flag for flag in said)


def test_a_rule_that_diverged_comes_before_the_largest_regret() -> None:
    found = replace(findings_of("whole study"), rule_curves=())
    assert any(regret.diverged for regret in found.regrets)
    assert next(rule_costs_words(found)) == (
        "Runs with the recipe carried from 64 diverged: linear scaling at 1,024."
    )
    _, short = rule_costs_words(found)
    assert short == "Runs with the recipe carried from 64 diverged."  # perhaps all of them
    calm = tuple(regret for regret in found.regrets if not regret.diverged)
    assert next(rule_costs_words(replace(found, regrets=calm))).startswith("The largest regret")


def test_why_a_chance_within_the_limits_is_not_known() -> None:
    sweep = sweep_of(study())

    def why(**limits: float) -> str:
        limited = replace(sweep, limits=Limits.model_validate(limits))
        reasons = of_recommendation(analyse(limited))
        assert not isinstance(reasons, str)
        return reasons["chance_within_limits"]

    assert why(num_workers=1) == "the study limits neither the time nor the cost"
    found = findings_of("deadline without a target")
    option = found.recommendation.option
    assert option is not None
    short = replace(found.recommendation, option=replace(option, cut_short=True, chance=None))
    reasons = of_recommendation(replace(found, recommendation=short))
    assert not isinstance(reasons, str)
    assert reasons["chance_within_limits"].startswith("the run ends at its last evaluation")


def of(record: StudyRecord) -> Findings:
    return analyse(sweep_of(record))


def test_targets_of_two_metrics_are_told_apart() -> None:
    loss = of(study(target={"at_most": 0.8}))
    accuracy = of(planted("validation_loss"))
    said = " ".join(comparability_notes(compare(loss, accuracy), ("a", "b")))
    assert "the targets are a validation loss of 0.800 nats and an accuracy of 0.800." in said


def test_one_interval_shows_a_difference() -> None:
    same = compare(findings_of("whole study"), findings_of("whole study"))
    contrasts = [replace(c, value=0.0, interval=(-1.0, 1.0), p_value=1.0) for c in same.contrasts]
    contrasts[0] = replace(contrasts[0], value=2.0, interval=(1.5, 2.5), p_value=1e-9)
    one = replace(same, contrasts=tuple(contrasts))
    assert " 1 shows a difference; by chance alone " in comparison_headline(one, ("a", "b"))


def test_measures_without_an_interval_are_said_to_have_none() -> None:
    same = compare(findings_of("whole study"), findings_of("whole study"))
    contrasts = [
        replace(c, interval=None) if c.measure == "validation_loss"
        else replace(c, value=-1.0, interval=(-2.0, -0.5)) if c.measure == "test_loss" else c
        for c in same.contrasts
    ]  # fmt: skip
    said = comparison_headline(replace(same, contrasts=tuple(contrasts)), ("a", "b"))
    assert "B's validation loss has no interval at any cell" in said
    assert "B's test loss is lower at 16, 64, 256 and 1,024." in said
    bare = replace(same, contrasts=tuple(replace(c, interval=None) for c in contrasts))
    assert comparison_headline(bare, ("a", "b")).endswith("at least three seeds.")


@pytest.mark.parametrize(
    ("reason", "more"),
    [
        ("highest_rate_best", "a wider range of rates"),
        ("falls_towards_highest", "a wider range of rates"),
        ("regret_above_limit", "more search trials"),
    ],
)
def test_what_an_undertuned_cell_needs(reason: Undertuned, more: str) -> None:
    found = findings_of("whole study")
    first, *others = (replace(cell, undertuned=()) for cell in found.cells)
    flagged = replace(found, cells=(replace(first, undertuned=(reason,)), *others))
    assert any(f"; {more} would tell" in line for line in unknown(flagged))


@pytest.mark.parametrize(("kind", "counts", "more"), [
    ("all diverged", "All 87 trials diverged.", "find a rate at which one does, below those tried"),
    ("all failed", "All 87 trials failed.", "the table of incidents has the causes"),
    ("nothing", "No trial was run.", "run more trials"),
])  # fmt: skip
def test_of_a_lost_study_is_said_what_to_do(kind: str, counts: str, more: str) -> None:
    found = findings_of(kind)
    said = " ".join(line.text for line in first_screen(found) if line.topic == "unknown")
    assert said == f"Nothing is known yet: no trial ended with a finite result; {more}. {counts}"


def test_one_cell_that_is_left_asks_for_the_others(tmp_path: Path) -> None:
    lines = [f"{batch},{rate},nan" for batch in (8, 32) for rate in RATES]
    found = table(tmp_path, "global_batch_size,peak_lr,validation_loss", [*lines, "64,0.01,1.5"])
    said = " ".join(line.text for line in first_screen(found) if line.topic == "unknown")
    assert said.startswith("Nothing is known of global_batch_size 8 and global_batch_size 32: no")


def test_seeds_that_are_alike_are_no_certainty(tmp_path: Path) -> None:
    header = "global_batch_size,peak_lr,seed,validation_loss"
    lines = [
        f"{batch},{rate},{seed},{2 + rate * place}"
        for batch in (8, 32)
        for place, rate in enumerate(RATES)
        for seed in (1, 2, 3)
    ]
    found = table(tmp_path, header, lines)
    assert all(cell.validation_loss.interval is None for cell in found.cells)
    assert sum("its seeds give the same loss to the last digit" in f for f in flags(found)) == 2
