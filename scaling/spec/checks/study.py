"""What the sections of a study must say together, beyond what each must say alone."""

# pyright: strict

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from scaling.arithmetic.batching import BatchRamp, nearest_feasible
from scaling.arithmetic.rules import OptimizerSettings, RuleDomainError, scale_optimizer
from scaling.spec.checks.data import credential_issues, data_issues, storage_issues
from scaling.spec.checks.sizes import cell_issues, chain_issues, num_cells, trial_issues
from scaling.spec.fields import MAX_BATCH_SIZE, given_fields
from scaling.spec.hyperparameters import Choice, Distribution, Fixed, Nuisance, Scientific
from scaling.spec.issues import NO_VALUE, Issue, shown
from scaling.spec.models import FromScratch, Pretrained
from scaling.spec.resources import ZERO_STAGES
from scaling.spec.study import StudySpec
from scaling.spec.workloads import NoisyQuadratic

MAX_RAMPS: Final = 100_000
"""Ways in which a batch may grow, over all batch sizes or recipes: so many are gone through."""

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
        return list({str(issue): issue for check in able for issue in check(spec)}.values())

    return found(_OF_SIZE) or found(CHECKS)


# --- where a hyperparameter's values stand ------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Values that a study gives a hyperparameter in one of its sections.

    Attributes:
        section: scientific, nuisance, fixed or cell_recipes.
        path: Dotted path.
        values: All it may be; for a searched range, the two bounds.
        recipe: Index of the cell recipe; None for the other sections.
    """

    section: Literal["scientific", "nuisance", "fixed", "cell_recipes"]
    path: str
    values: tuple[Any, ...]
    recipe: int | None = None

    @property
    def value(self) -> Any:
        """What to show: the one value, or the list of them."""
        return self.values[0] if len(self.values) == 1 else list(self.values)


def _places(spec: StudySpec, name: str, *, recipes: bool = True) -> list[_Place]:
    """Every place that gives a hyperparameter; null counts as not given."""
    places: list[_Place] = []
    values = _value(spec.scientific, name)
    if values is not None:
        places.append(_Place("scientific", f"scientific.{name}", values))
    drawn = _value(spec.nuisance, name)
    if drawn is not None:
        places.append(_Place("nuisance", f"nuisance.{name}", _ends(drawn)))
    value = _value(spec.fixed, name)
    if value is not None:
        places.append(_Place("fixed", f"fixed.{name}", (value,)))
    return places + (_recipe_places(spec, name) if recipes else [])


def _ends(drawn: Distribution[Any] | Choice[Any]) -> tuple[Any, ...]:
    """The values listed, or the two bounds."""
    if drawn.choice is not None or isinstance(drawn, Choice):
        return drawn.choice or ()
    return drawn.log_uniform or drawn.uniform or ()


def _recipe_places(spec: StudySpec, name: str) -> list[_Place]:
    return [
        _Place("cell_recipes", f"cell_recipes.{index}.fixed.{name}", (value,), recipe=index)
        for index, recipe in enumerate(spec.cell_recipes)
        if (value := _value(recipe.fixed, name)) is not None
    ]


def _value(section: Scientific | Nuisance | Fixed, name: str) -> Any:
    """What the file says in a section; None where it says nothing."""
    return given_fields(section).get(name)


def _possible(spec: StudySpec, name: str) -> set[Any]:
    """Every listed value that a hyperparameter may have; its default where none is given."""
    places = _places(spec, name)
    possible = {value for place in places for value in place.values}
    if not any(place.section != "cell_recipes" for place in places):
        possible.add(Fixed.model_fields[name].default)
    return possible


# --- learning rate ------------------------------------------------------------------------------


def _one_section(spec: StudySpec) -> Iterator[Issue]:
    """A hyperparameter is scientific, nuisance or fixed; a recipe only replaces a fixed one."""
    for name in Fixed.model_fields:
        places = _places(spec, name, recipes=False)
        for place in places[1:]:
            yield Issue(
                place.path, f"is also given in {places[0].section}; give it once", place.value
            )
        if places and places[0].section != "fixed":
            for place in _recipe_places(spec, name):
                yield Issue(
                    place.path,
                    f"{places[0].section} decides {name}; a cell's recipe cannot",
                    place.value,
                )


def _one_rate(spec: StudySpec) -> Iterator[Issue]:
    """Every trial has exactly one of peak_lr and base_lr."""
    peak = _places(spec, "peak_lr")
    base = _places(spec, "base_lr")
    for place in base:
        rival = next((other for other in peak if _same_trial(place, other)), None)
        if rival is not None:
            yield Issue(
                place.path, f"{rival.path} is given too; a trial has one of them", place.value
            )
    if any(place.recipe is None for place in peak + base):
        return
    cells = {_cell_key(spec.cell_recipes[p.recipe or 0].cell) for p in peak + base}
    if not cells:
        yield Issue(
            "fixed.peak_lr",
            "no learning rate is given: give peak_lr or base_lr in nuisance, scientific, fixed "
            "or every cell's recipe",
        )
    elif len(cells) < num_cells(spec):
        yield Issue(
            "cell_recipes",
            f"give a learning rate for {len(cells)} of {num_cells(spec)} cells; give peak_lr "
            "for every cell, or elsewhere",
        )


def _same_trial(place: _Place, other: _Place) -> bool:
    """True where one trial has both."""
    return place.recipe is None or other.recipe is None or place.recipe == other.recipe


def _base_of_rate(spec: StudySpec) -> Iterator[Issue]:
    """base_lr needs base_batch_size; base_batch_size and a rule do nothing without base_lr."""
    rates = _places(spec, "base_lr")
    bases = _places(spec, "base_batch_size")
    for rate in rates:
        if not any(base.recipe in (None, rate.recipe) for base in bases):
            yield Issue(
                "fixed.base_batch_size" if rate.recipe is None else rate.path,
                f"{rate.path} holds at a batch size that is not given: give base_batch_size",
            )
    if rates:
        return
    rules = _places(spec, "lr_scaling_rule")
    moving = [place for place in rules if set(place.values) != {"none"}]
    for place in bases + moving:
        yield Issue(
            place.path, "has no effect without base_lr (peak_lr is never scaled)", place.value
        )


def _adam_sde(spec: StudySpec) -> Iterator[Issue]:
    """Adam-SDE is about Adam, and within its domain at every batch size of the study."""
    others = _possible(spec, "optimizer") - {"adamw"}
    places = [p for p in _places(spec, "lr_scaling_rule") if "adam_sde" in p.values]
    carried = [place.path for place in places]
    if spec.transfer is not None and "adam_sde" in spec.transfer.rules:
        carried.append("transfer.rules")
    if others:
        for path in carried:
            yield Issue(path, f"adam_sde scales Adam, not {', '.join(sorted(others))}", "adam_sde")
    elif spec.batch_sizes() and (bases := _listed_values(spec, "base_batch_size")):
        base, batch = min(bases), max(spec.batch_sizes())
        lowest = OptimizerSettings(
            peak_lr=1.0,
            beta1=min(_possible(spec, "beta1")),
            beta2=min(0.999 if beta2 is None else beta2 for beta2 in _possible(spec, "beta2")),
            eps=1.0,
        )
        try:
            scale_optimizer(lowest, base_batch_size=base, global_batch_size=batch, rule="adam_sde")
        except RuleDomainError as error:
            for place in places:
                yield Issue(place.path, f"from batch {base} to {batch}: {error}", place.value)


def _surge(spec: StudySpec) -> Iterator[Issue]:
    """Surge is about optimizers that go by the gradient's sign, as Adam does."""
    others = sorted(_possible(spec, "optimizer") & {"sgd", "lars", "muon"})
    if not others:
        return
    rules = [(p.path, rule) for p in _places(spec, "lr_scaling_rule") for rule in p.values]
    if spec.transfer is not None:
        rules += [("transfer.rules", rule) for rule in spec.transfer.rules]
    for path, rule in rules:
        if rule.startswith("surge"):
            yield Issue(path, f"surge is about optimizers like Adam, not {', '.join(others)}", rule)


def _co_scaling(spec: StudySpec) -> Iterator[Issue]:
    """What moves beside the rate: with a base to move from, and something to move."""
    beta2 = _moving(spec, "beta2_scaling", "token_half_life")
    decay = _moving(spec, "weight_decay_scaling", "timescale")
    warmup = _moving(spec, "warmup_scaling", "examples")
    optimizers = _possible(spec, "optimizer")
    if not _places(spec, "base_lr") and spec.transfer is None:
        for place in beta2 + decay + warmup:
            yield Issue(
                place.path, "has no base to scale from: give base_lr, or transfer", place.value
            )
    rules = {*_possible(spec, "lr_scaling_rule"), *(spec.transfer.rules if spec.transfer else ())}
    for place in beta2:
        if others := sorted(optimizers - {"adamw", "lamb", "muon"}):
            yield Issue(
                place.path,
                f"token_half_life is of Adam's second moment, which {', '.join(others)} lacks",
                place.value,
            )
        if "adam_sde" in rules:
            yield Issue(place.path, "adam_sde moves beta2 itself", place.value, "none")
    for place in decay:
        if others := sorted(optimizers & {"lamb", "lars"}):
            yield Issue(
                place.path,
                f"the trust ratio of {', '.join(others)} takes the decay in, so lr × weight_decay "
                "sets no timescale",
                place.value,
                "none",
            )
        if _possible(spec, "weight_decay") == {0.0}:
            yield Issue(place.path, "has no effect without weight_decay", place.value)
    for place in warmup:
        if not _places(spec, "warmup_steps"):
            yield Issue(
                place.path,
                "has no effect without warmup_steps (warmup_ratio and warmup_examples say what "
                "they keep)",
                place.value,
            )


def _moving(spec: StudySpec, name: str, value: str) -> list[_Place]:
    return [place for place in _places(spec, name) if value in place.values]


def _listed_values(spec: StudySpec, name: str) -> list[Any]:
    return [value for place in _places(spec, name) for value in place.values]


# --- schedule, batch, cells ---------------------------------------------------------------------


def _one_warmup(spec: StudySpec) -> Iterator[Issue]:
    yield from _at_most_one(spec, ("warmup_steps", "warmup_ratio", "warmup_examples"))


def _at_most_one(spec: StudySpec, names: tuple[str, ...]) -> Iterator[Issue]:
    """No trial has two of these hyperparameters; null counts as not given."""
    before: list[_Place] = []
    for name in names:
        places = [p for p in _places(spec, name) if any(value is not None for value in p.values)]
        for place in places:
            rival = next((other for other in before if _same_trial(place, other)), None)
            if rival is not None:
                yield Issue(place.path, f"{rival.path} is given too; give one of them", place.value)
        before += places


def _warmup_fits(spec: StudySpec) -> Iterator[Issue]:
    """No cell's run is over before its warmup is."""
    for place in _places(spec, "warmup_steps"):
        batches = _batches_of(spec, place)
        num_steps = _fewest_steps(spec, batches)
        if num_steps is not None and max(place.values) > num_steps:
            at_batch = f" at global_batch_size {max(batches)}" if batches else ""
            yield Issue(
                place.path,
                f"outlasts the run, which has {num_steps} steps{at_batch}",
                max(place.values),
                f"at most {num_steps}",
            )
    for place in _places(spec, "warmup_examples"):
        for batch in _batches_of(spec, place):
            examples = min(_examples_of_runs(spec, batch), default=math.inf)
            if max(place.values) > examples:
                yield Issue(
                    place.path,
                    f"outlasts the run, which has {examples} examples at global_batch_size {batch}",
                    max(place.values),
                    f"at most {examples}",
                )
                break


def _decay_fits(spec: StudySpec) -> Iterator[Issue]:
    """The decay of wsd starts after warmup."""
    if "wsd" not in _possible(spec, "schedule"):
        return
    decay = max(_possible(spec, "decay_ratio"))
    for name in ("warmup_ratio", "warmup_steps"):
        for place in _places(spec, name):
            num_steps = 1 if name == "warmup_ratio" else _fewest_steps(spec, spec.batch_sizes())
            if num_steps is not None and max(place.values) > num_steps * (1 - decay) + 1e-9:
                yield Issue(
                    place.path,
                    f"ends after the decay of wsd starts, which takes the last {decay:g} of the "
                    "run's steps",
                    max(place.values),
                    f"at most {num_steps * (1 - decay):g}",
                )


def _batches_of(spec: StudySpec, place: _Place) -> tuple[int, ...]:
    if place.recipe is not None:
        batch = spec.cell_recipes[place.recipe].cell.get("global_batch_size")
        if isinstance(batch, int) and batch > 0:
            return (batch,)
    return spec.batch_sizes()


def _fewest_steps(spec: StudySpec, batches: tuple[int, ...]) -> int | None:
    """Steps of the shortest trial; None where the budget does not say."""
    if not batches:
        steps = spec.budget.steps
        return None if steps is None else max(steps, spec.budget.min_steps)
    known = (_steps_of(spec, ramp) for ramp in _ramps(spec, max(batches)))
    return min((steps for steps in known if steps is not None), default=None)


def _examples_of_runs(spec: StudySpec, batch: int) -> list[int]:
    """Examples of trials that start at a batch size, by how it grows; empty where not known."""
    known = ((ramp, _steps_of(spec, ramp)) for ramp in _ramps(spec, batch))
    return [ramp.examples_after(steps) for ramp, steps in known if steps is not None]


def _steps_of(spec: StudySpec, ramp: BatchRamp) -> int | None:
    budget = spec.budget
    if budget.steps is not None:
        return max(budget.steps, budget.min_steps)
    if budget.examples is not None:
        return ramp.steps_for(budget.examples, min_steps=budget.min_steps)
    return None


def _ramps(spec: StudySpec, batch: int) -> list[BatchRamp]:
    """Every way in which the batch of a trial may grow from this size."""
    names = ("batch_ramp_every_examples", "batch_ramp_at_examples", "batch_ramp_factor")
    ramps: list[BatchRamp] = []
    for every, at, factor in itertools.product(*(_possible(spec, name) for name in names)):
        if every is None:
            ramps.append(BatchRamp(batch, at or (), factor))
        else:
            ramps.append(BatchRamp.every(every, first=batch, factor=factor, largest=MAX_BATCH_SIZE))
    return ramps


def _ramp_count(spec: StudySpec) -> Iterator[Issue]:
    """As many ways for the batch to grow as can be gone through."""
    names = ("batch_ramp_every_examples", "batch_ramp_at_examples", "batch_ramp_factor")
    count = math.prod(len(_possible(spec, name)) for name in names)
    count *= max(1, len(spec.batch_sizes()), len(spec.cell_recipes))
    if count > MAX_RAMPS and (places := [p for name in names for p in _places(spec, name)]):
        most = max(places, key=lambda place: len(place.values))
        message = f"makes {count:,} ways in which the batch grows"
        yield Issue(most.path, message, NO_VALUE, f"at most {MAX_RAMPS:,}")


_RAMPS: Final = ("batch_ramp_every_examples", "batch_ramp_at_examples")


def _batch_ramp(spec: StudySpec) -> Iterator[Issue]:
    """A batch that grows does so within the run, one size at a time."""
    yield from _at_most_one(spec, _RAMPS)
    places = [
        place
        for name in _RAMPS
        for place in _places(spec, name)
        if any(value is not None for value in place.values)
    ]
    if not places:
        for place in _places(spec, "batch_ramp_factor"):
            yield Issue(place.path, "has no effect without a batch ramp", place.value)
    for place in places:
        every = place.path.endswith(_RAMPS[0])
        if spec.target is not None and spec.scientific.global_batch_size is not None:
            yield Issue(
                place.path,
                "the critical batch size is fitted to steps to target at constant batches; drop "
                "target, or take global_batch_size out of scientific",
                place.value,
            )
        if every and spec.budget.seconds is not None:
            yield Issue(
                place.path,
                "a budget in seconds does not say how far the batch grows; give "
                "batch_ramp_at_examples",
                place.value,
            )
        yield from _ramp_fits(spec, place, every=every)


def _ramp_fits(spec: StudySpec, place: _Place, *, every: bool) -> Iterator[Issue]:
    """Each growth comes before the end of some run, and after a step of the size before."""
    batches = _batches_of(spec, place)
    ends = [
        ramp.examples_after(steps - 1)  # where the last step starts
        for batch in batches
        for ramp in _ramps(spec, batch)
        if (steps := _steps_of(spec, ramp)) is not None
    ]
    values = [value for value in place.values if value is not None]
    last = max(values) if every else values[0][-1]
    if ends and last > max(ends):
        yield Issue(place.path, "is past the end of every run", last, f"at most {max(ends)}")
    for ramp in (ramp for batch in batches[-1:] for ramp in _ramps(spec, batch)):
        steps = _steps_of(spec, ramp)
        if steps is not None:
            ramp = ramp.up_to(steps)
        elif every:
            continue
        if ramp.skips:
            yield Issue(
                place.path,
                f"a batch that grows {ramp.factor}-fold from {ramp.first} passes two of its "
                "marks in one step; space them wider",
                place.value,
            )
            return


def _batch_sizes(spec: StudySpec) -> Iterator[Issue]:
    """A batch size is given, and every worker gets an equal share of it."""
    num_workers = spec.resources.num_workers
    workers = 1 if num_workers == "auto" else num_workers // spec.resources.num_parts
    places = _places(spec, "global_batch_size", recipes=False)
    if not places:
        yield Issue(
            "fixed.global_batch_size", "no batch size is given: give it in scientific, "
            "nuisance or fixed",
        )  # fmt: skip
    for place in places:
        for size in place.values:
            feasible = nearest_feasible(size, workers)
            if size not in feasible:
                yield Issue(
                    place.path,
                    f"must be a multiple of resources.num_workers {workers}",
                    size,
                    " or ".join(map(str, feasible)),
                )


def _recipes(spec: StudySpec) -> Iterator[Issue]:
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
        if _cell_key(recipe.cell) in seen:
            yield Issue(f"{path}.cell", "has a recipe already", recipe.cell)
        seen.add(_cell_key(recipe.cell))
        if recipe.fixed.global_batch_size is not None:
            yield Issue(
                f"{path}.fixed.global_batch_size",
                "a cell's recipe cannot set the batch size; give it in scientific, nuisance "
                "or fixed",
                recipe.fixed.global_batch_size,
            )


def _cell_key(cell: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The cell as something that a set can hold, in any order of its names."""
    return tuple(sorted(cell.items()))


NEEDS: Final = {
    "momentum": ("optimizer", {"sgd", "lars", "muon"}),
    "nesterov": ("optimizer", {"sgd"}),
    "beta1": ("optimizer", {"adamw", "lamb", "lion", "muon"}),
    "beta2": ("optimizer", {"adamw", "lamb", "lion", "muon"}),
    "eps": ("optimizer", {"adamw", "lamb", "muon"}),
    "min_lr_ratio": ("schedule", {"linear", "cosine", "wsd"}),
    "decay_ratio": ("schedule", {"wsd"}),
    "decay_shape": ("schedule", {"wsd"}),
}
"""Hyperparameters without effect unless another one has one of these values."""

_HARMLESS: Final = {"min_lr_ratio": (0.0,), "nesterov": (False,)}
"""Values that say what is so anyway."""


def _without_effect(spec: StudySpec) -> Iterator[Issue]:
    """A hyperparameter that no trial uses is a mistake, not a detail."""
    for name, (of, useful) in NEEDS.items():
        possible = _possible(spec, of)
        if possible & useful:
            continue
        for place in _places(spec, name):
            if place.values != _HARMLESS.get(name):
                yield Issue(
                    place.path,
                    f"has no effect with {of} {' or '.join(sorted(possible))}",
                    place.value,
                    f"only with {of} {' or '.join(sorted(useful))}",
                )


def _one_clipping(spec: StudySpec) -> Iterator[Issue]:
    yield from _at_most_one(spec, ("clip_norm", "clip_value", "clip_percentile"))
    if _possible(spec, "clip_percentile") == {None}:
        for place in _places(spec, "clip_history_steps"):
            yield Issue(place.path, "has no effect without clip_percentile", place.value)


def _nesterov(spec: StudySpec) -> Iterator[Issue]:
    """Looking ahead along a momentum needs one."""
    if "sgd" not in _possible(spec, "optimizer") or True not in _possible(spec, "nesterov"):
        return
    if _possible(spec, "momentum") & {None, 0.0}:
        without = [p for p in _places(spec, "momentum") if 0.0 in p.values]
        for place in without or _places(spec, "nesterov"):
            yield Issue(place.path, "nesterov needs a momentum above 0", place.value)


# --- what is asked ------------------------------------------------------------------------------


def _horizon(spec: StudySpec) -> Iterator[Issue]:
    """Steps to a target, and a budget in seconds, need a schedule that knows no horizon."""
    knowing = {"linear", "cosine", "wsd"}
    decaying = [p for p in _places(spec, "schedule") if set(p.values) & knowing]
    for place in decaying:
        if spec.target is not None:
            yield Issue(
                place.path,
                "steps to target depend on where a decaying schedule ends, so that the same "
                "recipe needs more of them at a larger budget; drop target, or use constant",
                place.value,
                "constant, inverse_sqrt",
            )
        if spec.budget.seconds is not None:
            yield Issue(
                place.path,
                "a budget in seconds does not say at which step the decay ends",
                place.value,
                "constant, inverse_sqrt",
            )
    if spec.budget.seconds is not None:
        for place in _places(spec, "warmup_ratio"):
            yield Issue(
                place.path,
                "a budget in seconds has no number of steps to take a share of; give warmup_steps",
                place.value,
            )


def _objective(spec: StudySpec) -> Iterator[Issue]:
    objective = spec.search.objective
    if objective != "validation_loss" and spec.target is None:
        yield Issue("target", f"is required by search.objective {objective}: give at_most")


def _transfer(spec: StudySpec) -> Iterator[Issue]:
    """Rules carry a tuned peak_lr from one cell of a batch-size axis to the others."""
    if spec.transfer is None:
        return
    axes = spec.scientific_values()
    batches = axes.get("global_batch_size", ())
    base = spec.transfer.base_batch_size
    if not batches:
        yield Issue(
            "scientific.global_batch_size", "transfer carries a recipe between batch sizes: list "
            "them here",
        )  # fmt: skip
    elif base not in batches:
        known = ", ".join(map(str, batches))
        yield Issue("transfer.base_batch_size", "is not a cell of the study", base, known)
    elif len(batches) == 1:
        yield Issue(
            "scientific.global_batch_size",
            "transfer needs another batch size than its base",
            list(batches),
        )
    for name in axes:
        if name != "global_batch_size":
            yield Issue(
                f"scientific.{name}", "with transfer, global_batch_size is the only scientific axis"
            )
    for place in _places(spec, "base_lr"):
        yield Issue(
            place.path, "transfer scales the rate itself: give peak_lr instead", place.value
        )


def _branch(spec: StudySpec) -> Iterator[Issue]:
    """Branches leave a run of constant batch, of a cell of the study, before its end."""
    branch = spec.branch
    if branch is None:
        return
    axes = spec.scientific_values()
    fixed = spec.fixed.global_batch_size
    batches = axes.get("global_batch_size", () if fixed is None else (fixed,))
    base = branch.base_batch_size
    if base not in batches:
        known = ", ".join(map(str, batches)) or "a batch size in scientific or fixed"
        yield Issue("branch.base_batch_size", "is not a cell of the study", base, known)
    for name in axes:
        if name != "global_batch_size":
            yield Issue(
                f"scientific.{name}", "with branch, global_batch_size is the only scientific axis"
            )
    for place in (place for name in _RAMPS for place in _places(spec, name)):
        yield Issue(place.path, "branch needs a run whose batch does not grow", place.value)
    if branch.lr_rule == "adam_sde":
        yield Issue(
            "branch.lr_rule", "moves the betas, which a branch keeps", "adam_sde",
            "none, sqrt, linear, power(EXPONENT), surge(BNOISE)",
        )  # fmt: skip
    if len(set(branch.starts)) < len(branch.starts):
        yield Issue(
            "branch.at_examples", f"two of them are the same step of batch {base}",
            list(branch.at_examples),
        )  # fmt: skip
    if spec.budget.seconds is not None:
        yield Issue("budget.seconds", "does not say how many examples a run of branch sees")
    steps = _steps_of(spec, BatchRamp(base))
    if steps is not None and branch.starts[-1] + branch.window > steps * base:
        yield Issue(
            "branch.at_examples",
            f"with a window of {branch.window} examples passes the end of the base run of "
            f"{steps * base}",
            list(branch.at_examples),
            f"at most {max(steps * base - branch.window, 0)}",
        )


def _extension(spec: StudySpec) -> Iterator[Issue]:
    """A range can be extended where a rate was drawn from one, on a logarithmic scale."""
    if not spec.search.extend_undertuned:
        return
    path, times = "search.extend_undertuned", spec.search.extend_undertuned
    drawn = spec.nuisance.distributions()
    rates = [name for name in ("peak_lr", "base_lr") if name in drawn]
    if not rates:
        yield Issue(path, "needs a peak_lr or base_lr in nuisance, whose range it extends", times)
    for name in rates:
        rates_drawn = drawn[name]
        if isinstance(rates_drawn, Distribution) and rates_drawn.uniform is not None:
            yield Issue(f"nuisance.{name}", "extend_undertuned needs log_uniform or choice")
        elif len(drawn[name].choice or (0, 0, 0)) < 3:
            yield Issue(
                f"nuisance.{name}", "extend_undertuned needs at least three rates",
                list(drawn[name].choice or ()),
            )  # fmt: skip
        elif spec.search.sampler == "tpe" and drawn[name].choice is not None:
            yield Issue(f"nuisance.{name}", "extend_undertuned with tpe needs log_uniform")
    for name in ("global_batch_size", "lr_scaling_rule"):
        if rates and name in drawn:
            yield Issue(
                f"nuisance.{name}", "is searched with the rate, so that extend_undertuned cannot "
                "tell which end of the rates is short",
            )  # fmt: skip


def _search_size(spec: StudySpec) -> Iterator[Issue]:
    """As many trials a cell as there is something to try."""
    trials = spec.search.trials_per_cell
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


def _early_stopping(spec: StudySpec) -> Iterator[Issue]:
    """Rungs that some trial can reach, decided by who can tell a worker to stop."""
    early = spec.search.early_stopping
    if early is None:
        return
    if spec.resources.executor != "pool":
        yield Issue(
            "resources.executor", "cannot stop a trial early", spec.resources.executor, "pool"
        )
    if early.first_rung_examples is None or spec.budget.measure not in ("steps", "examples"):
        return
    batches = _possible(spec, "global_batch_size") - {None}
    longest = max((n for size in batches for n in _examples_of_runs(spec, size)), default=0)
    if early.first_rung_examples >= longest:
        yield Issue(
            "search.early_stopping.first_rung_examples",
            "no trial gets past it",
            early.first_rung_examples,
            f"below {longest}",
        )


def _resources(spec: StudySpec) -> Iterator[Issue]:
    resources = spec.resources
    gpus = resources.gpus_per_worker
    if gpus > 1 and gpus != int(gpus):
        yield Issue("resources.gpus_per_worker", "above 1 must be whole", gpus)
    if resources.num_workers == "auto" and resources.executor != "pool":
        yield Issue(
            "resources.executor", "cannot measure what num_workers: auto needs",
            resources.executor, "pool",
        )  # fmt: skip


# --- workload -----------------------------------------------------------------------------------


_COUPLING: Final = {"lamb", "lars", "adafactor", "muon"}
"""Optimizers whose step of one weight depends on the others of its tensor."""


def _zero(spec: StudySpec) -> Iterator[Issue]:
    """What DeepSpeed's strategies do not allow."""
    resources = spec.resources
    if resources.strategy not in ZERO_STAGES:
        return
    if isinstance(spec.workload, NoisyQuadratic):
        yield Issue(
            "resources.strategy", "noisy_quadratic is not cut among workers", resources.strategy,
            "ddp",
        )  # fmt: skip
    for place in _places(spec, "optimizer"):
        for optimizer in sorted(_COUPLING & set(place.values)):
            yield Issue(
                place.path,
                f"goes by each matrix, and strategy {resources.strategy} makes one vector of all",
                optimizer, "adamw, sgd, lion",
            )  # fmt: skip
    if resources.num_workers == "auto":
        yield Issue(
            "resources.num_workers", f"must be a number under strategy {resources.strategy}", "auto"
        )
    if resources.precision == "fp16":
        yield Issue(
            "resources.precision",
            f"does not go with strategy {resources.strategy}, which scales the loss by itself",
            "fp16", "fp32, bf16",
        )  # fmt: skip
    if resources.compile:
        yield Issue(
            "resources.compile", f"does not go with strategy {resources.strategy}", value=True,
            allowed="false",
        )  # fmt: skip


def _tensor_parallel(spec: StudySpec) -> Iterator[Issue]:
    """What workers that compute every example together do not allow."""
    resources, workload = spec.resources, spec.workload
    if resources.strategy != "tp":
        return
    if isinstance(workload, NoisyQuadratic):
        yield Issue("resources.strategy", "noisy_quadratic has no matrices to cut", "tp", "ddp")
        return
    if resources.num_workers == "auto":
        yield Issue(
            "resources.num_workers", "must be a number under strategy tp: a trial's workers share "
            "one model", "auto",
        )  # fmt: skip
    if resources.compile:
        yield Issue(
            "resources.compile", "does not go with strategy tp", value=True, allowed="false"
        )
    for place in _places(spec, "dropout"):
        if any(place.values):
            yield Issue(
                place.path, "would repeat its masks over the parts of strategy tp", place.value,
                "0, null",
            )  # fmt: skip
    if isinstance(workload.model, Pretrained) and workload.model.lora is not None:
        yield Issue("workload.model.lora", "does not go with strategy tp")


def _noisy_quadratic(spec: StudySpec) -> Iterator[Issue]:
    """What the ensemble of noisy quadratics cannot do."""
    if not isinstance(spec.workload, NoisyQuadratic):
        return
    for place in _places(spec, "optimizer"):
        for optimizer in sorted(_COUPLING & set(place.values)):
            yield Issue(
                place.path,
                "would couple the independent chains of noisy_quadratic",
                optimizer,
                "sgd, adamw, lion",
            )
    for place in _places(spec, "clip_norm") + _places(spec, "clip_percentile"):
        if any(value is not None for value in place.values):
            yield Issue(
                place.path,
                "clipping by the global norm would couple the independent chains of "
                "noisy_quadratic",
                place.value,
                "null",
            )
    if spec.resources.precision != "fp32":
        yield Issue("resources.precision", "of noisy_quadratic", spec.resources.precision, "fp32")
    for name in ("activation_checkpointing", "compile"):
        if getattr(spec.resources, name):
            yield Issue(f"resources.{name}", "noisy_quadratic has no blocks", True, "false")
    if spec.evaluation.sharpness is not None:
        yield Issue(
            "evaluation.sharpness",
            "is of training examples, and noisy_quadratic has none: its curvature is known",
            spec.evaluation.sharpness.model_dump(),
            "null",
        )
    if spec.budget.measure in ("tokens", "epochs"):
        yield Issue(
            f"budget.{spec.budget.measure}",
            "noisy_quadratic draws every example afresh and has no tokens or epochs",
            getattr(spec.budget, spec.budget.measure),
            "steps, examples, seconds",
        )
    early = spec.search.early_stopping
    if early is not None and early.first_rung_tokens is not None:
        yield Issue(
            "search.early_stopping.first_rung_tokens",
            "noisy_quadratic has no tokens",
            early.first_rung_tokens,
            "first_rung_examples",
        )


def _regularizers(spec: StudySpec) -> Iterator[Issue]:
    """Dropout is of a model from scratch, and said once; smoothing needs labels."""
    workload = spec.workload
    for place in _places(spec, "dropout"):
        if all(value is None for value in place.values):
            continue
        if isinstance(workload, NoisyQuadratic):
            yield Issue(place.path, "noisy_quadratic has no dropout", place.value, "null")
        elif isinstance(workload.model, Pretrained):
            yield Issue(
                place.path, "is set in a model from scratch, not a pretrained one", place.value,
                "null",
            )  # fmt: skip
        else:
            for option in workload.model.config:
                if "dropout" in option or option.endswith("pdrop"):
                    yield Issue(place.path, f"workload.model.config.{option} is given too")
    for place in _places(spec, "label_smoothing"):
        if place.values == (0.0,):
            continue
        if isinstance(workload, NoisyQuadratic):
            yield Issue(place.path, "noisy_quadratic has no labels", place.value, "0.0")
        elif workload.task == "question_answering":
            yield Issue(
                place.path, "of question_answering would reward places in the padding",
                place.value, "0.0",
            )  # fmt: skip


def _adapters(spec: StudySpec) -> Iterator[Issue]:
    """A rank is of adapters, which a trained model alone has."""
    workload = spec.workload
    if (
        not isinstance(workload, NoisyQuadratic)
        and isinstance(workload.model, Pretrained)
        and workload.model.lora is not None
    ):
        return
    for place in _places(spec, "lora_rank"):
        yield Issue(place.path, "has no effect without workload.model.lora", place.value, "null")


def lora_ranks(spec: StudySpec) -> dict[str, int]:
    """The largest rank of adapters that each place gives, by its dotted path; {} without any."""
    workload = spec.workload
    if isinstance(workload, NoisyQuadratic) or isinstance(workload.model, FromScratch):
        return {}
    lora = workload.model.lora
    if lora is None:
        return {}
    places = _places(spec, "lora_rank")
    ranks = {place.path: max((v for v in place.values if v), default=0) for place in places}
    if all(place.section == "cell_recipes" or None in place.values for place in places):
        ranks["workload.model.lora.rank"] = lora.rank
    return {path: rank for path, rank in ranks.items() if rank}


_RECIPE_SECTIONS: Final = ("scientific", "nuisance", "fixed", "cell_recipes")

CHECKS: Final[dict[Check, frozenset[str]]] = {
    cell_issues: frozenset({"scientific"}),
    trial_issues: frozenset({"scientific", "search", "transfer", "confirm", "branch"}),
    chain_issues: frozenset({"workload"}),
    _ramp_count: frozenset(_RECIPE_SECTIONS),
    data_issues: frozenset({"workload"}),
    _one_section: frozenset(_RECIPE_SECTIONS),
    _batch_sizes: frozenset({*_RECIPE_SECTIONS, "resources"} - {"cell_recipes"}),
    _batch_ramp: frozenset({*_RECIPE_SECTIONS, "budget", "target"}),
    _one_rate: frozenset(_RECIPE_SECTIONS),
    _base_of_rate: frozenset(_RECIPE_SECTIONS),
    _adam_sde: frozenset({*_RECIPE_SECTIONS, "transfer"}),
    _surge: frozenset({*_RECIPE_SECTIONS, "transfer"}),
    _co_scaling: frozenset({*_RECIPE_SECTIONS, "transfer"}),
    _one_warmup: frozenset(_RECIPE_SECTIONS),
    _warmup_fits: frozenset({*_RECIPE_SECTIONS, "budget"}),
    _decay_fits: frozenset({*_RECIPE_SECTIONS, "budget"}),
    _without_effect: frozenset(_RECIPE_SECTIONS),
    _nesterov: frozenset(_RECIPE_SECTIONS),
    _one_clipping: frozenset(_RECIPE_SECTIONS),
    _recipes: frozenset({"scientific", "cell_recipes"}),
    _horizon: frozenset({*_RECIPE_SECTIONS, "budget", "target"}),
    _objective: frozenset({"search", "target"}),
    _search_size: frozenset({"nuisance", "search"}),
    _early_stopping: frozenset({*_RECIPE_SECTIONS, "search", "budget", "resources"}),
    _resources: frozenset({"resources"}),
    _transfer: frozenset({*_RECIPE_SECTIONS, "transfer"}),
    _branch: frozenset({*_RECIPE_SECTIONS, "branch", "budget"}),
    _extension: frozenset({"nuisance", "search"}),
    _noisy_quadratic: frozenset(
        {*_RECIPE_SECTIONS, "workload", "budget", "resources", "evaluation", "search"}
    ),
    _regularizers: frozenset({*_RECIPE_SECTIONS, "workload"}),
    _adapters: frozenset({*_RECIPE_SECTIONS, "workload"}),
    _zero: frozenset({*_RECIPE_SECTIONS, "resources", "workload"}),
    _tensor_parallel: frozenset({*_RECIPE_SECTIONS, "resources", "workload"}),
    credential_issues: frozenset(),
    storage_issues: frozenset({"storage"}),
}
"""Every check, and the sections it reads."""

_OF_SIZE: Final = (cell_issues, trial_issues, chain_issues, _ramp_count)
"""The checks that come first."""
