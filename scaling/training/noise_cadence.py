"""Which steps of a run estimate the noise scale: enough of them, and at most 3% of its time."""

import math

from scaling.records import Recipe

# About this many steps of a run measure the noise scale, where that costs little enough.
NUM_NOISE_ESTIMATES = 32
NOISE_PERIOD = 16  # steps, where the number of steps is not known
MAX_NOISE_COST = 0.03  # of a run's training time
# What measuring costs a step, mostly a second pass over half of its examples, is near that of
# this many further examples a worker: benchmarks/noise_scale.py.
MEASURED_STEP_COST_EXAMPLES = 32
# A measured step is cut as it was drawn and not by length; with several parts that costs so much
# more of a step: benchmarks/training_throughput.py.
DRAWN_CUT_COST = 0.35


def measures_noise_at(
    step: int, recipe: Recipe, positions: tuple[int, int], *, num_train: int | None
) -> bool:
    """Whether a step of a run estimates the noise scale.

    A batch that crosses into the next epoch is not one sample without replacement, which is
    what the estimator's correction for a finite train set assumes.

    Args:
        step: Steps before this one.
        recipe: Of the run.
        positions: Where the step's examples begin and end in the stream of training data.
        num_train: Training examples; None for an endless stream.
    """
    start, stop = positions
    is_one_sample = num_train is None or start // num_train == (stop - 1) // num_train
    return is_one_sample and step % _noise_period(recipe) == 0


def _noise_period(recipe: Recipe) -> int:
    """Steps from one noise estimate to the next; of the recipe alone, so that a run is repeatable.

    Short runs of small batches get fewer estimates than NUM_NOISE_ESTIMATES.
    """
    num_steps, cost = recipe.num_steps, MEASURED_STEP_COST_EXAMPLES
    evenly = NOISE_PERIOD if num_steps is None else num_steps // NUM_NOISE_ESTIMATES
    added = cost / (recipe.global_batch_size // recipe.world_size + cost)
    if recipe.grad_accum_steps * recipe.world_size > 1:
        added += DRAWN_CUT_COST
    return max(evenly, math.ceil(added / MAX_NOISE_COST))
