"""The micro-batches that fit into the workers' memory, learnt from those that did not."""

from scaling.arithmetic.batching import next_smaller, split_batch
from scaling.runner.jobs import Job


class FittingMicroBatches:
    """What to try after memory ran out, and what later trials begin with.

    Memory depends on the model, its adapters and the number of workers, and hardly on the rest of
    a recipe: see `Job.memory_key`.
    """

    def __init__(self) -> None:
        self._largest: dict[tuple[int, int | None, int], int] = {}

    def first(self, job: Job) -> int:
        """The micro-batch that a job begins with: the recipe's, or one that is known to fit."""
        layout = job.recipe.layout
        largest = self._largest.get(job.memory_key)
        if largest is None or largest >= layout.micro_batch_size:
            return layout.micro_batch_size
        return split_batch(
            job.recipe.hyperparameters.global_batch_size,
            world_size=layout.data_parallel_size,
            micro_batch_size=largest,
        ).micro_batch_size

    def smaller(self, job: Job, micro_batch_size: int) -> int | None:
        """What a job tries after one that did not fit; None where no smaller one is left."""
        recipe = job.recipe
        share = recipe.hyperparameters.global_batch_size // recipe.layout.data_parallel_size
        smaller = next_smaller(micro_batch_size, share=share)
        if smaller is not None:
            self.remember(job, smaller)
        return smaller

    def remember(self, job: Job, micro_batch_size: int) -> None:
        """Let later trials begin with no more than what a job came down to."""
        key = job.memory_key
        self._largest[key] = min(micro_batch_size, self._largest.get(key, micro_batch_size))
