"""What may change in a study file when its study goes on."""

import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import pytest

from scaling.spec.changes import (
    RULES,
    RecordedSpecError,
    changes,
    recorded_spec,
    rule_of,
)
from scaling.spec.fields import Section
from scaling.spec.study import StudySpec

RAW: dict[str, Any] = {
    "name": "s", "question": "q?", "workload": {"task": "noisy_quadratic"},
    "budget": {"examples": 1000}, "evaluation": {"every_steps": 5},
    "search": {"trials_per_cell": 4},
}  # fmt: skip
FULL: dict[str, Any] = {
    "scientific": {"global_batch_size": [16, 64], "clip_norm": [None, 1.0]},
    "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
    "target": {"at_most": 0.5},
    "confirm": {"num_seeds": 2},
    "cell_recipes": [
        {"cell": {"global_batch_size": 16, "clip_norm": None}, "fixed": {"beta1": 0.8}},
    ],
}  # fmt: skip
BRANCH: dict[str, Any] = {
    "base_batch_size": 16, "at_examples": [64, 320], "multiples": [1, 2], "window_examples": 64,
}  # fmt: skip
BATCHES: dict[str, Any] = {
    "scientific": {"global_batch_size": [16, 64]},
    "transfer": {"base_batch_size": 16, "rules": ["none", "sqrt"], "num_seeds": 2},
    "branch": BRANCH,
}


def study(**changes: Any) -> StudySpec:
    return StudySpec.model_validate(RAW | changes)


def found(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """The refusals by path."""
    return {change.path: change.refusal for change in changes(study(**before), study(**now))}


def paths(kind: Any, path: str) -> Iterator[tuple[str, bool]]:
    """Each field of a section, and of the sections in it, and whether it must have a value."""
    for name, field in kind.model_fields.items():
        inner = f"{path}.{name}" if path else name
        sections = [member for member in members(field.annotation) if is_section(member)]
        yield inner, bool(sections) and type(None) not in members(field.annotation)
        for section in sections:
            yield from paths(section, inner)


def members(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return [inner for member in get_args(kind) for inner in members(member)]
    if hasattr(kind, "__metadata__"):
        return members(get_args(kind)[0])
    return [kind]


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def test_every_field_of_a_study_file_has_a_rule() -> None:
    known = dict(paths(StudySpec, ""))
    unknown = rule_of("no_such_section.no_such_field")
    # A section that is always there is never new or gone as a whole.
    missing = {p for p, is_always_there in known.items() if rule_of(p) is unknown}
    assert {p for p in missing if not known[p]} == set()
    assert set(RULES) <= known.keys()
    assert rule_of("search.no_such_field") is unknown


@pytest.mark.parametrize(
    "change",
    [
        {"question": "another?"},
        {"storage": "elsewhere"},
        {"checkpoints": None},
        {"checkpoints": {"every_seconds": 1.0, "keep": 5}},
        {"resources": {"micro_batch_size": 4, "num_workers": 2, "max_slots": 1}},
        {"recommendation": {"num_workers": 4, "deadline_seconds": 60.0}},
        {"target": {"at_most": 0.4}},
        {"target": None},
        {"search": {"trials_per_cell": 6}},
        {"search": {"trials_per_cell": 4, "extend_undertuned": 1}},
        {"confirm": {"num_seeds": 5}},
        {"evaluation": {"every_steps": 5, "sharpness": {"num_examples": 8}}},
        {"scientific": {"global_batch_size": [16, 32, 64], "clip_norm": [1.0, None, 2.0]}},
        {
            "scientific": {"global_batch_size": [16, 64], "clip_norm": [None, 1.0, 2.0]},
            "cell_recipes": [
                {"cell": {"global_batch_size": 16, "clip_norm": 2.0}, "fixed": {"beta1": 0.7}},
                *FULL["cell_recipes"],
            ],
        },
    ],
)
def test_what_adds_to_a_study_or_changes_no_result_may_change(change: dict[str, Any]) -> None:
    refusals = found(FULL, FULL | change)
    assert refusals
    assert set(refusals.values()) == {""}


@pytest.mark.parametrize(
    "change",
    [
        {"transfer": BATCHES["transfer"] | {"rules": ["linear", "sqrt", "none"], "num_seeds": 3}},
        {"branch": BRANCH | {"at_examples": [64, 160, 320], "num_seeds": 4, "tolerance": 0.1}},
        {"branch": BRANCH | {"multiples": [1, 2, 4]}},
        {"confirm": {}},
    ],
)
def test_phases_may_grow(change: dict[str, Any]) -> None:
    refusals = found(BATCHES, BATCHES | change)
    assert refusals
    assert set(refusals.values()) == {""}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "t"}, "name"),
        ({"seed": 1}, "seed"),
        ({"workload": {"task": "noisy_quadratic", "num_chains": 3}}, "workload.num_chains"),
        ({"budget": {"examples": 999}}, "budget.examples"),
        ({"budget": {"examples": 1000, "min_steps": 2}}, "budget.min_steps"),
        ({"evaluation": {"every_steps": 6}}, "evaluation.every_steps"),
        ({"nuisance": {"peak_lr": {"log_uniform": [1e-3, 1]}}}, "nuisance.peak_lr.log_uniform"),
        ({"fixed": {"optimizer": "sgd"}}, "fixed.optimizer"),
        ({"search": {"trials_per_cell": 3}}, "search.trials_per_cell"),
        ({"search": {"trials_per_cell": 4, "sampler": "random"}}, "search.sampler"),
        ({"confirm": None}, "confirm"),
        ({"confirm": {"num_seeds": 1}}, "confirm.num_seeds"),
        ({"resources": {"precision": "bf16"}}, "resources.precision"),
        ({"cell_recipes": []}, "cell_recipes"),
    ],
)
def test_what_makes_trials_incomparable_is_refused_by_name(
    change: dict[str, Any], path: str
) -> None:
    refusals = found(FULL, FULL | change)
    assert list(refusals) == [path]
    assert refusals[path]


SURFACE: dict[str, Any] = {
    "scientific": {"global_batch_size": [16, 64]},
    "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
    "search": {"num_trials": 12},
}


def surface(batches: Any = (16, 64), **search: Any) -> dict[str, Any]:
    values = {"global_batch_size": list(batches)}
    return SURFACE | {"scientific": values, "search": {"num_trials": 12, **search}}


def test_a_search_by_the_surface_may_go_on_and_keeps_its_rounds() -> None:
    def refusals(**now: Any) -> dict[str, str]:
        return {path: why for path, why in found(SURFACE, surface(**now)).items() if why}

    for search in ({"num_trials": 13}, {"stop": None}, {"stop": {"regret_at_most": 0.01}}):
        assert refusals(**search) == {}
        changed = changes(study(**SURFACE), study(**surface(**search)))
        assert any(change.may_add_trials for change in changed)
    assert refusals(num_trials=11) == {
        "search.num_trials": "it may grow: what was run stays in the study"
    }
    assert refusals(round_size=4) == {
        "search.round_size": "the rounds of a search keep the size that they began with"
    }
    assert set(refusals(prior_peak_lr=0.01)) == {"search.prior_peak_lr"}
    by_cell = {"num_trials": None, "trials_per_cell": 20, "sampler": "qmc"}
    assert {"search.sampler", "search.trials_per_cell"} <= refusals(**by_cell).keys()


def test_cells_that_are_new_to_a_surface_need_trials() -> None:
    wider = (16, 32, 64, 128)
    assert found(SURFACE, surface(wider, num_trials=13))["scientific.global_batch_size"] == (
        "the new cells need trials: raise search.num_trials to 14 or more"
    )
    assert set(found(SURFACE, surface(wider, num_trials=14)).values()) == {""}


def test_a_change_says_whether_it_may_add_trials() -> None:
    def adds(change: dict[str, Any]) -> bool:
        return any(c.may_add_trials for c in changes(study(**FULL), study(**FULL | change)))

    assert not adds({"question": "another?", "storage": "x", "checkpoints": None, "target": None})
    assert not adds({"resources": {"num_workers": 2}})
    assert adds({"confirm": {"num_seeds": 5}})
    assert adds({"search": {"trials_per_cell": 6}})


def test_a_metric_may_get_a_range_and_its_study_is_read_anew() -> None:
    """Its trials stay; what is recorded of the metric is not, so the task is made again."""
    own = {"task": "lightning", "module": "mine:Net", "directions": {"hits": "maximize"}}
    ranged = own | {"ranges": {"hits": [0, 1]}}
    [change] = changes(study(workload=own), study(workload=ranged))
    assert (change.path, change.refusal, change.may_add_trials) == ("workload.ranges", "", True)


def test_what_was_compared_stays() -> None:
    fewer = {"global_batch_size": [16], "clip_norm": [None, 1.0]}
    refusals = found(FULL, FULL | {"scientific": fewer})
    assert refusals == {
        "scientific.global_batch_size": "what was run stays in the study: 64 is missing"
    }
    no_axis = {"scientific": {"global_batch_size": [16, 64]}, "cell_recipes": []}
    assert "scientific.clip_norm" in found(FULL, FULL | no_axis)
    assert found(BATCHES, BATCHES | {"branch": BRANCH | {"multiples": [1, 2, 3]}}) == {
        "branch.multiples": "every branch would have a window of 96 examples, not 64"
    }


def test_what_a_change_means_may_depend_on_the_rest_of_the_study() -> None:
    timed = {"budget": {"seconds": 5.0}, "search": {"trials_per_cell": 2}}
    assert found(timed, timed | {"resources": {"num_workers": 2}})["resources.num_workers"]
    by_target = FULL | {"search": {"trials_per_cell": 4, "objective": "steps_to_target"}}
    assert found(by_target, by_target | {"target": {"at_most": 0.4}})["target.at_most"]
    beyond = {"search": {"trials_per_cell": 4, "extend_undertuned": 1}}
    nuisance = {"nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}}}
    grown = {"search": {"trials_per_cell": 6, "extend_undertuned": 1}}
    assert found(nuisance | beyond, nuisance | grown)["search.trials_per_cell"]


def test_a_field_of_another_version_is_compared_by_what_it_means() -> None:
    spec = study(**FULL)
    recorded = spec.model_dump(mode="json")
    given = spec.model_dump(mode="json", exclude_defaults=True)
    assert changes(recorded_spec(recorded, given), spec) == ()
    # One that there was not yet.
    del recorded["checkpoints"]["keep"]
    del recorded["confirm"]
    later = recorded_spec(recorded, given)
    assert changes(later, study(**FULL | {"confirm": None})) == ()
    # One that there is no longer.
    recorded = spec.model_dump(mode="json")
    recorded["cell_recipes"][0]["fixed"]["gamma"] = 0.5
    assert changes(recorded_spec(recorded, given), spec) == ()
    del recorded["cell_recipes"][0]["fixed"]["gamma"]
    recorded["resources"]["num_threads"] = 4
    assert changes(recorded_spec(recorded, given), spec) == ()
    given["resources"] = {"num_threads": 4}
    with pytest.raises(RecordedSpecError, match=r"resources\.num_threads: was 4, and there is no"):
        recorded_spec(recorded, given)


def test_a_recorded_value_that_is_not_allowed_any_longer_is_named() -> None:
    recorded = study(**FULL).model_dump(mode="json")
    recorded["search"]["sampler"] = "simplex"
    with pytest.raises(RecordedSpecError, match=r"search\.sampler: "):
        recorded_spec(recorded, {})
