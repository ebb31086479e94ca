"""What a trial runs on, and what that leaves out."""

from collections.abc import Iterator
from typing import get_args

from scaling.spec.checks.optimizer import elementwise_issues
from scaling.spec.checks.places import places_of
from scaling.spec.issues import Issue
from scaling.spec.resources import CUTTING_ALL_WEIGHTS, ZERO_STAGES, Strategy
from scaling.spec.study import StudySpec


def resource_issues(spec: StudySpec) -> Iterator[Issue]:
    """Whole GPUs above one, an executor that can measure, and no more groups than there may be."""
    resources = spec.resources
    gpus = resources.num_gpus
    if gpus > 1 and gpus != int(gpus):
        yield Issue("resources.gpus_per_worker", "above 1 must be whole", gpus)
    cuts = resources.strategy in (*CUTTING_ALL_WEIGHTS, *ZERO_STAGES)
    if resources.shares_gpus and cuts and resources.num_workers != 1:
        why = "whose workers exchange weights by NCCL: it needs a GPU for each"
        message = f"must be whole under strategy {resources.strategy}, {why}"
        yield Issue("resources.gpus_per_worker", message, gpus)
    if resources.num_workers == "auto" and resources.executor != "pool":
        message = "cannot measure what num_workers: auto needs"
        yield Issue("resources.executor", message, resources.executor, "pool")
    if resources.max_slots is not None and resources.min_slots > resources.max_slots:
        message = f"must be at most max_slots {resources.max_slots}"
        yield Issue("resources.min_slots", message, resources.min_slots)
    if resources.precision == "tf32" and resources.gpus_per_worker == 0:
        message = "needs GPUs, and gpus_per_worker is 0"
        yield Issue("resources.precision", message, "tf32", "fp32, bf16")


def zero_issues(spec: StudySpec) -> Iterator[Issue]:
    """What DeepSpeed's strategies do not allow."""
    resources, strategy = spec.resources, spec.resources.strategy
    if strategy not in ZERO_STAGES:
        return
    if not spec.workload.has_layers:
        message = f"{spec.workload.task} is not cut among workers"
        yield Issue("resources.strategy", message, strategy, "ddp")
    why = f"needs whole matrices, and strategy {strategy} flattens the weights"
    yield from elementwise_issues(spec, why)
    if resources.num_workers == "auto":
        yield Issue("resources.num_workers", f"must be a number under strategy {strategy}", "auto")
    if resources.precision == "fp16":
        message = f"does not go with strategy {strategy}, which scales the loss by itself"
        yield Issue("resources.precision", message, "fp16", "fp32, bf16")
    yield from _compile_issues(spec)


def _compile_issues(spec: StudySpec) -> Iterator[Issue]:
    if spec.resources.compile:
        message = f"does not go with strategy {spec.resources.strategy}"
        yield Issue("resources.compile", message, True, "false")


def tensor_parallel_issues(spec: StudySpec) -> Iterator[Issue]:
    """What workers that compute every example together do not allow."""
    resources, workload = spec.resources, spec.workload
    if resources.strategy != "tp":
        return
    if workload.model is None:
        message = f"{workload.task} has no plan of the matrices to cut"
        others = [name for name in get_args(Strategy) if workload.has_layers and name != "tp"]
        yield Issue("resources.strategy", message, "tp", ", ".join(others or ["ddp"]))
        return
    if resources.num_workers == "auto":
        message = "must be a number under strategy tp: a trial's workers share one model"
        yield Issue("resources.num_workers", message, "auto")
    yield from _compile_issues(spec)
    for place in places_of(spec, "dropout"):
        if any(place.values):
            yield place.issue("would repeat its masks over the parts of strategy tp", "0, null")
    if workload.model.lora is not None:
        yield Issue("workload.model.lora", "does not go with strategy tp")
