"""What a task or its model cannot do."""

from collections.abc import Iterator

from scaling.spec.checks.optimizer import elementwise_issues
from scaling.spec.checks.places import places_of
from scaling.spec.issues import Issue
from scaling.spec.models import FromScratch, Pretrained
from scaling.spec.study import StudySpec
from scaling.spec.workloads import NoisyQuadratic


def noisy_quadratic_issues(spec: StudySpec) -> Iterator[Issue]:
    """What the ensemble of noisy quadratics cannot do."""
    if not isinstance(spec.workload, NoisyQuadratic):
        return
    yield from elementwise_issues(spec, "would couple the independent chains of noisy_quadratic")
    for place in places_of(spec, "clip_norm") + places_of(spec, "clip_percentile"):
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


def regularizer_issues(spec: StudySpec) -> Iterator[Issue]:
    """Dropout is of a model from scratch, and said once; smoothing needs labels."""
    workload = spec.workload
    for place in places_of(spec, "dropout"):
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
    for place in places_of(spec, "label_smoothing"):
        if place.values == (0.0,):
            continue
        if isinstance(workload, NoisyQuadratic):
            yield Issue(place.path, "noisy_quadratic has no labels", place.value, "0.0")
        elif workload.task == "question_answering":
            yield Issue(
                place.path, "of question_answering would reward places in the padding",
                place.value, "0.0",
            )  # fmt: skip


def adapter_issues(spec: StudySpec) -> Iterator[Issue]:
    """A rank is of adapters, which a trained model alone has."""
    workload = spec.workload
    if (
        not isinstance(workload, NoisyQuadratic)
        and isinstance(workload.model, Pretrained)
        and workload.model.lora is not None
    ):
        return
    for place in places_of(spec, "lora_rank"):
        yield Issue(place.path, "has no effect without workload.model.lora", place.value, "null")


def lora_ranks(spec: StudySpec) -> dict[str, int]:
    """The largest rank of adapters that each place gives, by its dotted path; {} without any."""
    workload = spec.workload
    if isinstance(workload, NoisyQuadratic) or isinstance(workload.model, FromScratch):
        return {}
    lora = workload.model.lora
    if lora is None:
        return {}
    places = places_of(spec, "lora_rank")
    ranks = {place.path: max((v for v in place.values if v), default=0) for place in places}
    if all(place.section == "cell_recipes" or None in place.values for place in places):
        ranks["workload.model.lora.rank"] = lora.rank
    return {path: rank for path, rank in ranks.items() if rank}
