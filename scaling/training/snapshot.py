"""A run's state, on its way into checkpoints and back."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.records.measurement import Measurement
from scaling.training.build import Setup
from scaling.training.checkpoint import CheckpointStore, newest
from scaling.training.checkpoint_check import State
from scaling.training.evaluation import Cadence
from scaling.training.parallel.buffers import average_buffers
from scaling.training.parallel.sharding import own_part
from scaling.training.progress import Progress
from scaling.training.saving import Writer, copied
from scaling.training.supervision import Incidents


class Snapshots:
    """Saves and restores what a run needs to go on exactly; all workers call it together.

    Args:
        setup: Whose weights, moments and other state are saved.
        progress: What the run has counted.
        cadence: When it evaluates.
        incidents: Of the run; where a checkpoint is of no use, that is one more.
        store: Where checkpoints are; None saves none.
    """

    def __init__(
        self,
        setup: Setup,
        progress: Progress,
        cadence: Cadence,
        incidents: Incidents,
        store: CheckpointStore | None,
    ) -> None:
        self._setup, self._progress, self._cadence = setup, progress, cadence
        self._incidents, self._store = incidents, store
        self._in_parts = setup.parallel.saves_in_parts
        self._writer = None if store is None else Writer(store, setup.workers.rank)
        self._waiting: tuple[int, State] | None = None  # the first worker's, for the others
        self._is_under_way = False  # the same on all workers
        self._blocked_seconds = 0.0

    def save(self) -> None:
        """Begin to write a checkpoint, where the run has a place for it; called by all workers.

        Training waits for a copy of its state alone. One that cannot be written is an incident
        and not an end: the run itself is unharmed.
        """
        workers, writer = self._setup.workers, self._writer
        if writer is None:
            return
        self.finish()
        started = time.perf_counter()
        average_buffers(self._setup.model, self._setup.parallel.data_workers)
        per_worker = workers.gather_array(self._progress.own_numbers(workers.device))
        together = workers.agree(uuid.uuid4().hex)
        if workers.rank == 0 or self._in_parts:
            state = self._state(self._setup.parallel.weights.state(), per_worker, together)
            state, step = copied(state), self._progress.step
            # Weights that are cut among the workers never come together; the first writes last.
            if workers.rank == 0 and self._in_parts:
                self._waiting = step, state
            else:
                writer.start(step, state)
        self._is_under_way = True
        self._blocked_seconds = time.perf_counter() - started

    @property
    def is_busy(self) -> bool:
        """Whether the last checkpoint is not written yet, as far as the first worker knows."""
        writer = self._writer
        return self._waiting is not None or (writer is not None and writer.is_busy)

    @property
    def cost_seconds(self) -> float:
        """What the last checkpoint took from training: its wait, and its thread's computing."""
        thread = self._writer.processor_seconds if self._writer is not None else 0.0
        return self._blocked_seconds + thread

    def go_on(self) -> None:
        """Let the first worker write once the others have; called by all, between two steps."""
        if not (self._is_under_way and self._in_parts):
            return
        workers, writer = self._setup.workers, self._writer
        [num_busy] = workers.sum(float(writer is not None and writer.is_busy))
        if self._is_waiting() and not num_busy:
            self._write_the_first()

    def finish(self) -> None:
        """Wait until all workers have written the last checkpoint; called by all."""
        writer = self._writer
        if writer is None or not self._is_under_way:
            return
        if self._in_parts and self._is_waiting():
            self._write_the_first()
        self._is_under_way = False
        self._note(self._setup.workers.gather(writer.finish()))

    def close(self) -> None:
        """Wait for this worker's own part, wherever the others are."""
        if self._writer is not None:
            self._writer.close()

    def _is_waiting(self) -> bool:
        """Whether the first worker has its part still to write; the same on all."""
        return bool(self._setup.workers.from_first(float(self._waiting is not None)))

    def _write_the_first(self) -> None:
        """The first worker begins with its part, where all others' are written."""
        workers, writer = self._setup.workers, self._writer
        assert writer is not None
        failures = workers.gather(writer.finish() if workers.rank else None)
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not any(failures):
            writer.start(*waiting)
        self._note(failures)

    def _note(self, failures: Sequence[str | None]) -> None:
        """Keep why a worker could not write, if one could not: on all of them the same."""
        if failure := next(filter(None, failures), None):
            self._incidents.add_new({"kind": "checkpoint_failed", "cause": failure})

    def restore_newest(self) -> bool:
        """Take up the newest whole checkpoint of this recipe; False where there is none.

        Newer ones are passed over, each with an incident.
        """
        store, workers = self._store, self._setup.workers
        if store is None:
            return False
        passed_over: list[dict[str, Any]] = []
        state = newest(
            store, workers, in_parts=self._in_parts,
            like=self._state_before_first_step, passed_over=passed_over,
        )  # fmt: skip
        if state is not None:
            self._restore(state)
            passed_over = json.loads(state["incidents"]) + passed_over
        for incident in passed_over:
            self._incidents.add_new(incident)
        if state is None:
            return False
        self._incidents.add({"kind": "resumed", "step": self._progress.step})
        return True

    def _state(
        self, weights: State, per_worker: Sequence[NDArray[np.float64]], together: str
    ) -> State:
        """What this worker holds of all that a checkpoint needs; `together` is in all its parts."""
        setup, progress = self._setup, self._progress
        average = setup.average.state() if setup.average is not None else None
        # A checkpoint's recipe must be the run's; how a batch is cut may differ.
        identity = {"seed": setup.recipe.seed, **asdict(setup.recipe.hyperparameters)}
        return {
            "recipe": json.dumps(identity, sort_keys=True),
            "strategy": setup.recipe.layout.strategy,
            "precision": setup.recipe.layout.precision,
            "micro_batch_size": setup.gradient.micro_batch_size,
            **weights,
            "loss_scale": setup.gradient.loss_scale.state(),
            "clipping": setup.clipping.state(),
            "weight_average": own_part(average),
            "cadence_last_step": self._cadence.last_step,
            "progress": progress.state(),
            "per_worker": [torch.from_numpy(numbers) for numbers in per_worker],
            "incidents": json.dumps(self._incidents.kept),
            "measured": json.dumps([asdict(measurement) for measurement in progress.measured]),
            "written_together": together,
        }

    def _state_before_first_step(self) -> State:
        """What a checkpoint must be like."""
        workers = self._setup.workers
        own = self._progress.own_numbers(workers.device)
        weights = self._setup.parallel.weights.state_after_first_step()
        return self._state(weights, [own] * workers.world_size, "")

    def _restore(self, state: State) -> None:
        setup, progress = self._setup, self._progress
        gradient = setup.gradient
        gradient.micro_batch_size = min(state["micro_batch_size"], gradient.micro_batch_size)
        setup.parallel.weights.restore(state)
        gradient.loss_scale.restore(state["loss_scale"])
        setup.clipping.restore(state["clipping"])
        if setup.average is not None:
            setup.average.restore(state["weight_average"])
        self._cadence.last_step = state["cadence_last_step"]
        progress.measured = [Measurement(**values) for values in json.loads(state["measured"])]
        own = state["per_worker"][setup.workers.rank].numpy()
        progress.restore(state["progress"], own, setup.workers.device)
