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
        yield Issue(
            "resources.gpus_per_worker",
            f"must be whole under strategy {resources.strategy}, whose workers exchange weights by "
            "NCCL: it needs a GPU for each", gpus,
        )  # fmt: skip
    if resources.num_workers == "auto" and resources.executor != "pool":
        yield Issue(
            "resources.executor", "cannot measure what num_workers: auto needs",
            resources.executor, "pool",
        )  # fmt: skip
    if resources.max_slots is not None and resources.min_slots > resources.max_slots:
        message = f"must be at most max_slots {resources.max_slots}"
        yield Issue("resources.min_slots", message, resources.min_slots)
    if resources.precision == "tf32" and resources.gpus_per_worker == 0:
        message = "needs GPUs, and gpus_per_worker is 0"
        yield Issue("resources.precision", message, "tf32", "fp32, bf16")


def zero_issues(spec: StudySpec) -> Iterator[Issue]:
    """What DeepSpeed's strategies do not allow."""
    resources = spec.resources
    if resources.strategy not in ZERO_STAGES:
        return
    if not spec.workload.has_layers:
        message = f"{spec.workload.task} is not cut among workers"
        yield Issue("resources.strategy", message, resources.strategy, "ddp")
    yield from elementwise_issues(
        spec, f"needs whole matrices, and strategy {resources.strategy} flattens the weights"
    )
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
        yield Issue(
            "resources.num_workers", "must be a number under strategy tp: a trial's workers share "
            "one model", "auto",
        )  # fmt: skip
    if resources.compile:
        yield Issue(
            "resources.compile", "does not go with strategy tp", value=True, allowed="false"
        )
    for place in places_of(spec, "dropout"):
        if any(place.values):
            yield place.issue("would repeat its masks over the parts of strategy tp", "0, null")
    if workload.model.lora is not None:
        yield Issue("workload.model.lora", "does not go with strategy tp")
