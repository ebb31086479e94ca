"""What the sections of a study must say together, beyond what each must say alone."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from scaling.spec.checks import (
    batch,
    data,
    ladder,
    optimizer,
    phases,
    rate,
    resources,
    schedule,
    sizes,
    workload,
)
from scaling.spec.checks.places import (
    RECIPE_SECTIONS,
    cell_key,
    given_value,
    places_of,
    recipe_places,
)
from scaling.spec.issues import Issue, shown
from scaling.spec.sections import Fixed
from scaling.spec.study import StudySpec

Check = Callable[[StudySpec], Iterator[Issue]]


def check_study(spec: StudySpec, *, broken: Collection[str] = ()) -> list[Issue]:
    """Everything that the sections of a study contradict each other in.

    Looks at the file system for local data, folders and storage; starts nothing.

    Args:
        spec: The study.
        broken: Sections that are not what the user meant, since they have errors of their own;
            a check that needs one of them is left out.

    Returns:
        The issues, none for a study that can be planned. Of one that is too large, that alone:
        the other checks would go through all of it.
    """

    def found(checks: Iterable[Check]) -> list[Issue]:
        able = (check for check in checks if not CHECKS[check].intersection(broken))
        issues = (
            replace(issue, code=check.__name__.removesuffix("_issues"))
            for check in able
            for issue in check(spec)
        )
        return list({str(issue): issue for issue in issues}.values())

    return found(_OF_SIZE) or found(CHECKS)


def section_issues(spec: StudySpec) -> Iterator[Issue]:
    """A hyperparameter is scientific, nuisance or fixed; a recipe only replaces a fixed one."""
    for name in Fixed.model_fields:
        places = places_of(spec, name, recipes=False)
        for place in places[1:]:
            yield place.issue(f"is also given in {places[0].section}; give it once")
        if places and places[0].section != "fixed":
            for place in recipe_places(spec, name):
                yield place.issue(f"{places[0].section} decides {name}; a cell's recipe cannot")


def cell_recipe_issues(spec: StudySpec) -> Iterator[Issue]:
    """Each cell recipe names one existing cell, and no two the same."""
    axes = spec.scientific_values()
    seen: set[tuple[tuple[str, Any], ...]] = set()
    for index, recipe in enumerate(spec.cell_recipes):
        path = f"cell_recipes.{index}"
        if set(recipe.cell) != set(axes):
            names = ", ".join(axes) or "nothing, since there is no scientific axis"
            yield Issue(f"{path}.cell", "must name a cell exactly", recipe.cell, names)
        for name, value in recipe.cell.items():
            if name in axes and value not in axes[name]:
                allowed = ", ".join(shown(known) for known in axes[name])
                yield Issue(f"{path}.cell.{name}", "is not a cell of the study", value, allowed)
        if cell_key(recipe.cell) in seen:
            yield Issue(f"{path}.cell", "has a recipe already", recipe.cell)
        seen.add(cell_key(recipe.cell))
        if (size := given_value(recipe.fixed, "global_batch_size")) is not None:
            elsewhere = "give it in scientific, nuisance or fixed"
            message = f"a cell's recipe cannot set the batch size; {elsewhere}"
            yield Issue(f"{path}.fixed.global_batch_size", message, size)


CHECKS: Final[dict[Check, frozenset[str]]] = {
    sizes.cell_issues: frozenset({"scientific"}),
    sizes.trial_issues: frozenset(
        {"scientific", "nuisance", "target", "search", "transfer", "confirm", "branch"}
    ),
    sizes.size_issues: frozenset({"workload"}),
    batch.ramp_count_issues: RECIPE_SECTIONS,
    data.data_issues: frozenset({"workload"}),
    section_issues: RECIPE_SECTIONS,
    batch.batch_size_issues: RECIPE_SECTIONS - {"cell_recipes"} | {"resources"},
    batch.batch_ramp_issues: RECIPE_SECTIONS | {"budget", "target"},
    rate.rate_issues: RECIPE_SECTIONS,
    rate.base_issues: RECIPE_SECTIONS,
    rate.adam_sde_issues: RECIPE_SECTIONS | {"transfer"},
    rate.surge_issues: RECIPE_SECTIONS | {"transfer"},
    rate.co_scaling_issues: RECIPE_SECTIONS | {"transfer"},
    schedule.warmup_field_issues: RECIPE_SECTIONS,
    schedule.warmup_issues: RECIPE_SECTIONS | {"budget"},
    schedule.decay_issues: RECIPE_SECTIONS | {"budget"},
    optimizer.effect_issues: RECIPE_SECTIONS,
    optimizer.nesterov_issues: RECIPE_SECTIONS,
    optimizer.clipping_issues: RECIPE_SECTIONS,
    cell_recipe_issues: frozenset({"scientific", "cell_recipes"}),
    schedule.horizon_issues: RECIPE_SECTIONS | {"budget", "target"},
    phases.objective_issues: frozenset({"search", "target"}),
    phases.target_issues: frozenset({"target", "workload"}),
    phases.search_size_issues: frozenset({"nuisance", "search"}),
    phases.surface_issues: frozenset({"scientific", "nuisance", "search"}),
    phases.early_stopping_issues: RECIPE_SECTIONS | {"search", "budget", "resources"},
    resources.resource_issues: frozenset({"resources"}),
    phases.confirm_issues: frozenset({"confirm", "target", "search", "nuisance"}),
    phases.transfer_issues: RECIPE_SECTIONS | {"transfer"},
    phases.branch_issues: RECIPE_SECTIONS | {"branch", "budget"},
    phases.extension_issues: frozenset({"nuisance", "search"}),
    ladder.ladder_issues: RECIPE_SECTIONS
    | {"workload", "ladder", "budget", "search", "transfer", "branch", "target", "resources"},
    workload.ensemble_issues: RECIPE_SECTIONS | {"workload"},
    workload.model_issues: frozenset({"workload", "resources"}),
    workload.example_issues: frozenset({"workload", "budget", "evaluation", "search"}),
    workload.look_up_issues: RECIPE_SECTIONS | {"workload", "branch", "search", "budget"},
    workload.regularizer_issues: RECIPE_SECTIONS | {"workload"},
    workload.own_optimizer_issues: RECIPE_SECTIONS | {"workload"},
    workload.adapter_issues: RECIPE_SECTIONS | {"workload"},
    resources.zero_issues: RECIPE_SECTIONS | {"resources", "workload"},
    resources.tensor_parallel_issues: RECIPE_SECTIONS | {"resources", "workload"},
    data.credential_issues: frozenset(),
    data.storage_issues: frozenset({"storage"}),
}
"""Every check, and the sections it reads."""

_OF_SIZE: Final = (
    sizes.cell_issues, sizes.trial_issues, sizes.size_issues, batch.ramp_count_issues,
)  # fmt: skip
"""The checks that come first."""
