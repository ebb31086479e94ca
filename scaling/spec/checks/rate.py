"""The learning rate of a study, and what moves with it."""

from collections.abc import Iterator

from scaling.arithmetic.rules import OptimizerSettings, RuleDomainError, one_name, scale_optimizer
from scaling.optimizers.catalog import optimizers_without, usual_value
from scaling.spec.checks.places import cell_key, places_of, places_with, possible_values, same_trial
from scaling.spec.checks.sizes import num_cells
from scaling.spec.issues import Issue
from scaling.spec.study import StudySpec


def rate_issues(spec: StudySpec) -> Iterator[Issue]:
    """Every trial has exactly one of peak_lr and base_lr."""
    peak, base = places_of(spec, "peak_lr"), places_of(spec, "base_lr")
    for place in base:
        rival = next((other for other in peak if same_trial(place, other)), None)
        if rival is not None:
            yield place.issue(f"{rival.path} is given too; a trial has one of them")
    if any(place.recipe is None for place in peak + base):
        return
    cells = {cell_key(spec.cell_recipes[p.recipe or 0].cell) for p in peak + base}
    if not cells:
        where = "in nuisance, scientific, fixed or every cell's recipe"
        message = f"no learning rate is given: give peak_lr or base_lr {where}"
        yield Issue("fixed.peak_lr", message)
    elif len(cells) < num_cells(spec):
        what = f"a learning rate for {len(cells)} of {num_cells(spec)} cells"
        yield Issue("cell_recipes", f"give {what}; give peak_lr for every cell, or elsewhere")


def base_issues(spec: StudySpec) -> Iterator[Issue]:
    """base_lr needs base_batch_size; base_batch_size and a rule do nothing without base_lr."""
    rates, bases = places_of(spec, "base_lr"), places_of(spec, "base_batch_size")
    for rate in rates:
        if not any(base.recipe in (None, rate.recipe) for base in bases):
            message = f"{rate.path} holds at a batch size that is not given: give base_batch_size"
            yield Issue("fixed.base_batch_size" if rate.recipe is None else rate.path, message)
    for place in places_of(spec, "lr_scaling_rule"):
        names = [one_name(rule) for rule in place.values]
        if len(set(names)) < len(names):
            yield place.issue("has a rule twice, by two names")
    if rates:
        return
    moving = [p for p in places_of(spec, "lr_scaling_rule") if set(p.values) != {"none"}]
    for place in bases + moving:
        yield place.issue("has no effect without base_lr (peak_lr is never scaled)")


def adam_sde_issues(spec: StudySpec) -> Iterator[Issue]:
    """Adam-SDE is about Adam, and within its domain at every batch size of the study."""
    others = possible_values(spec, "optimizer") & optimizers_without("adam_sde")
    places = places_with(spec, "lr_scaling_rule", "adam_sde")
    carried = [place.path for place in places]
    if spec.transfer is not None and "adam_sde" in spec.transfer.rules:
        carried.append("transfer.rules")
    if others:
        for path in carried:
            yield Issue(path, f"adam_sde scales Adam, not {', '.join(sorted(others))}", "adam_sde")
    elif spec.batch_sizes() and (
        bases := [size for place in places_of(spec, "base_batch_size") for size in place.values]
    ):
        base, batch = min(bases), max(spec.batch_sizes())
        lowest = OptimizerSettings(
            peak_lr=1.0,
            beta1=min(possible_values(spec, "beta1")),
            beta2=min(
                value
                for beta2 in possible_values(spec, "beta2")
                for name in possible_values(spec, "optimizer")
                if (value := usual_value(name, "beta2") if beta2 is None else beta2) is not None
            ),
            eps=1.0,
        )
        try:
            scale_optimizer(lowest, base_batch_size=base, global_batch_size=batch, rule="adam_sde")
        except RuleDomainError as error:
            for place in places:
                yield place.issue(f"from batch {base} to {batch}: {error}")


def surge_issues(spec: StudySpec) -> Iterator[Issue]:
    """Surge is about optimizers that go by the gradient's sign, as Adam does."""
    others = sorted(possible_values(spec, "optimizer") & optimizers_without("surge"))
    if not others:
        return
    rules = [(p.path, rule) for p in places_of(spec, "lr_scaling_rule") for rule in p.values]
    if spec.transfer is not None:
        rules += [("transfer.rules", rule) for rule in spec.transfer.rules]
    for path, rule in rules:
        if rule.startswith("surge"):
            yield Issue(path, f"surge is about optimizers like Adam, not {', '.join(others)}", rule)


def co_scaling_issues(spec: StudySpec) -> Iterator[Issue]:
    """What moves beside the rate: with a base to move from, and something to move."""
    beta2 = places_with(spec, "beta2_scaling", "token_half_life")
    decay = places_with(spec, "weight_decay_scaling", "timescale")
    warmup = places_with(spec, "warmup_scaling", "examples")
    optimizers = possible_values(spec, "optimizer")
    if not places_of(spec, "base_lr") and spec.transfer is None:
        for place in beta2 + decay + warmup:
            yield place.issue("has no base to scale from: give base_lr, or transfer")
    rules = {
        *possible_values(spec, "lr_scaling_rule"),
        *(spec.transfer.rules if spec.transfer else ()),
    }
    for place in beta2:
        if others := ", ".join(sorted(optimizers & optimizers_without("token_half_life"))):
            yield place.issue(f"token_half_life is of Adam's second moment, which {others} lacks")
        if "adam_sde" in rules:
            yield place.issue("adam_sde moves beta2 itself", "none")
    for place in decay:
        if others := ", ".join(sorted(optimizers & optimizers_without("timescale"))):
            message = f"the trust ratio of {others} takes the decay in, so lr × weight_decay sets "
            yield place.issue(message + "no timescale", "none")
        if possible_values(spec, "weight_decay") == {0.0}:
            yield place.issue("has no effect without weight_decay")
    for place in warmup:
        if not places_of(spec, "warmup_steps"):
            others = "warmup_ratio and warmup_examples say what they keep"
            yield place.issue(f"has no effect without warmup_steps ({others})")
