"""A check that is not over, or that diverged, beside sizes that can be fitted."""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.ladder.check import check_of
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.runs import not_fitted, problem_of, runs_of, sizes_of
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.report.page.sections import sections
from scaling.report.summary import summarize
from scaling.report.words.ladder import check_words
from scaling.spec.phases import Phase
from tests.report.test_every_report import assert_short, reasons_of_nothing, without_why

SIZES, CHECKED = (1_000_000, 4_000_000, 16_000_000), 64_000_000
SCALE = ("num_tokens",)
BATCH, RATE = 64, 1e-3
AROUND = (
    (BATCH, RATE), (BATCH, 2 * RATE), (BATCH, RATE / 2), (2 * BATCH, RATE), (BATCH // 2, RATE),
)  # fmt: skip


def row(phase: Phase, tokens: int, batch: int, lr: float, *, lost: bool, seed: int = 0) -> TrialRow:
    u, v = (
        math.log2(lr / 2e-3 * (tokens / 4e6) ** 0.3),
        math.log2(batch / 32 / (tokens / 4e6) ** 0.3),
    )
    loss = (2 + 20 * tokens**-0.2) * math.exp((0.3 * u**2 + 0.2 * v**2) / 100) + seed / 1000
    return TrialRow(
        f"{phase}-{tokens}-{batch}-{lr}-{seed}", phase, "diverged" if lost else "done",
        {"num_tokens": tokens, "global_batch_size": batch}, batch, f"{phase} {batch} {lr}",
        peak_lr=lr, seed=seed, validation_loss=None if lost else loss,
    )  # fmt: skip


def ladder(check: Sequence[TrialRow], *, lost: Collection[int] = ()) -> Sweep:
    """Six runs of each searched size, all of which diverged in those that are lost."""
    searched = [
        row("search", tokens, batch, lr, lost=tokens in lost)
        for tokens, batch, lr in itertools.product(SIZES, (16, 32, 64), (1e-3, 4e-3))
    ]
    rows = (*searched, *check)
    cells = {tuple(r.cell.values()): r.cell for r in rows}
    question = LadderQuestion(SCALE, ({"num_tokens": 256_000_000},), is_study=True)
    return Sweep("ladder", "?", rows, tuple(cells.values()), ladder=question)


def checked(count: int = 5, *, lost: Collection[int] = (), num_seeds: int = 1) -> list[TrialRow]:
    """The first runs of a check, those of some recipes diverged."""
    return [
        row("check", CHECKED, batch, lr, lost=place in lost, seed=seed)
        for place, (batch, lr) in enumerate(AROUND)
        for seed in range(num_seeds)
    ][:count]


def fitted(sweep: Sweep) -> list[tuple[float, ...]]:
    assert problem_of(sweep, SCALE) is None
    return sizes_of(runs_of(sweep, SCALE))


@pytest.mark.parametrize(("check", "num_recipes"), [
    (checked(2), 2), (checked(3, num_seeds=3), 1), (checked(lost=(0, 1, 2)), 2),
    (checked(lost=range(5)), 0),
])  # fmt: skip
def test_a_check_with_too_few_losses_is_not_fitted(check: list[TrialRow], num_recipes: int) -> None:
    sweep = ladder(check)
    assert fitted(sweep) == [(float(size),) for size in SIZES]
    assert not_fitted(sweep, SCALE) == {(float(CHECKED),): num_recipes}


def test_a_check_with_enough_of_them_is() -> None:
    assert len(fitted(ladder(checked(lost=(0, 1))))) == 4
    assert len(fitted(ladder(checked(3)))) == 4


def test_a_size_without_any_loss_leaves_the_others() -> None:
    sweep = ladder([], lost=SIZES[:1])
    assert fitted(sweep) == [(float(size),) for size in SIZES[1:]]
    failed = tuple(replace(r, status="failed") if r.status == "diverged" else r for r in sweep.rows)
    assert not_fitted(replace(sweep, rows=failed), SCALE) == {(float(SIZES[0]),): 0}
    few = [row("search", CHECKED, 64, 1e-3, lost=False)]
    problem = problem_of(ladder(few), SCALE)
    assert problem is not None
    assert (problem.kind, problem.count) == ("few_of_size", 1)


@pytest.mark.parametrize(("check", "words"), [
    (checked(2), "reaches 2.5"),
    (checked(lost=range(5)), "diverged."),
    (checked(4, lost=(0,), num_seeds=3), "diverged with 3 of 3 seeds."),
])  # fmt: skip
@pytest.mark.parametrize("lost", [(), SIZES[1:]], ids=["fitted", "not fitted"])
def test_the_check_is_said_whether_the_others_are_fitted(
    check: list[TrialRow], words: str, lost: tuple[int, ...]
) -> None:
    findings = analyse(ladder(check, lost=lost))
    summary: dict[str, Any] = summarize(findings)
    assert (summary["ladder"]["exponents"] is None) == bool(lost)
    prediction = summary["ladder"]["check"]["recipes"][0]
    assert prediction["is_prediction"]
    assert (prediction["global_batch_size"], prediction["peak_lr"]) == AROUND[0]
    assert (
        f"Trained at its prediction, the size kept out of the search {words}" in summary["headline"]
    )
    assert_short(summary["headline"])
    assert list(without_why(summary["ladder"])) == []
    assert list(reasons_of_nothing(summary)) == []
    [part] = [part for part in sections(findings, (), {}) if part.name == "ladder"]
    assert ("Not fitted" in part.note) == (not lost)


def test_without_a_result_the_prediction_is_no_other_recipe() -> None:
    """Neither while its neighbours have ended, nor where it failed itself."""
    every = checked()
    failed = replace(every[0], status="failed", validation_loss=None)
    for rows in (every[1:3], every[1:], [failed, *every[1:]]):
        check = check_of(ladder(rows))
        assert check is not None
        assert check_words(check).startswith("The check is not over")


def test_equal_recipes_are_seldom_said_to_be_lower() -> None:
    """Four comparisons at once: 15% of them would be, by the interval of each."""
    rng, said = np.random.default_rng(0), 0
    for _ in range(400):
        rows = [
            replace(row, validation_loss=2 + 0.01 * rng.standard_normal())
            for row in checked(15, num_seeds=3)
        ]
        check = check_of(ladder(rows))
        assert check is not None
        said += bool(check.lower)
    assert said <= 0.08 * 400


@pytest.mark.parametrize(("lost", "num_lower"), [(0, 0), (3, 3)])
def test_a_recipe_is_not_lower_by_the_seeds_that_are_left(lost: int, num_lower: int) -> None:
    rows = checked(15, num_seeds=3)
    rows = [replace(r, validation_loss=(r.validation_loss or 0) - (n >= 3)) for n, r in
            enumerate(rows)]  # fmt: skip
    check = check_of(ladder(rows))
    assert check is not None
    assert len(check.lower) == 4
    rows[lost] = replace(rows[lost], status="diverged", validation_loss=None)
    check = check_of(ladder(rows))
    assert check is not None
    assert len(check.lower) == num_lower
    assert all(recipe.excess.value is None for recipe in check.recipes if recipe.num_diverged)


@pytest.mark.parametrize("batch", [1, 2, 3, 65])
def test_the_prediction_is_found_among_recipes_around_it(batch: int) -> None:
    recipes = [
        (batch, 0.3),
        (batch, 0.6),
        (batch, 0.15),
        (2 * batch, 0.3),
        (max(batch // 2, 1), 0.3),
    ]
    for count in range(1, 6):
        rows = [row("check", CHECKED, *recipe, lost=False) for recipe in recipes[:count]]
        check = check_of(ladder(rows))
        assert check is not None
        found = [(r.global_batch_size, r.peak_lr) for r in check.recipes if r.is_prediction]
        assert found == [recipes[0]]
