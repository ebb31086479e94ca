"""Search, transfer, branches and early stopping."""

import math
from collections.abc import Iterator

from scaling.arithmetic.batching import BatchRamp
from scaling.arithmetic.rules import one_name
from scaling.spec.checks.batch import (
    StepsOf,
    examples_of_runs,
    other_axis_issues,
    ramp_issues,
    steps_by_file,
)
from scaling.spec.checks.places import given_value, places_of, possible_values
from scaling.spec.checks.sizes import num_cells
from scaling.spec.evaluation import LOSS
from scaling.spec.issues import Issue
from scaling.spec.phases import MAX_SURFACE_TRIALS, TO_TARGET
from scaling.spec.study import StudySpec


def objective_issues(spec: StudySpec) -> Iterator[Issue]:
    """Steps or examples to a target need a target."""
    objective = spec.search.objective
    if objective in TO_TARGET and spec.target is None:
        message = f"is required by search.objective {objective}: give at_most or at_least"
        yield Issue("target", message)


def target_issues(spec: StudySpec) -> Iterator[Issue]:
    """A loss comes to zero only where it is of the user's own, or somebody else's table."""
    target, workload = spec.target, spec.workload
    if target is None or target.at_most is None or target.metric != LOSS or target.at_most > 0:
        return
    if not workload.own_code and workload.looked_up_by is None:
        yield Issue("target.at_most", "must be above 0", target.at_most, "a number above 0")


def confirm_issues(spec: StudySpec) -> Iterator[Issue]:
    """A recipe for the target needs a target, and a search that goes by something else."""
    if spec.confirm is None or not spec.confirm.recipe_for_target:
        return
    path = "confirm.recipe_for_target"
    if spec.target is None:
        yield Issue("target", f"is required by {path}: give at_most or at_least")
    if spec.search.objective in TO_TARGET:
        message = f"the recipe by search.objective {spec.search.objective} is that for the target"
        yield Issue(path, message, True, "false")
    if "global_batch_size" in spec.nuisance.distributions():
        yield Issue(path, "needs cells of one batch size; here it is searched", True, "false")


def transfer_issues(spec: StudySpec) -> Iterator[Issue]:
    """Rules carry a tuned peak_lr from one cell of a batch-size axis to the others."""
    if spec.transfer is None:
        return
    batches = spec.scientific_values().get("global_batch_size", ())
    base = spec.transfer.base_batch_size
    if not batches:
        message = "transfer carries a recipe between batch sizes: list them here"
        yield Issue("scientific.global_batch_size", message)
    elif base not in batches:
        known = ", ".join(map(str, batches))
        yield Issue("transfer.base_batch_size", "is not a cell of the study", base, known)
    elif len(batches) == 1:
        message = "transfer needs another batch size than its base"
        yield Issue("scientific.global_batch_size", message, list(batches))
    known_rules: dict[str, str] = {}
    for rule in spec.transfer.rules:
        first = known_rules.setdefault(one_name(rule), rule)
        if first != rule:
            yield Issue("transfer.rules", f"is the same rule as {first}", rule)
    yield from other_axis_issues(spec, "transfer")
    for place in places_of(spec, "base_lr"):
        yield place.issue("transfer scales the rate itself: give peak_lr instead")


def branch_issues(spec: StudySpec) -> Iterator[Issue]:
    """Branches leave a run of constant batch, of a cell of the study, before its end."""
    branch = spec.branch
    if branch is None:
        return
    fixed = given_value(spec.fixed, "global_batch_size")
    alone = () if fixed is None else (fixed,)
    batches = spec.scientific_values().get("global_batch_size", alone)
    base = branch.base_batch_size
    if base not in batches:
        known = ", ".join(map(str, batches)) or "a batch size in scientific or fixed"
        yield Issue("branch.base_batch_size", "is not a cell of the study", base, known)
    yield from other_axis_issues(spec, "branch")
    yield from ramp_issues(spec, "branch needs a run whose batch does not grow")
    if branch.lr_rule == "adam_sde":
        others = "none, sqrt, linear, power(EXPONENT), surge(BNOISE)"
        yield Issue("branch.lr_rule", "moves the betas, which a branch keeps", "adam_sde", others)
    starts = list(branch.at_examples)
    if len(set(branch.starts)) < len(branch.starts):
        message = f"two of them are the same step of batch {base}"
        yield Issue("branch.at_examples", message, starts)
    if spec.budget.seconds is not None:
        yield Issue("budget.seconds", "does not say how many examples a run of branch sees")
    steps, window = steps_by_file(spec, BatchRamp(base)), branch.window
    if steps is not None and branch.starts[-1] + window > (end := steps * base):
        message = f"with a window of {window} examples passes the end of the base run of {end}"
        yield Issue("branch.at_examples", message, starts, f"at most {max(end - window, 0)}")


def extension_issues(spec: StudySpec) -> Iterator[Issue]:
    """A range can be extended where a rate was drawn from one, on a logarithmic scale."""
    if not spec.search.extend_undertuned:
        return
    path, times = "search.extend_undertuned", spec.search.extend_undertuned
    drawn = spec.nuisance.distributions()
    rates = [name for name in ("peak_lr", "base_lr") if name in drawn]
    if not rates:
        yield Issue(path, "needs a peak_lr or base_lr in nuisance, whose range it extends", times)
    for name in rates:
        if drawn[name].uniform is not None:
            yield Issue(f"nuisance.{name}", "extend_undertuned needs log_uniform or choice")
        elif len(drawn[name].choice or (0, 0, 0)) < 3:
            message = "extend_undertuned needs at least three rates"
            yield Issue(f"nuisance.{name}", message, list(drawn[name].choice or ()))
        elif (sampler := spec.search.adaptive) and drawn[name].choice is not None:
            yield Issue(f"nuisance.{name}", f"extend_undertuned with {sampler} needs log_uniform")
    for name in ("global_batch_size", "lr_scaling_rule"):
        if rates and name in drawn:
            message = "is searched with the rate, so that extend_undertuned cannot tell which end "
            yield Issue(f"nuisance.{name}", message + "of the rates is short")


def search_size_issues(spec: StudySpec) -> Iterator[Issue]:
    """As many trials a cell as there is something to try."""
    if spec.search.sampler == "surface":
        return
    trials = spec.search.per_cell
    drawn = spec.nuisance.distributions()
    path = "search.trials_per_cell"
    if not drawn:
        if trials != 1:
            yield Issue(path, "there is no nuisance hyperparameter to search", trials, "1")
        return
    if spec.search.sampler != "grid":
        return
    ranges = [name for name, distribution in drawn.items() if distribution.choice is None]
    for name in ranges:
        yield Issue(f"nuisance.{name}", "search.sampler grid needs the values listed: give choice")
    size = math.prod(len(distribution.choice or ()) for distribution in drawn.values())
    if not ranges and trials != size:
        yield Issue(path, "must be the size of the grid", trials, str(size))


def surface_issues(spec: StudySpec) -> Iterator[Issue]:
    """What only a search by the surface can use, and what it cannot."""
    search, drawn = spec.search, spec.nuisance.distributions()
    if search.sampler != "surface":
        for name in ("stop", "round_size", "prior_peak_lr"):
            if getattr(search, name) is not None:
                yield Issue(f"search.{name}", f"is for sampler surface, not {search.sampler}")
        return
    if not drawn:
        message = "there is no nuisance hyperparameter to search: give trials_per_cell: 1 instead "
        yield Issue("search.sampler", message + "of num_trials", "surface")
    if search.budget_flops is not None and spec.ladder is None:
        yield Issue("search.budget_flops", "is for a ladder: give num_trials", search.budget_flops)
    path, count = "search.num_trials", search.most_trials
    cells = num_cells(spec) if spec.ladder is None else len(spec.ladder.searched)
    if count < cells:
        what = "sizes" if spec.ladder else "cells"
        yield Issue(path, f"each of the {cells} {what} needs a trial", count, f"at least {cells}")
    if count > MAX_SURFACE_TRIALS:
        most = f"at most {MAX_SURFACE_TRIALS:,}"
        yield Issue(path, "a surface over so many trials is slow", count, most)
    if search.early_stopping is not None:
        message = "sampler surface compares trials at the end of their budget: leave it out, or "
        yield Issue("search.early_stopping", message + "choose another sampler")
    if search.extend_undertuned:
        message = (
            "sampler surface needs no extensions: give nuisance a range that is surely wide "
            "enough, and it tries few rates far from the best"
        )
        yield Issue("search.extend_undertuned", message, search.extend_undertuned)
    if (prior := search.prior_peak_lr) is not None:
        rates = drawn.get("peak_lr")
        if rates is None:
            yield Issue("search.prior_peak_lr", "needs a peak_lr in nuisance", prior)
            return
        ends = rates.ends
        is_in = prior in (rates.choice or ()) if ends is None else ends[0] <= prior <= ends[1]
        if not is_in:
            listed = ", ".join(f"{rate:g}" for rate in rates.choice or ())
            allowed = listed if ends is None else f"{ends[0]:g} to {ends[1]:g}"
            yield Issue("search.prior_peak_lr", "is not in nuisance.peak_lr", prior, allowed)


def early_stopping_issues(
    spec: StudySpec, steps_of: StepsOf = steps_by_file, tokens_per_example: float | None = None
) -> Iterator[Issue]:
    """Rungs that some trial can reach, decided by who can tell a worker to stop."""
    early = spec.search.early_stopping
    if early is None:
        return
    if spec.resources.executor != "pool":
        executor = spec.resources.executor
        yield Issue("resources.executor", "cannot stop a trial early", executor, "pool")
    batches = possible_values(spec, "global_batch_size") - {None}
    runs = [num for size in batches for num in examples_of_runs(spec, size, steps_of)]
    for unit, size in (("examples", 1.0), ("tokens", tokens_per_example)):
        first = getattr(early, f"first_rung_{unit}")
        if first is None or size is None or not runs:
            continue
        if first >= (longest := max(runs) * size):
            path = f"search.early_stopping.first_rung_{unit}"
            yield Issue(path, "no trial gets past it", first, f"below {longest:.0f}")
