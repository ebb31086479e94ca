"""What a search by the surface comes to is confirmed, carried and branched off."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from scaling.records.outcome import left_over
from scaling.records.study import StudyRecord, of_best_recipes
from scaling.records.trial import TrialRecord
from scaling.runner.remaining import remaining, stages
from scaling.spec.study import StudySpec
from tests.runner.test_remaining import BRANCH
from tests.runner.test_surface_rounds import FACTS, Study, best_rate, by_surface
from tests.space.test_space import study

SMALL, LARGE = ("global_batch_size=16", "global_batch_size=64")


def with_rules(num_trials: int = 8, **changes: Any) -> StudySpec:
    given: dict[str, Any] = {
        "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        "search": {"num_trials": num_trials, "stop": None},
        "transfer": {"base_batch_size": 16, "rules": ["sqrt"], "num_seeds": 2},
        "confirm": {"num_seeds": 2},
        "branch": {**BRANCH, "num_seeds": 1},
    }
    return study(**given | changes)


def recommended(of: Study) -> dict[str, tuple[str, Mapping[str, Any]]]:
    assert of.rounds.end is not None
    return {recipe.cell: (recipe.name, recipe.choices) for recipe in of.rounds.end.recipes}


def after(of: Study) -> dict[str, TrialRecord]:
    """The trials of the phases after the search."""
    return {name: record for name, record in of.records.items() if record.phase != "search"}


def rates(trials: Mapping[str, TrialRecord], phase: str, batch: int = 16) -> set[float]:
    return {
        t.recipe.hyperparameters.peak_lr
        for t in trials.values()
        if t.phase == phase and t.recipe.hyperparameters.global_batch_size == batch
    }


def best_first(batch: int, found: Sequence[float]) -> list[float]:
    return sorted(found, key=lambda rate: abs(math.log(rate / best_rate(batch))))


@pytest.fixture(scope="module")
def done() -> Study:
    return Study().run(with_rules())


def test_every_phase_has_the_rate_that_the_surface_recommends(done: Study) -> None:
    """It lies between those tried, nearer to the best one than any of them."""
    names = {name for name, _ in recommended(done).values()}
    assert names == {f"surface-{SMALL}-008", f"surface-{LARGE}-008"}
    for batch, cell in ((16, SMALL), (64, LARGE)):
        name, choices = recommended(done)[cell]
        assert rates(done.records, "confirm", batch) == {choices["peak_lr"]}
        tried = [*rates(done.records, "search", batch)]
        assert best_first(batch, [*tried, choices["peak_lr"]])[0] == choices["peak_lr"]
        assert choices["peak_lr"] not in tried
        of = [t for t in after(done).values() if t.phase == "confirm" and t.recipe_of == name]
        assert [t.choices for t in of] == [choices] * 2
    base_name, base = recommended(done)[SMALL]
    carried = [t for t in after(done).values() if t.phase in ("transfer", "branch")]
    assert len(carried) == 4
    assert {t.recipe_of for t in carried} == {base_name}
    assert {t.recipe.origin.base_lr for t in carried if t.phase == "transfer"} == {base["peak_lr"]}
    assert rates(done.records, "branch") == {base["peak_lr"]}
    assert left_over(list(done.records.values()), with_rules(), {}) == []


def test_what_is_recommended_is_decided_once_and_kept(done: Study) -> None:
    spec = with_rules()
    cut = Study().run(spec, at_most=9)
    assert cut.rounds.end == done.rounds.end
    assert len(after(cut)) == 1
    # As another version of the surface would, or another machine's arithmetic.
    for record in cut.trials:
        rising = record.recipe.hyperparameters.peak_lr
        measured = tuple(replace(m, validation_loss=1 + rising) for m in record.measurements)
        cut.records[record.trial_id] = replace(record, measurements=measured)
    cut.run(spec)
    assert cut.rounds.end == done.rounds.end
    assert after(cut) == after(done)
    left = remaining(spec, cut.records, FACTS, cut.rounds)
    assert (left.num_to_run, left.is_decided) == (0, True)


def test_it_is_decided_anew_where_the_search_goes_on() -> None:
    of = Study().run(with_rules())
    before, known = recommended(of), dict(after(of))
    spec = with_rules(12)
    longer = of.run(spec, at_most=3)  # the search is not over
    assert recommended(longer) == before
    longer.run(spec)
    now = recommended(longer)
    assert all(now[cell] != before[cell] for cell in now)
    assert {name for name, _ in now.values()} == {f"surface-{SMALL}-012", f"surface-{LARGE}-012"}
    assert {name: longer.records[name] for name in known} == known
    assert f"confirm-{SMALL}-seed1-of-012" in longer.records
    left = left_over(list(longer.records.values()), spec, {})
    assert {trial.trial_id for trial in left} == known.keys()
    assert any(line.startswith(f"Left out: {len(known)} trials of") for line in longer.notes)
    # From the trials' records alone, as they are in MLflow.
    kept = of_best_recipes(StudyRecord(spec, tuple(longer.records.values()))).trials
    fresh = Study().run(with_rules()).run(with_rules(12))
    assert {trial.recipe_of for trial in kept if trial.phase == "confirm"} == {
        name for name, _ in now.values()
    }
    assert fresh.records == longer.records
    *_, last = stages(spec, longer.records, FACTS, longer.rounds)
    assert not last.missing
    assert last.rounds == longer.rounds


def test_a_recipe_that_is_recommended_again_is_not_repeated_again(done: Study) -> None:
    assert done.rounds.end is not None
    points = {recipe.cell: recipe.choices for recipe in done.rounds.end.recipes}
    points[LARGE] = {"peak_lr": 0.5}
    rounds = done.rounds.ended(points, 10)
    assert rounds.end is not None
    assert [recipe.name for recipe in rounds.end.recipes] == [
        f"surface-{SMALL}-008", f"surface-{LARGE}-010",
    ]  # fmt: skip
    assert rounds.ended({}, 10) == rounds


def test_a_cell_without_a_loss_has_no_recommendation() -> None:
    done = Study().run(with_rules(), diverging=[64])
    assert set(recommended(done)) == {SMALL}
    assert not [t for t in after(done).values() if t.phase == "confirm" and LARGE in t.trial_id]
    assert rates(done.records, "confirm") == {recommended(done)[SMALL][1]["peak_lr"]}


def test_replicates_of_tried_recipes_are_left_over_where_the_surface_recommends_others() -> None:
    """As before there were recommendations; and no order of the trials matters."""
    spec = by_surface()
    done = Study().run(spec)
    tried = f"search-{SMALL}-001"
    old = replace(
        done.records[f"confirm-{SMALL}-seed1"], recipe_of=tried, trial_id=f"confirm-{SMALL}-seed3"
    )
    for records in ([old, *done.records.values()], [*done.records.values(), old]):
        assert left_over(records, spec, {}) == [old]
