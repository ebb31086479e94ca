"""A run's state, on its way into checkpoints and back."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.issues import first_line
from scaling.training.build import Setup
from scaling.training.checkpoint import CheckpointStore, newest, shared_steps
from scaling.training.checkpoint_check import State
from scaling.training.evaluation import Cadence
from scaling.training.parallel.sharding import own_part
from scaling.training.progress import Progress
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

    def save(self) -> None:
        """Write a checkpoint, where the run has a place for it.

        One that cannot be written is an incident and not an end: the run itself is unharmed.
        """
        store, workers = self._store, self._setup.workers
        if store is None:
            return
        per_worker = workers.gather_array(self._progress.own_numbers(workers.device))
        together = workers.agree(uuid.uuid4().hex)
        rank, in_parts = workers.rank, self._setup.parallel.saves_in_parts
        if rank > 0 and not in_parts:
            return
        state = self._state(self._setup.parallel.weights.state(), per_worker, together)
        failure = None
        if in_parts:
            # Weights that are cut among the workers never come together; the first writes last.
            own = self._failure_of_saving(store, state) if rank else None
            failure = next(filter(None, workers.gather(own)), None)
        if rank == 0:
            failure = failure or self._failure_of_saving(store, state)
            if failure is not None:
                self._incidents.add_new({"kind": "checkpoint_failed", "cause": failure})

    def restore_newest(self) -> bool:
        """Take up the newest whole checkpoint of this recipe; False where there is none.

        Newer ones are passed over, each with an incident.
        """
        store, workers, parallel = self._store, self._setup.workers, self._setup.parallel
        if store is None or not shared_steps(store, workers):
            return False
        passed_over: list[dict[str, Any]] = []
        state = newest(
            store, workers, in_parts=parallel.saves_in_parts,
            like=self._state_before_first_step(), passed_over=passed_over,
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

    def _failure_of_saving(self, store: CheckpointStore, state: State) -> str | None:
        try:
            store.save(self._progress.step, state, self._setup.workers.rank)
        except OSError as error:
            return error.strerror or first_line(error)
        return None

    def _state(
        self, weights: State, per_worker: Sequence[NDArray[np.float64]], together: str
    ) -> State:
        """What this worker holds of everything that a checkpoint needs.

        Args:
            weights: Weights and moments, of the strategy.
            per_worker: `Progress.own_numbers` of each worker.
            together: The same in all parts of one checkpoint.
        """
        setup, progress = self._setup, self._progress
        average = setup.average.state() if setup.average is not None else None
        return {
            "recipe": _identity(setup.recipe),
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


def _identity(recipe: Recipe) -> str:
    """What a checkpoint must have been written by; how a batch is cut may differ."""
    return json.dumps({"seed": recipe.seed, **asdict(recipe.hyperparameters)}, sort_keys=True)
