"""What the sections of a study must say together, beyond what each must say alone."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from scaling.spec.checks.batch import batch_ramp_issues, batch_size_issues, ramp_count_issues
from scaling.spec.checks.data import credential_issues, data_issues, storage_issues
from scaling.spec.checks.ladder import ladder_issues
from scaling.spec.checks.optimizer import clipping_issues, effect_issues, nesterov_issues
from scaling.spec.checks.phases import (
    branch_issues,
    confirm_issues,
    early_stopping_issues,
    extension_issues,
    objective_issues,
    search_size_issues,
    surface_issues,
    target_issues,
    transfer_issues,
)
from scaling.spec.checks.places import (
    RECIPE_SECTIONS,
    cell_key,
    given_value,
    places_of,
    recipe_places,
)
from scaling.spec.checks.rate import (
    adam_sde_issues,
    base_issues,
    co_scaling_issues,
    rate_issues,
    surge_issues,
)
from scaling.spec.checks.resources import resource_issues, tensor_parallel_issues, zero_issues
from scaling.spec.checks.schedule import (
    decay_issues,
    horizon_issues,
    warmup_field_issues,
    warmup_issues,
)
from scaling.spec.checks.sizes import cell_issues, size_issues, trial_issues
from scaling.spec.checks.workload import (
    adapter_issues,
    ensemble_issues,
    example_issues,
    look_up_issues,
    model_issues,
    own_optimizer_issues,
    regularizer_issues,
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
            yield Issue(
                f"{path}.fixed.global_batch_size",
                "a cell's recipe cannot set the batch size; give it in scientific, nuisance "
                "or fixed",
                size,
            )


CHECKS: Final[dict[Check, frozenset[str]]] = {
    cell_issues: frozenset({"scientific"}),
    trial_issues: frozenset(
        {"scientific", "nuisance", "target", "search", "transfer", "confirm", "branch"}
    ),
    size_issues: frozenset({"workload"}),
    ramp_count_issues: frozenset(RECIPE_SECTIONS),
    data_issues: frozenset({"workload"}),
    section_issues: frozenset(RECIPE_SECTIONS),
    batch_size_issues: frozenset({*RECIPE_SECTIONS, "resources"} - {"cell_recipes"}),
    batch_ramp_issues: frozenset({*RECIPE_SECTIONS, "budget", "target"}),
    rate_issues: frozenset(RECIPE_SECTIONS),
    base_issues: frozenset(RECIPE_SECTIONS),
    adam_sde_issues: frozenset({*RECIPE_SECTIONS, "transfer"}),
    surge_issues: frozenset({*RECIPE_SECTIONS, "transfer"}),
    co_scaling_issues: frozenset({*RECIPE_SECTIONS, "transfer"}),
    warmup_field_issues: frozenset(RECIPE_SECTIONS),
    warmup_issues: frozenset({*RECIPE_SECTIONS, "budget"}),
    decay_issues: frozenset({*RECIPE_SECTIONS, "budget"}),
    effect_issues: frozenset(RECIPE_SECTIONS),
    nesterov_issues: frozenset(RECIPE_SECTIONS),
    clipping_issues: frozenset(RECIPE_SECTIONS),
    cell_recipe_issues: frozenset({"scientific", "cell_recipes"}),
    horizon_issues: frozenset({*RECIPE_SECTIONS, "budget", "target"}),
    objective_issues: frozenset({"search", "target"}),
    target_issues: frozenset({"target", "workload"}),
    search_size_issues: frozenset({"nuisance", "search"}),
    surface_issues: frozenset({"scientific", "nuisance", "search"}),
    early_stopping_issues: frozenset({*RECIPE_SECTIONS, "search", "budget", "resources"}),
    resource_issues: frozenset({"resources"}),
    confirm_issues: frozenset({"confirm", "target", "search", "nuisance"}),
    transfer_issues: frozenset({*RECIPE_SECTIONS, "transfer"}),
    branch_issues: frozenset({*RECIPE_SECTIONS, "branch", "budget"}),
    extension_issues: frozenset({"nuisance", "search"}),
    ladder_issues: frozenset(
        {*RECIPE_SECTIONS, "workload", "ladder", "budget", "search", "transfer", "branch"}
        | {"target", "resources"}
    ),
    ensemble_issues: frozenset({*RECIPE_SECTIONS, "workload"}),
    model_issues: frozenset({"workload", "resources"}),
    example_issues: frozenset({"workload", "budget", "evaluation", "search"}),
    look_up_issues: frozenset({*RECIPE_SECTIONS, "workload", "branch", "search", "budget"}),
    regularizer_issues: frozenset({*RECIPE_SECTIONS, "workload"}),
    own_optimizer_issues: frozenset({*RECIPE_SECTIONS, "workload"}),
    adapter_issues: frozenset({*RECIPE_SECTIONS, "workload"}),
    zero_issues: frozenset({*RECIPE_SECTIONS, "resources", "workload"}),
    tensor_parallel_issues: frozenset({*RECIPE_SECTIONS, "resources", "workload"}),
    credential_issues: frozenset(),
    storage_issues: frozenset({"storage"}),
}
"""Every check, and the sections it reads."""

_OF_SIZE: Final = (cell_issues, trial_issues, size_issues, ramp_count_issues)
"""The checks that come first."""
