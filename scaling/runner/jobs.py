"""What the broker, the trials and the worker groups say to each other."""

from dataclasses import dataclass
from typing import Any, Literal

from scaling.records.recipe import Recipe

Event = dict[str, Any]
Verdict = Literal["clean", "dirty"]
Directive = Literal["continue", "stop", "pause"]


@dataclass(frozen=True)
class Job:
    """One trial to execute, on the first `recipe.layout.world_size` ranks of a worker group.

    Attributes:
        keep_example_losses: Send the losses of single evaluated examples with the last event.
        may_stop_early: Ask at each rung whether to go on.
        keep_model: Keep the model as it is evaluated at the end.
        size: Which size of the ladder is trained; 0 without one.
    """

    trial_id: str
    recipe: Recipe
    keep_example_losses: bool = False
    may_stop_early: bool = False
    keep_model: bool = False
    size: int = 0

    @property
    def memory_key(self) -> tuple[int, int | None, int]:
        """What the memory of an example depends on: model, adapters, and workers of a trial."""
        return self.size, self.recipe.hyperparameters.lora_rank, self.recipe.layout.world_size


@dataclass(frozen=True)
class Assignment:
    """A job as a rank gets it; `attempt` counts the times that it was given out.

    Attributes:
        group: Number of the process group that its ranks are in: another one after each error,
            and where the ranks of a job are not those of the one before.
    """

    job: Job
    attempt: int
    number: int
    micro_batch_size: int
    group: int = 0


@dataclass(frozen=True)
class RankError:
    """Why a rank left a job.

    Attributes:
        traceback: Of the exception.
        out_of_memory: Whether memory ran out.
        too_large: The micro-batch that memory ran out with; None where a smaller one is no help.
        followed: Whether it only found that another rank had left.
    """

    traceback: str
    out_of_memory: bool = False
    too_large: int | None = None
    followed: bool = False
