"""The broker between Tune's trials and the worker groups that execute them.

One asynchronous actor for the whole pool. Trials submit jobs and read their events; the ranks
of each worker group (slot) ask for the next job, report, and leave the job together. Between
jobs every rank waits here, never inside a collective.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from scaling.runner.fitting import FittingMicroBatches
from scaling.runner.jobs import Assignment, Directive, Event, Job, RankError, Verdict
from scaling.runner.slots import RunningJob, Slot
from scaling.spec.issues import last_line

MAX_ATTEMPTS = 3
EXIT_TIMEOUT_SECONDS = 15.0
WORKERS_DIED = "its worker processes died (was their memory exhausted?)"
CONTROLLER_DIED = "the controller of its workers died"
MACHINE_LOST = "its machine was lost"
MACHINE_LEAVES = "a machine of its workers is taken back"


class Broker:
    """Matches jobs with worker groups; see the module's docstring. Runs as a Ray actor."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._jobs: dict[str, RunningJob] = {}
        self._waiting: list[RunningJob] = []
        self._expected: set[str] = set()
        self._waits_for_expected = True
        self._changed = asyncio.Condition()
        self._closed = False
        self._refusal: str | None = None
        self._placement_groups: dict[str, Any] = {}
        self._fitting = FittingMicroBatches()
        self._num_excused: Counter[str] = Counter()
        self._vacated: set[tuple[str, str]] = set()  # (slot, machine that asked its ranks to end)

    # --- asked by the ranks of a worker group

    async def hello(
        self, slot: str, incarnation: str, rank: int, world_size: int, device: Any, node: str
    ) -> None:
        """A rank of a (re)started group is ready for jobs.

        A job that was in flight when the group's earlier incarnation died is served again: it
        goes on from its checkpoint, up to MAX_ATTEMPTS times.
        """
        known = self._slots.get(slot)
        if known is None or known.incarnation != incarnation:
            number, running = (known.number, known.running) if known else (0, None)
            known = Slot(world_size, incarnation, device, number=number, group_size=world_size)
            self._slots[slot] = known
            if running is not None and self._is_served_after_loss(slot, running):
                self._serve(known, running)
        known.ready.add(rank)
        known.nodes.add(node)
        self._hand_out()
        await self._notify()

    async def keep_placement_group(self, slot: str, placement_group: Any) -> None:
        """What Ray keeps for a slot's workers; None where that is not known."""
        self._placement_groups[slot] = placement_group

    async def refuse(self, reason: str) -> None:
        """A rank cannot train for this study: it ends, saying why."""
        self._refusal = self._refusal or reason
        self._closed = True
        for running in self._jobs.values():
            running.events.append({"kind": "refused", "reason": self._refusal})
        await self._notify()

    def _is_served_again(self, running: RunningJob) -> bool:
        """Prepare the next attempt after all ranks have left, or were lost; else end the job."""
        if running.cancelled:
            error = running.errors[0].traceback if running.errors else WORKERS_DIED
            self._end(running, "failed", error=error)
            return False
        # The first to leave knows the cause; the others only see their peer gone.
        error = running.errors[0] if running.errors else RankError(WORKERS_DIED)
        if not self._is_made_smaller(running, error) and self._is_final(running, error):
            return False
        running.next_attempt()
        return True

    def _is_made_smaller(self, running: RunningJob, error: RankError) -> bool:
        """After memory ran out, give the next attempt a smaller micro-batch; False if no help."""
        smaller = error.too_large and self._fitting.smaller(running.job, error.too_large)
        if not smaller:
            return False
        running.micro_batch_size = smaller
        running.add_incident({"kind": "out_of_memory", "micro_batch_size": smaller})
        return True

    def _is_final(self, running: RunningJob, error: RankError) -> bool:
        """End a job whose memory cannot suffice, or that was lost MAX_ATTEMPTS times."""
        running.num_losses += 1
        if error.out_of_memory or running.num_losses >= MAX_ATTEMPTS:
            times = f" {running.num_losses} times" if error.traceback == WORKERS_DIED else ""
            self._end(running, "failed", error=error.traceback + times)
            return True
        cause = last_line(error.traceback)
        running.add_incident({"kind": "restarted", "attempt": running.attempt + 1, "cause": cause})
        return False

    def _is_served_after_loss(self, slot: str, running: RunningJob) -> bool:
        """The same after the group of a slot was lost; excuses it where the next takes less."""
        before = running.micro_batch_size
        is_served = self._is_served_again(running)
        self._num_excused[slot] += running.micro_batch_size < before
        return is_served

    def _serve(self, slot: Slot, running: RunningJob) -> None:
        slot.running = running
        slot.number += 1
        if running.world_size not in (1, slot.group_size):
            slot.group, slot.group_size = slot.number, running.world_size

    async def next_job(
        self, slot: str, incarnation: str, rank: int, after: int
    ) -> Assignment | None:
        """Wait for a job numbered above `after` that this rank takes part in.

        Returns:
            None when the pool is closed, the group leaves or was replaced by another incarnation,
            or it is one of a broker before this one.
        """
        state = self._slots.get(slot)
        if state is None:
            return None

        def is_decided() -> bool:
            running = state.running
            served = (
                running is not None
                and state.number > after
                and state.is_ready
                and rank < running.world_size
            )
            leaves = state.is_leaving and running is None  # all ranks take a job, or none does
            return self._closed or self._is_replaced(slot, incarnation) or served or leaves

        await self._wait(is_decided)
        running = state.running
        if self._closed or self._is_replaced(slot, incarnation) or running is None:
            return None
        return Assignment(
            running.job, running.attempt, state.number, running.micro_batch_size, state.group
        )

    async def report(
        self, trial_id: str, attempt: int, event: Event, wait: bool = False
    ) -> Directive:
        """Take an event from a job's first rank.

        Args:
            trial_id: Whose.
            attempt: Events of an earlier attempt are not taken.
            event: What happened.
            wait: Return only when the trial has passed the event on and was told to go on.
        """
        running = self._jobs.get(trial_id)
        if running is None or running.ended or running.attempt != attempt:
            return "stop"
        if running.moves and event["kind"] == "outcome" and event["status"] == "paused":
            running.is_saved = True
            return "pause"
        running.events.append(event)
        if event["kind"] == "incident" and event["incident"]["kind"] == "out_of_memory":
            self._fitting.remember(running.job, event["incident"]["micro_batch_size"])
        number = len(running.events)
        await self._notify()
        if wait:
            await self._wait(
                lambda: running.num_acknowledged >= number or self._interrupted(running, attempt)
            )
        return self._directive(running, attempt)

    async def interrupted(self, trial_id: str, attempt: int) -> Directive:
        """Return when a job is to be interrupted, or has ended, and how."""
        running = self._jobs.get(trial_id)
        if running is None:
            return "stop"
        await self._wait(lambda: self._interrupted(running, attempt))
        return self._directive(running, attempt)

    async def leave(
        self, slot: str, incarnation: str, trial_id: str, rank: int, error: RankError | None
    ) -> Verdict:
        """A rank's end of a job; returns when all have ended it.

        Returns:
            `clean` when every rank of the job came back, and the group takes the next job;
            `dirty` when one did not within EXIT_TIMEOUT_SECONDS, or the group was replaced:
            then this rank must raise, so that the group is started anew. The fate of the job is
            decided when the next incarnation says hello.
        """
        if self._is_replaced(slot, incarnation):
            return "dirty"
        state, running = self._slots[slot], self._slots[slot].running
        if running is None or running.job.trial_id != trial_id:
            return "clean"
        attempt = running.attempt
        running.left[rank] = error

        def is_replaced() -> bool:
            return self._is_replaced(slot, incarnation)

        def is_decided() -> bool:
            return state.running is not running or running.attempt != attempt

        await self._notify()
        all_left = await self._wait(
            lambda: len(running.left) >= running.world_size or is_replaced() or is_decided(),
            EXIT_TIMEOUT_SECONDS,
        )
        if is_replaced() or not all_left:
            return "dirty"
        if not is_decided():
            self._settle(state, running)
            await self._notify()
        return "clean"

    async def vacate(self, slot: str, incarnation: str) -> None:
        """A rank is asked to end: its group's job is saved and goes on in another one."""
        if self._is_replaced(slot, incarnation) or self._slots[slot].is_leaving:
            return
        state = self._slots[slot]
        asked = {(slot, node) for node in state.nodes}  # once: what lacks memory asks again
        self._num_excused[slot] += not asked <= self._vacated
        self._vacated |= asked
        state.is_leaving = True
        if state.running is not None:
            state.running.moves = True
        await self._notify()

    def _settle(self, slot: Slot, running: RunningJob) -> None:
        """All ranks left a job."""
        slot.running = None
        if running.errors:
            if running.world_size > 1:
                slot.group_size = 0
            if self._is_served_again(running):
                if slot.is_leaving:
                    self._waiting.insert(0, running)
                else:
                    self._serve(slot, running)
        elif running.is_saved and not (running.ended or running.cancelled or self._closed):
            running.begin_anew(MACHINE_LEAVES)
            self._waiting.insert(0, running)
        elif not running.ended:
            self._end(running, "ended", error=None)
        self._hand_out()

    # --- asked by trials

    async def all_submitted(self, timeout: float) -> None:
        """Return when all trials that Tune has been given are here, or that is taking too long.

        The first time that it takes too long is the last one that anybody waits for it.
        """
        if not await self._wait(lambda: self._closed or not self._expected, timeout):
            self._expected.clear()
            self._waits_for_expected = False

    async def submit(self, job: Job) -> bool:
        """Wait until a free group has a job; False when the pool is closed.

        A trial that comes again while its job is known (its actor had died) takes it over, with
        all its events from the first.
        """
        self._expected.discard(job.trial_id)
        running = self._jobs.get(job.trial_id)
        if running is None:
            running = RunningJob(job, job.recipe.layout.micro_batch_size)
            self._jobs[job.trial_id] = running
            self._waiting.append(running)
            self._hand_out()
        await self._notify()
        await self._wait(lambda: self._closed or running.cancelled or running not in self._waiting)
        if running in self._waiting:
            self._waiting.remove(running)
            self._jobs.pop(job.trial_id, None)
            return False
        return True

    def _hand_out(self) -> None:
        """Give waiting jobs to free groups, each group one that needs all of its ranks if any."""
        for slot in sorted(self._slots.values(), key=lambda slot: slot.world_size):
            fitting = [r for r in self._waiting if r.world_size <= slot.world_size]
            is_free = slot.running is None and slot.is_ready and not slot.is_leaving
            if self._closed or not is_free or not fitting:
                continue
            running = max(fitting, key=lambda r: r.world_size)  # of equals the first
            self._waiting.remove(running)
            if running.attempt == 1:
                running.micro_batch_size = self._fitting.first(running.job)
            running.events.append({"kind": "started"})
            self._serve(slot, running)

    async def next_events(self, trial_id: str, after: int, timeout: float) -> list[Event] | None:
        """The events after the first `after`; waits up to `timeout` seconds for one.

        None where there is no such job: it was submitted to a broker before this one.
        """
        running = self._jobs.get(trial_id)
        if running is None:
            return None
        await self._wait(lambda: len(running.events) > after, timeout)
        return running.events[after:]

    async def acknowledge(self, trial_id: str, num_events: int) -> None:
        """A trial passed on so many events and goes on; who waits at a report may too."""
        running = self._jobs.get(trial_id)
        if running is not None:
            running.num_acknowledged = max(running.num_acknowledged, num_events)
            await self._notify()

    async def cancel(self, trial_id: str) -> None:
        """Ask a job to stop; one that has ended is forgotten."""
        self._expected.discard(trial_id)
        running = self._jobs.get(trial_id)
        if running is not None:
            running.cancelled = True
            if running.ended:
                del self._jobs[trial_id]
        await self._notify()

    # --- asked by the driver

    async def expect(self, trial_id: str) -> None:
        """Tune has been given a trial, which will submit its job."""
        if self._waits_for_expected and trial_id not in self._jobs:  # its relay may be first
            self._expected.add(trial_id)

    async def devices(self) -> list[Any]:
        """What each group that is ready computes on, one entry a group."""
        return [slot.device for slot in self._slots.values() if slot.is_ready]

    async def num_started(self) -> int:
        """Groups that run, ready or not."""
        return len(self._placement_groups)

    async def num_excused(self, slot: str) -> int:
        """Losses of a slot's group by memory that the next attempt takes less of, or a machine."""
        return self._num_excused[slot]

    async def nodes(self) -> dict[str, set[str]]:
        """The machines, by Ray's identifiers, of each group that is ready."""
        slots = self._slots.items()
        return {n: slot.nodes for n, slot in slots if slot.is_ready and not slot.is_leaving}

    async def refusal(self) -> str | None:
        """Why a rank cannot train for this study."""
        return self._refusal

    async def group_lost(self, slot: str, cause: str = CONTROLLER_DIED) -> Any:
        """A slot's group is gone by no fault of its job, and another one will come.

        The job is the first that a free group gets, and goes on from its checkpoint.

        Returns:
            What was reserved for the group, which may be so still; None where that is not known.
        """
        placement_group = self._placement_groups.pop(slot, None)
        state = self._slots.get(slot)
        if state is None:
            return placement_group
        self._num_excused[slot] += cause == MACHINE_LOST and not state.is_leaving
        running, state.running = state.running, None
        state.ready, state.incarnation = set(), ""
        if running is not None and not running.ended:
            if running.cancelled:
                self._end(running, "failed", error=cause)
            elif running.errors:
                if self._is_served_after_loss(slot, running):
                    self._waiting.insert(0, running)
            else:
                running.begin_anew(cause)
                self._waiting.insert(0, running)
        self._hand_out()
        await self._notify()
        return placement_group

    async def slot_ended(self, slot: str, error: str) -> None:
        """A slot will not come back: its job fails; jobs that no other slot fits fail too."""
        state = self._slots.pop(slot, None)
        if state is not None and state.running is not None and not state.running.ended:
            self._end(state.running, "failed", error=error)
        if not self._slots:
            self._closed = True
            for running in [r for r in self._waiting if r.attempt > 1]:  # no trial waits for these
                self._waiting.remove(running)
                self._end(running, "failed", error=error)
        largest = max((slot.world_size for slot in self._slots.values()), default=0)
        for running in list(self._waiting):
            if running.world_size > largest and not self._closed:
                self._waiting.remove(running)
                self._end(running, "failed", error=error)
        await self._notify()

    async def close(self) -> None:
        """Ask every running job to pause; a group ends when it next waits for a job."""
        self._closed = True
        await self._notify()

    # --- inside

    def _directive(self, running: RunningJob, attempt: int) -> Directive:
        if running.cancelled or running.ended or running.attempt != attempt:
            return "stop"
        return "pause" if self._closed or running.moves else "continue"

    def _interrupted(self, running: RunningJob, attempt: int) -> bool:
        return self._directive(running, attempt) != "continue"

    def _is_replaced(self, slot: str, incarnation: str) -> bool:
        known = self._slots.get(slot)
        return known is None or known.incarnation != incarnation

    def _end(self, running: RunningJob, kind: str, *, error: str | None) -> None:
        running.ended = True
        running.events.append({"kind": kind, "error": error})
        if running.cancelled:  # nobody reads its events any more
            self._jobs.pop(running.job.trial_id, None)

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
