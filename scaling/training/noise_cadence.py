"""Which steps of a run estimate the noise scale: enough of them, and little of its time."""

import math

from scaling.records.recipe import Recipe

# About this many steps of a run measure the noise scale, where that costs little enough.
NUM_NOISE_ESTIMATES = 32
NOISE_PERIOD = 16  # steps, where the number of steps is not known
MAX_NOISE_COST = 0.025  # of a run's training time
# What measuring adds to a step of a CPU: about as much as so many further examples a worker, for
# the parts whose gradients are kept apart, and so much of the step itself, for their padding and
# the normalization layers' sums: benchmarks/training_throughput.py, docs/log.md.
MEASURED_STEP_COST_EXAMPLES = 16
MEASURED_STEP_COST_RATIO = 0.12


def measures_noise_at(
    step: int,
    recipe: Recipe,
    positions: tuple[int, int],
    *,
    num_train: int | None,
    added_ratio: float | None = None,
) -> bool:
    """Whether a step of a run estimates the noise scale.

    A batch that crosses into the next epoch is not one sample without replacement, which is
    what the estimator's correction for a finite train set assumes.

    Args:
        step: Steps before this one.
        recipe: Of the run.
        positions: Where the step's examples begin and end in the stream of training data.
        num_train: Training examples; None for an endless stream.
        added_ratio: What measuring was seen to add to a step on this device, as a share of it; None
            where it goes by the recipe alone.
    """
    start, stop = positions
    is_one_sample = num_train is None or start // num_train == (stop - 1) // num_train
    return is_one_sample and step % _noise_period(recipe, added_ratio) == 0


def _noise_period(recipe: Recipe, added_ratio: float | None) -> int:
    """Steps from one noise estimate to the next.

    Short runs of small batches get fewer estimates than NUM_NOISE_ESTIMATES. On a CPU it is of the
    recipe alone, so that a run is repeatable to the last bit: a step that measures rounds
    differently.
    """
    num_steps, cost = recipe.hyperparameters.num_steps, MEASURED_STEP_COST_EXAMPLES
    evenly = NOISE_PERIOD if num_steps is None else num_steps // NUM_NOISE_ESTIMATES
    if added_ratio is None:
        share = recipe.hyperparameters.global_batch_size // recipe.layout.data_parallel_size
        added_ratio = cost / (share + cost) + MEASURED_STEP_COST_RATIO
    return max(evenly, math.ceil(added_ratio / MAX_NOISE_COST))


def added_ratio(measured_seconds: float, plain_seconds: float) -> float:
    """What measuring adds to a step, as a share of it, rounded up to a power of two.

    So rounded it is mostly the same each time that it is measured on a device.

    Args:
        measured_seconds: Of a step that measures.
        plain_seconds: Of the same step without.
    """
    added = max(measured_seconds / plain_seconds - 1, MAX_NOISE_COST / 8)
    return 2.0 ** math.ceil(math.log2(added))
