"""What the broker knows of each worker group, and of the jobs that they run."""

from dataclasses import dataclass, field
from typing import Any

from scaling.runner.jobs import Event, Job, RankError


@dataclass
class RunningJob:
    """A job and what became of it.

    Attributes:
        micro_batch_size: Examples a worker takes at once in this attempt, at most.
        num_acknowledged: Events that the trial has passed on to whoever decides.
        num_losses: Attempts that ended by an error, or since workers were lost.
        moves: Whether it is to be saved, to go on in another group.
        is_saved: Whether it was.
        left: Of this attempt, the ranks that have ended it, with their errors.
    """

    job: Job
    micro_batch_size: int
    attempt: int = 1
    num_losses: int = 0
    cancelled: bool = False
    ended: bool = False
    moves: bool = False
    is_saved: bool = False
    events: list[Event] = field(default_factory=list[Event])
    num_acknowledged: int = 0
    left: dict[int, RankError | None] = field(default_factory=dict[int, "RankError | None"])

    @property
    def world_size(self) -> int:
        """Workers that it is executed on."""
        return self.job.recipe.layout.world_size

    def next_attempt(self) -> None:
        """It begins anew, from its last checkpoint, wherever that is."""
        self.attempt += 1
        self.left = {}
        self.moves = self.is_saved = False

    def begin_anew(self, cause: str) -> None:
        """The next attempt, by no fault of the job's own."""
        self.next_attempt()
        self.add_incident({"kind": "restarted", "attempt": self.attempt, "cause": cause})

    def add_incident(self, incident: dict[str, Any]) -> None:
        """Let the trial know what befell its job."""
        self.events.append({"kind": "incident", "incident": incident})

    @property
    def errors(self) -> list[RankError]:
        """Of the ranks that left this attempt with one; memory running out comes first.

        What only followed from another rank's error comes last.
        """
        errors = [error for error in self.left.values() if error is not None]
        return sorted(errors, key=lambda error: (not error.out_of_memory, error.followed))


@dataclass
class Slot:
    """A worker group.

    Attributes:
        incarnation: Another one each time that its processes start anew; empty of a lost group.
        ready: Ranks that have said hello.
        device: What it computes on, a `scaling.measures.device.Device`; the broker loads no torch.
        number: Jobs that it was given.
        nodes: Machines of its ranks, by Ray's identifiers.
        is_leaving: Whether it ends, since a machine of it is taken back.
        group: Number of its process group; the first one, of all ranks, has 0.
        group_size: Ranks of that group; 0 where none may use it any more.
    """

    world_size: int
    incarnation: str
    device: Any = None
    ready: set[int] = field(default_factory=set[int])
    running: RunningJob | None = None
    number: int = 0
    nodes: set[str] = field(default_factory=set[str])
    is_leaving: bool = False
    group: int = 0
    group_size: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether all of its ranks wait for jobs."""
        return len(self.ready) == self.world_size
