"""What may change in a study file when its study goes on, said once for every field.

What was run stays, and what is missing of the changed study is run. So a change may only add to a
study (seeds, trials, values, phases), or be of what no result depends on. Everything else is
refused by name, with the reason; so is a field that `RULES` does not have.
"""

# pyright: strict

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from scaling.spec.checks.sizes import num_cells
from scaling.spec.fields import Section
from scaling.spec.issues import dotted, shown
from scaling.spec.phases import TO_TARGET
from scaling.spec.schema import locate
from scaling.spec.sections import CellRecipe
from scaling.spec.study import StudySpec

Rule = Callable[["Change", StudySpec, StudySpec], str]
"""Why a change is refused, by it and the whole study before and now; empty where it may be."""


@dataclass(frozen=True)
class Change:
    """A field that a study file says otherwise than it did.

    Attributes:
        was: Its value when the study last ran; a `Section` where the whole section is new or gone.
        refusal: Why the study cannot go on with it; empty where it can.
    """

    path: str
    was: Any
    now: Any
    refusal: str = ""

    @property
    def may_add_trials(self) -> bool:
        """Whether the study may have trials to run by it that it had not before."""
        return rule_of(self.path) not in (_free, _target, _resource)

    def __str__(self) -> str:
        """One line, as in "confirm.num_seeds: was 2, is 3"."""
        was, now = (shown(to_jsonable_python(value)) for value in (self.was, self.now))
        why = f" ({self.refusal})" if self.refusal else ""
        return f"{self.path}: was {was}, is {now}{why}"


# --- what a change means ------------------------------------------------------------------------


def _free(_change: Change, _before: StudySpec, _now: StudySpec) -> str:
    """No result depends on it."""
    return ""


def _goes_on(_change: Change, _before: StudySpec, _now: StudySpec) -> str:
    """The trials stay, and the study goes on by it."""
    return ""


def _never(reason: str) -> Rule:
    return lambda _change, _before, _now: reason


def _grows(change: Change, _before: StudySpec, _now: StudySpec) -> str:
    if change.was is None or change.now is None:
        return "trials are counted in another way"
    return "" if change.now > change.was else "it may grow: what was run stays in the study"


def _is_added(change: Change, _before: StudySpec, _now: StudySpec) -> str:
    """Of a whole section that was null."""
    return "" if change.was is None else "what was run stays in the study"


def _turned_on(_change: Change, before: StudySpec, now: StudySpec) -> str:
    return "what was run stays in the study" if before.confirms_target > now.confirms_target else ""


def _keeps(change: Change, _before: StudySpec, _now: StudySpec) -> str:
    return "the models of seeds that have ended were not kept" if change.now else ""


def _gains_values(change: Change, _before: StudySpec, _now: StudySpec) -> str:
    if change.was is None or change.now is None:
        return "other axes make other cells"
    gone = [value for value in change.was if value not in change.now]
    missing = ", ".join(map(shown, gone))
    return f"what was run stays in the study: {missing} is missing" if gone else ""


def _gains_cells(change: Change, before: StudySpec, now: StudySpec) -> str:
    """Of the surface, each cell that is new needs a trial."""
    was, allowed = before.search.num_trials, now.search.num_trials
    if was is not None and allowed is not None:
        least = was + num_cells(now) - num_cells(before)
        if allowed < least:
            return f"the new cells need trials: raise search.num_trials to {least} or more"
    return _gains_values(change, before, now)


def _gains_recipes(change: Change, before: StudySpec, _now: StudySpec) -> str:
    """Recipes of new cells may be added; each that was there stays."""
    values = before.scientific_values()

    def known(recipes: tuple[CellRecipe, ...]) -> list[Any]:
        old = (r for r in recipes if all(v in values.get(name, ()) for name, v in r.cell.items()))
        return sorted((to_jsonable_python(recipe) for recipe in old), key=str)

    return "" if known(change.was) == known(change.now) else "trials of its cell were run without"


def _more_trials(change: Change, before: StudySpec, now: StudySpec) -> str:
    if before.search.extend_undertuned:
        return "the trials that extend_undertuned adds are numbered after those of the range"
    return _grows(change, before, now)


def _gains_multiples(change: Change, before: StudySpec, now: StudySpec) -> str:
    assert before.branch is not None
    assert now.branch is not None
    if before.branch.window != now.branch.window:
        return (
            f"every branch would have a window of {now.branch.window} examples, not "
            f"{before.branch.window}"
        )
    return _gains_values(change, before, now)


def _target(_change: Change, before: StudySpec, now: StudySpec) -> str:
    by_target = {before.search.objective, now.search.objective} & {*TO_TARGET}
    return "the search went by it (search.objective)" if by_target else ""


def _resource(_change: Change, before: StudySpec, _now: StudySpec) -> str:
    is_timed = before.budget.seconds is not None
    return "in the same seconds (budget.seconds) trials take other steps on it" if is_timed else ""


_SPACE: Final = _never("each cell was searched in another space")
_TRIALS: Final = _never("the trials that were run are others")
_SEARCH: Final = _never("the recipes that were tried were chosen otherwise")
_MEASURED: Final = _never("the trials that were run were measured otherwise")
_BRANCHES: Final = _never("the branches that were run are others")

RULES: Final[Mapping[str, Rule]] = {
    "name": _never("it is what the study is known by, here and in MLflow"),
    "question": _free,
    "seed": _TRIALS,
    "workload": _never("the trials were trained on another problem"),
    # By content: the study's data are compared by their hash.
    "workload.data.files": _free,
    "workload.file": _free,
    "workload.folder": _free,
    "workload.ranges": _goes_on,  # what is recorded of the metrics is read from the task anew
    "workload.exactness": _free,  # it says what is accepted, not how is trained
    "scientific": _gains_cells,
    "nuisance": _SPACE,
    "fixed": _TRIALS,
    "cell_recipes": _gains_recipes,
    "ladder": _never("the trials that were run are of other sizes"),
    "budget": _never("the trials that were run have another length"),
    "evaluation.every_examples": _MEASURED,
    "evaluation.every_steps": _MEASURED,
    "evaluation.growth_ratio": _MEASURED,
    "evaluation.num_examples": _MEASURED,
    "evaluation.divergence_ratio": _MEASURED,
    "evaluation.sharpness": _free,  # of the trials that are still to run
    "evaluation.sharpness.num_examples": _MEASURED,
    "evaluation.sharpness.epsilon": _MEASURED,
    "target": _target,
    "search.objective": _SEARCH,
    "search.sampler": _SEARCH,
    "search.num_trials": _grows,
    "search.budget_flops": _grows,
    "search.trials_per_cell": _more_trials,
    "search.stop": _goes_on,  # the rounds that were run stay; a stricter limit adds some
    "search.round_size": _never("the rounds of a search keep the size that they began with"),
    "search.prior_peak_lr": _SEARCH,
    "search.early_stopping": _SEARCH,
    "search.extend_undertuned": _grows,
    "transfer": _is_added,
    "transfer.base_batch_size": _never("the trials that were run carry another cell's recipe"),
    "transfer.rules": _gains_values,
    "transfer.num_seeds": _grows,
    "confirm": _is_added,
    "confirm.num_seeds": _grows,
    "confirm.recipe_for_target": _turned_on,
    "confirm.keep_models": _keeps,
    "branch": _is_added,
    "branch.base_batch_size": _BRANCHES,
    "branch.at_examples": _gains_values,
    "branch.multiples": _gains_multiples,
    "branch.window_examples": _BRANCHES,
    "branch.tolerance": _free,
    "branch.lr_rule": _BRANCHES,
    "branch.num_seeds": _grows,
    "recommendation": _free,
    "resources.num_workers": _resource,
    "resources.cpus_per_worker": _resource,
    "resources.gpus_per_worker": _resource,
    "resources.network_interface": _resource,
    "resources.micro_batch_size": _resource,
    "resources.strategy": _resource,
    "resources.precision": _never("the losses would be rounded otherwise"),
    "resources.activation_checkpointing": _resource,
    "resources.compile": _resource,
    "resources.executor": _resource,
    "resources.max_slots": _resource,
    "resources.min_slots": _resource,
    "resources.wait_for_resources_seconds": _resource,
    "checkpoints": _free,
    "storage": _free,
}
"""By path: of fields, of sections that may be null, and of those in `WHOLE`, for all they have."""

WHOLE: Final = (
    "ladder", "workload", "workload.data.files", "scientific", "nuisance", "fixed", "budget",
    "target", "search.early_stopping", "search.stop", "recommendation", "checkpoints",
)  # fmt: skip
"""The sections whose rule is that of every field in them, those to come included."""
_UNKNOWN: Final = _never("this version does not know whether trials depend on it")


def rule_of(path: str) -> Rule:
    """The rule of a field: its own, or that of the section in `WHOLE` that it is in."""
    if path in RULES:
        return RULES[path]
    sections = [section for section in WHOLE if path.startswith(f"{section}.")]
    return RULES[max(sections, key=len)] if sections else _UNKNOWN


def changes(before: StudySpec, now: StudySpec) -> tuple[Change, ...]:
    """Every field that a study file says otherwise than it did, in the order of the schema.

    It is compared by what it means: a field that is left out is equal to its default.
    """
    return tuple(
        Change(change.path, change.was, change.now, rule_of(change.path)(change, before, now))
        for change in _changed("", before, now)
    )


def _changed(path: str, was: Any, now: Any) -> Iterator[Change]:
    if isinstance(was, Section) and isinstance(now, Section):
        for name in dict.fromkeys((*type(was).model_fields, *type(now).model_fields)):
            inner = (getattr(section, name, None) for section in (was, now))
            yield from _changed(f"{path}.{name}" if path else name, *inner)
    elif to_jsonable_python(was) != to_jsonable_python(now):
        yield Change(path, was, now)


# --- what was recorded --------------------------------------------------------------------------


class RecordedSpecError(ValueError):
    """A recorded study file that today's version cannot go on with; says which field and why."""


def recorded_spec(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> StudySpec:
    """The study file that a study was last run with, in today's terms.

    A field that there was not yet has its default; one that there is no longer is passed over
    where it had its default.

    Args:
        recorded: Every field with its value, defaults included.
        given: The fields whose value was not their default.

    Raises:
        RecordedSpecError: If a field that is gone had another value, or one has a value that is
            not allowed any longer.
    """
    spec = cast("dict[str, Any]", copy.deepcopy(recorded))
    try:
        return StudySpec.model_validate(spec)
    except ValidationError as error:
        for issue in error.errors(include_url=False):
            if issue["type"] == "extra_forbidden":
                _pass_over(spec, locate(issue["loc"]).path, given)
    try:
        return StudySpec.model_validate(spec)
    except ValidationError as error:
        issue = error.errors(include_url=False)[0]
        raise RecordedSpecError(f"{dotted(locate(issue['loc']).path)}: {issue['msg']}") from None


def _pass_over(spec: dict[str, Any], path: tuple[str | int, ...], given: Mapping[str, Any]) -> None:
    holder: Any = spec
    for part in path[:-1]:
        holder = holder[part]
    value = holder.pop(path[-1])
    if _has(given, path):
        raise RecordedSpecError(
            f"{dotted(path)}: was {shown(value)}, and there is no such field any longer"
        )


def _has(given: Any, path: tuple[str | int, ...]) -> bool:
    for part in path:
        if isinstance(given, list):
            given = dict(enumerate(cast("list[Any]", given)))
        if not isinstance(given, dict) or part not in given:
            return False
        given = cast("dict[Any, Any]", given)[part]
    return True
