"""The sizes of a ladder, and what a study of them may ask."""

# pyright: strict

from collections.abc import Iterator

from scaling.spec.checks.batch import other_axis_issues, ramp_issues
from scaling.spec.fields import given_fields
from scaling.spec.issues import NO_VALUE, Issue
from scaling.spec.study import StudySpec


def ladder_issues(spec: StudySpec) -> Iterator[Issue]:
    """What a study of sizes cannot ask, and what it must say."""
    ladder = spec.ladder
    if ladder is None:
        return
    for section in ("transfer", "branch", "target"):
        if getattr(spec, section) is not None:
            yield Issue(section, "cannot be asked of a ladder, whose cells are of several sizes")
    if spec.cell_recipes:
        yield Issue("cell_recipes", "cannot be given with a ladder")
    yield from other_axis_issues(spec, "a ladder")
    if spec.search.sampler != "surface":
        message = "a ladder is searched by the surface: give num_trials or budget_flops"
        yield Issue("search.sampler", message, spec.search.sampler, "surface")
    if spec.search.objective != "validation_loss":
        yield Issue("search.objective", "of a ladder", spec.search.objective, "validation_loss")
    if spec.resources.num_workers == "auto":
        message = "of a ladder is the same at every size"
        yield Issue("resources.num_workers", message, "auto", "a whole number")
    yield from _rate_issues(spec)
    yield from _budget_issues(spec)
    yield from ramp_issues(spec, "a ladder needs runs whose batch does not grow")
    fewest = 3 if ladder.check is not None else 2
    if len(ladder.sizes) < fewest:
        message = f"with check, {fewest} sizes are needed: the last one is not searched"
        yield Issue("ladder.sizes", message, NO_VALUE, f"at least {fewest}")
    seen = list[object]()
    for number, label in enumerate(spec.size_labels):
        if not label or label in seen:
            message = "does not differ from the other sizes"
            yield Issue(f"ladder.sizes.{number}", message, dict(ladder.sizes[number]))
        seen.append(label)


def _rate_issues(spec: StudySpec) -> Iterator[Issue]:
    drawn = spec.nuisance.distributions()
    for name in drawn:
        if name != "peak_lr":
            message = "a ladder searches peak_lr alone: give it in fixed, or in ladder.sizes"
            yield Issue(f"nuisance.{name}", message)
    if "peak_lr" not in drawn or drawn["peak_lr"].log_uniform is None:
        yield Issue("nuisance.peak_lr", "a ladder needs it as {log_uniform: [LOW, HIGH]}")


def _budget_issues(spec: StudySpec) -> Iterator[Issue]:
    is_table = spec.workload.looked_up_by is not None
    budget = spec.budget
    if budget.measure not in ("tokens", "examples") and not is_table:
        message = "with a ladder, give tokens, or examples where a task has none"
        yield Issue(f"budget.{budget.measure}", message, getattr(budget, budget.measure))
    if "min_steps" in given_fields(budget):
        message = "cannot be given with a ladder, whose sizes say how long a run is"
        yield Issue("budget.min_steps", message, budget.min_steps)
