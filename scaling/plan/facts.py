"""What a study's plan and its trials know of its tasks: sizes of the data and of the models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scaling.space.layout import Facts
from scaling.spec.study import StudySpec
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import AnyTask, described


def facts_of(spec: StudySpec, tasks: Sequence[AnyTask]) -> Facts:
    """What a plan needs to know beside the study file."""
    sizes = tuple(
        _facts_of_one(size, task, scale_of(size, task))
        for size, task in zip(spec.sizes, tasks, strict=False)
    )
    predicted = tuple(map(scale_of, spec.predicted_sizes))
    return replace(_facts_of_one(spec, tasks[0], {}), sizes=sizes, predicted=predicted)


def _facts_of_one(spec: StudySpec, task: AnyTask, scale: Mapping[str, float]) -> Facts:
    bound = None
    if spec.resources.micro_batch_size == "auto":
        from scaling.training.memory.estimate import study_micro_batch_size

        bound = study_micro_batch_size(task, spec.workload, spec.resources)
    return Facts(
        task.num_train, task.tokens_per_example, largest_micro_batch_size=bound, scale=scale,
        metrics=described(task),
    )  # fmt: skip


def scale_of(spec: StudySpec, task: AnyTask | None = None) -> dict[str, float]:
    """What makes a study's runs large: see `scale_of_training`.

    Of finished runs, the numbers by which they are chosen.

    Args:
        spec: The study at one size.
        task: Its task; prepared where left out.
    """
    if spec.workload.looked_up_by is not None:
        return dict(spec.workload.numbers_of_size)
    from scaling.training.memory.count import scale_of_training

    return scale_of_training(spec, task or prepare_task(spec.workload, spec.evaluation))
