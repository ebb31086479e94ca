"""What a task or its model cannot do."""

from collections.abc import Iterator

from scaling.optimizers.catalog import OPTIMIZERS
from scaling.spec.checks.optimizer import elementwise_issues
from scaling.spec.checks.places import places_of, places_with
from scaling.spec.issues import Issue
from scaling.spec.sections import Fixed
from scaling.spec.study import StudySpec


def ensemble_issues(spec: StudySpec) -> Iterator[Issue]:
    """What would couple the independent models of an ensemble."""
    if not spec.workload.is_ensemble:
        return
    chains = f"the independent chains of {spec.workload.task}"
    yield from elementwise_issues(spec, f"would couple {chains}")
    for place in places_of(spec, "clip_norm") + places_of(spec, "clip_percentile"):
        if any(value is not None for value in place.values):
            message = f"clipping by the global norm would couple {chains}"
            yield place.issue(message, "null")


def model_issues(spec: StudySpec) -> Iterator[Issue]:
    """What needs a model of layers."""
    task, resources = spec.workload.task, spec.resources
    if spec.workload.has_layers:
        return
    if resources.precision != "fp32":
        yield Issue("resources.precision", f"of {task}", resources.precision, "fp32")
    for name in ("activation_checkpointing", "compile"):
        if getattr(resources, name):
            yield Issue(f"resources.{name}", f"{task} has no blocks", True, "false")


def example_issues(spec: StudySpec) -> Iterator[Issue]:
    """What needs training examples, and those of tokens."""
    task = spec.workload.task
    if spec.workload.has_examples:
        return
    if (sharpness := spec.evaluation.sharpness) is not None:
        message = f"is of training examples, and {task} has none"
        yield Issue("evaluation.sharpness", message, sharpness.model_dump(), "null")
    if (measure := spec.budget.measure) in ("tokens", "epochs"):
        given, others = getattr(spec.budget, measure), "steps, examples, seconds"
        yield Issue(f"budget.{measure}", f"{task} has no tokens or epochs", given, others)
    early = spec.search.early_stopping
    if early is not None and (rung := early.first_rung_tokens) is not None:
        path = "search.early_stopping.first_rung_tokens"
        yield Issue(path, f"{task} has no tokens", rung, "first_rung_examples")


def look_up_issues(spec: StudySpec) -> Iterator[Issue]:
    """What cannot be looked up: a hyperparameter without a column, and the course of a run."""
    columns, task = spec.workload.looked_up_by, spec.workload.task
    if columns is None:
        return
    carries_rate = {"base_lr", "base_batch_size", "lr_scaling_rule"} if "peak_lr" in columns else ()
    for name in Fixed.model_fields:
        for place in places_of(spec, name):
            has_column = name in columns or name in carries_rate
            if not has_column and place.section != "fixed":
                yield Issue(place.path, f"has no column: name it in workload.columns.{name}")
            if name in columns and not all(map(_is_number, place.values)):
                yield Issue(place.path, "is looked up in a table, by a number", place.value)
    for name in columns:
        given = "base_lr" if name == "peak_lr" and places_of(spec, "base_lr") else name
        if name in Fixed.model_fields and not places_of(spec, given, recipes=False):
            yield Issue(f"workload.columns.{name}", f"the study gives no {name} to look up")
    if spec.branch is not None:
        yield Issue("branch", f"task {task} has no run to branch off")
    if spec.search.early_stopping is not None:
        yield Issue("search.early_stopping", f"task {task} knows only how runs end", allowed="null")
    if (seconds := spec.budget.seconds) is not None:
        yield Issue("budget.seconds", f"task {task} takes no time", seconds, "steps, examples")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def regularizer_issues(spec: StudySpec) -> Iterator[Issue]:
    """Dropout is of a model from scratch, and said once; smoothing needs labels."""
    workload = spec.workload
    for place in places_of(spec, "dropout"):
        if all(value is None for value in place.values):
            continue
        if workload.model is None:
            yield place.issue(f"{workload.task} has no dropout that a study sets", "null")
        elif workload.model.pretrained is not None:
            yield place.issue("is set in a model from scratch, not a pretrained one", "null")
        else:
            for option in workload.model.config:
                if "dropout" in option or option.endswith("pdrop"):
                    yield Issue(place.path, f"workload.model.config.{option} is given too")
    for place in places_of(spec, "label_smoothing"):
        if place.values == (0.0,):
            continue
        if (reason := workload.why_no_label_smoothing) is not None:
            yield place.issue(reason, "0.0")


def own_optimizer_issues(spec: StudySpec) -> Iterator[Issue]:
    """Only a LightningModule configures an optimizer."""
    if spec.workload.configures_optimizer:
        return
    for place in places_with(spec, "optimizer", "module"):
        others = ", ".join(name for name in OPTIMIZERS if name != "module")
        message = f"needs task: lightning; {spec.workload.task} has no module that configures one"
        yield Issue(place.path, message, "module", others)


def adapter_issues(spec: StudySpec) -> Iterator[Issue]:
    """A rank is of adapters, which a trained model alone has."""
    model = spec.workload.model
    if model is not None and model.lora is not None:
        return
    for place in places_of(spec, "lora_rank"):
        yield place.issue("has no effect without workload.model.lora", "null")


def lora_ranks(spec: StudySpec) -> dict[str, int]:
    """The largest rank of adapters that each place gives, by its dotted path; {} without any."""
    model = spec.workload.model
    if model is None or (lora := model.lora) is None:
        return {}
    places = places_of(spec, "lora_rank")
    ranks = {place.path: max((v for v in place.values if v), default=0) for place in places}
    if all(place.section == "cell_recipes" or None in place.values for place in places):
        ranks["workload.model.lora.rank"] = lora.rank
    return {path: rank for path, rank in ranks.items() if rank}
