"""What must hold of a study's model before the first trial."""

from scaling.spec.checks.places import places_of, possible_values
from scaling.spec.checks.workload import lora_ranks
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask, FinishedTask
from scaling.tasks.trainable import require_trainable
from scaling.training.memory.estimate import require_model_fits


def require_model(spec: StudySpec, task: AnyTask) -> None:
    """Check that a study's model has room on this machine, and can be trained on its data.

    Raises:
        DataError: If not.
    """
    assert not isinstance(task, FinishedTask)
    require_model_fits(task, spec.workload)
    sets_dropout = bool(places_of(spec, "dropout", recipes=False))
    require_trainable(
        task, spec.seed, dropout=0.0 if sets_dropout else None,
        resources=spec.resources, lora_ranks=lora_ranks(spec),
        optimizers=possible_values(spec, "optimizer"),
    )  # fmt: skip
