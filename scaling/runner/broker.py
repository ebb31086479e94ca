"""The broker between Tune's trials and the worker groups that execute them.

One asynchronous actor for the whole pool. Trials submit jobs and read their events; the ranks
of each worker group (slot) ask for the next job, report, and leave the job together. Between
jobs every rank waits here, never inside a collective.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from scaling.records import Recipe

MAX_ATTEMPTS = 3
EXIT_TIMEOUT_SECONDS = 15.0

Event = dict[str, Any]
Verdict = Literal["clean", "dirty"]


@dataclass(frozen=True)
class Assignment:
    """One job as a rank gets it; `attempt` counts the worker groups that it was given to."""

    key: str
    attempt: int
    number: int
    recipe: Recipe
    keep_example_losses: bool


@dataclass
class _Job:
    key: str
    recipe: Recipe
    keep_example_losses: bool
    attempt: int = 1
    cancelled: bool = False
    ended: bool = False
    events: list[Event] = field(default_factory=list[Event])
    left: dict[int, str | None] = field(default_factory=dict[int, "str | None"])
    first_error: str | None = None
    lost_error: str | None = None


@dataclass
class _Slot:
    world_size: int
    incarnation: str
    ready: set[int] = field(default_factory=set[int])
    device: str = ""
    job: _Job | None = None
    number: int = 0


class Broker:
    """Matches jobs with worker groups; see the module's docstring. Runs as a Ray actor."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._jobs: dict[str, _Job] = {}
        self._changed = asyncio.Condition()
        self._closed = False

    # --- asked by the ranks of a worker group

    async def hello(
        self, slot: str, incarnation: str, rank: int, world_size: int, device: str
    ) -> None:
        """A rank of a (re)started group is ready for jobs.

        A job that was in flight when the group's earlier incarnation died is served again, from
        its start, up to MAX_ATTEMPTS times.
        """
        known = self._slots.get(slot)
        if known is None or known.incarnation != incarnation:
            number = known.number if known else 0
            job = known.job if known else None
            known = _Slot(world_size, incarnation, device=device, number=number)
            self._slots[slot] = known
            if job is not None:
                self._serve_again(known, job)
        known.ready.add(rank)
        await self._notify()

    def _serve_again(self, slot: _Slot, job: _Job) -> None:
        if job.cancelled or job.attempt >= MAX_ATTEMPTS:
            error = job.first_error or job.lost_error or "its worker group died"
            self._end(job, "failed", error=f"{error.rstrip()} (attempt {job.attempt})")
            return
        job.attempt += 1
        job.left = {}
        # What the survivors of a lost group saw does not decide a later attempt.
        job.lost_error, job.first_error = job.first_error or job.lost_error, None
        slot.job = job
        slot.number += 1

    async def next_job(
        self, slot: str, incarnation: str, rank: int, after: int
    ) -> Assignment | None:
        """Wait for a job numbered above `after`; None when the pool is closed."""
        state = self._slots[slot]

        def is_decided() -> bool:
            replaced = self._is_replaced(slot, incarnation)
            served = state.job is not None and state.number > after
            return self._closed or replaced or (served and len(state.ready) == state.world_size)

        await self._wait(is_decided)
        job = state.job
        if self._closed or self._is_replaced(slot, incarnation) or job is None:
            return None
        assert rank < state.world_size
        return Assignment(job.key, job.attempt, state.number, job.recipe, job.keep_example_losses)

    async def report(self, key: str, attempt: int, event: Event) -> bool:
        """Take an event from a job's first rank; True when the job should stop."""
        job = self._jobs[key]
        if job.ended or job.attempt != attempt:
            return True
        job.events.append(event)
        await self._notify()
        return job.cancelled

    async def leave(
        self, slot: str, incarnation: str, key: str, rank: int, error: str | None
    ) -> Verdict:
        """A rank's end of a job; returns when all have ended it.

        Returns:
            `clean` when every rank of the group came back, and the group takes the next job;
            `dirty` when one did not within EXIT_TIMEOUT_SECONDS, or the group was replaced:
            then this rank must raise, so that the group is started anew. The fate of the job is
            decided when the next incarnation says hello.
        """
        state, job = self._slots[slot], self._jobs[key]
        attempt = job.attempt
        job.left[rank] = error
        job.first_error = job.first_error or error

        def is_replaced() -> bool:
            return self._is_replaced(slot, incarnation) or job.attempt != attempt

        await self._notify()
        all_left = await self._wait(
            lambda: len(job.left) >= state.world_size or is_replaced(), EXIT_TIMEOUT_SECONDS
        )
        if is_replaced() or not all_left:
            return "dirty"
        if not job.ended:
            self._end(job, "failed" if job.first_error else "ended", error=job.first_error)
        if state.job is job:
            state.job = None
        await self._notify()
        return "clean"

    # --- asked by trials

    async def submit(self, key: str, recipe: Recipe, keep_example_losses: bool) -> bool:
        """Wait for a free group and give it a job; False when the pool is closed."""
        await self._wait(lambda: self._closed or self._free_slot() is not None)
        slot = self._free_slot()
        if self._closed or slot is None:
            return False
        slot.job = self._jobs[key] = _Job(key, recipe, keep_example_losses)
        slot.job.events.append({"kind": "started"})
        slot.number += 1
        await self._notify()
        return True

    def _free_slot(self) -> _Slot | None:
        free = (s for s in self._slots.values() if s.job is None and len(s.ready) == s.world_size)
        return next(free, None)

    async def next_events(self, key: str, after: int, timeout: float) -> list[Event]:
        """The events after the first `after`; waits up to `timeout` seconds for one."""
        job = self._jobs[key]
        await self._wait(lambda: len(job.events) > after, timeout)
        return job.events[after:]

    async def cancel(self, key: str) -> None:
        """Ask a job to stop at its next report; one that has ended is forgotten."""
        job = self._jobs.get(key)
        if job is not None and not job.ended:
            job.cancelled = True
        else:
            self._jobs.pop(key, None)
        await self._notify()

    # --- asked by the driver

    async def devices(self) -> list[str]:
        """What each group that is ready computes on, one entry a group."""
        slots = self._slots.values()
        return [slot.device for slot in slots if len(slot.ready) == slot.world_size]

    async def slot_ended(self, slot: str, error: str) -> None:
        """A slot will not come back: its job fails, and without any slot the pool is closed."""
        state = self._slots.pop(slot, None)
        if state is not None and state.job is not None and not state.job.ended:
            self._end(state.job, "failed", error=error)
        if not self._slots:
            self._closed = True
        await self._notify()

    async def close(self) -> None:
        """Ask every running job to stop; a group ends when it next waits for a job."""
        self._closed = True
        for job in self._jobs.values():
            job.cancelled = True
        await self._notify()

    # --- inside

    def _is_replaced(self, slot: str, incarnation: str) -> bool:
        known = self._slots.get(slot)
        return known is None or known.incarnation != incarnation

    def _end(self, job: _Job, kind: str, *, error: str | None) -> None:
        job.ended = True
        job.events.append({"kind": kind, "error": error})

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, is_true: Callable[[], bool], timeout: float | None = None) -> bool:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(is_true), timeout)
            except TimeoutError:
                return False
            return True
