"""What a run's measurement takes: evaluation, the text it writes, curvature, noise, throughput."""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict

import torch
from torch import nn

from scaling.files.shown_error import first_line
from scaling.records.measurement import Measurement
from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.tasks.data.rows import Split
from scaling.tasks.task import ExampleLosses, Task
from scaling.training.blocks import without_compiling
from scaling.training.build import Setup, new_model
from scaling.training.curvature import Curvature, measure_curvature
from scaling.training.evaluation import evaluate, scored_metrics, written_metrics
from scaling.training.kept_model import keep_model
from scaling.training.memory.out_of_memory import fixed_memory
from scaling.training.parallel.buffers import average_buffers
from scaling.training.progress import Progress
from scaling.training.supervision import Incidents

CPU = torch.device("cpu")


class Measuring:
    """Takes a run's measurements; all workers call it, and all get the same but for seconds.

    Attributes:
        losses: Of each split's fixed subset at the last evaluation.
    """

    def __init__(
        self,
        setup: Setup,
        evaluation: Evaluation,
        progress: Progress,
        incidents: Incidents,
        model_folder: str | None,
    ) -> None:
        self._model_folder, self._incidents = model_folder, incidents
        self._setup, self._evaluation, self._progress = setup, evaluation, progress
        self.losses: Mapping[Split, ExampleLosses] = {}
        self._by_model: dict[str, float] = {}
        self._curvature: Curvature | None = None

    def measure(self, *, is_last: bool) -> Measurement:
        """Evaluate, and sum up the steps since the last measurement.

        Args:
            is_last: Whether the run is over: what is measured once follows then.
        """
        progress = self._progress
        started = time.perf_counter()
        self._evaluate(is_last=is_last)
        progress.evaluation_seconds += time.perf_counter() - started
        measurement = self._measurement()
        progress.add_measurement(measurement)
        return measurement

    def has_diverged(self) -> bool:
        """Whether the last evaluation shows a loss that blew up.

        A multiple of a first loss says something only where that is above zero.
        """
        loss, first = self.losses["validation"].loss, self._progress.first_loss
        if not math.isfinite(loss):
            return True
        return first is not None and 0 < first * self._evaluation.divergence_ratio < loss

    def _evaluate(self, *, is_last: bool) -> None:
        setup, task, parallel = self._setup, self._setup.task, self._setup.parallel
        precision, spec = setup.recipe.layout.precision, self._evaluation.sharpness
        # The test split is read once, after the last step.
        splits = [split for split in task.splits if is_last or split != "test"]
        averaged = setup.average.in_place() if setup.average is not None else nullcontext()
        with averaged, parallel.whole_weights():
            workers = parallel.data_workers
            with fixed_memory("evaluating"):
                average_buffers(setup.model, workers)
                self.losses = evaluate(task, setup.model, splits, workers, precision=precision)
                self._by_model = {}
                if self.has_diverged():  # a metric may refuse what such a model says
                    return
                # A cache of keys grows word by word, and each layer's would be compiled anew.
                with without_compiling(setup.recipe.layout.compile):
                    self._by_model = scored_metrics(task, setup.model, workers, precision=precision)
                    if is_last:
                        self._by_model |= written_metrics(
                            task, setup.model, workers, precision=precision
                        )
            if is_last and not (self._model_folder is None and spec is None):
                with fixed_memory("measuring and keeping the whole model"):
                    self._of_whole_model(spec)

    def _of_whole_model(self, spec: Sharpness | None) -> None:
        """Keep the model, and measure its loss around it; what fails leaves the run as it is."""
        setup, task, workers = self._setup, self._setup.task, self._setup.workers
        folder, recipe = self._model_folder, setup.recipe

        def new() -> nn.Module | None:
            # To be kept, one copy is enough, in the host's memory.
            if spec is None:
                return new_model(task, recipe, CPU) if workers.rank == 0 else None
            return new_model(task, recipe, workers.device)

        model = setup.parallel.plain_model(new)  # by all
        if folder is not None:
            failure = None if workers.rank else _failure_of_keeping(task, model, folder)
            [failure, *_] = workers.gather(failure)
            if failure is not None:
                self._incidents.add({"kind": "model_not_kept", "cause": failure})
        if spec is not None:
            assert model is not None
            with without_compiling(recipe.layout.compile):
                self._curvature, cause = measure_curvature(
                    task, model, spec, workers, micro_batch_size=setup.gradient.micro_batch_size
                )
            if cause is not None:
                self._incidents.add({"kind": "no_top_eigenvalue", "cause": cause})

    def _measurement(self) -> Measurement:
        setup, task, progress = self._setup, self._setup.task, self._progress
        values: dict[str, float | None] = {
            "lr": progress.lr,
            **self._noise(),
            "peak_memory_bytes": self._peak_memory_bytes(),
            "num_parameters": setup.num_parameters,
            "num_trained_parameters": setup.num_trained,
            **self._of_steps(),
        }
        if setup.recipe.layout.precision == "fp16":
            values["num_skipped_steps"] = progress.num_skipped
        for split, losses in self.losses.items():
            values |= {f"{split}_loss": losses.loss, f"{split}_loss_stderr": losses.stderr}
        if self._curvature is not None:
            values |= asdict(self._curvature)
        metrics = task.metrics(self.losses["validation"]) | self._by_model
        return Measurement(
            step=progress.step,
            examples=progress.examples,
            tokens=progress.tokens if task.tokens_per_example is not None else None,
            targets=progress.targets,
            seconds=progress.seconds,
            evaluation_seconds=progress.evaluation_seconds,
            warm_up_seconds=progress.warm_up_seconds,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            **{k: v for k, v in values.items() if v is not None and math.isfinite(v)},
        )

    def _noise(self) -> dict[str, float | None]:
        """The gradient noise scale and its parts, of the run so far."""
        noise, of_norm_layers = self._progress.noise.mean, self._progress.norm_layer_noise.mean
        num_models = self._setup.task.num_models
        return {
            "grad_noise_scale": noise.noise_scale if noise else None,
            "grad_noise_scale_stderr": noise.stderr if noise else None,
            "norm_layer_noise_scale": of_norm_layers.noise_scale if of_norm_layers else None,
            "grad_sq_norm": noise.sq_norm / num_models if noise else None,
            "grad_covariance_trace": noise.covariance_trace / num_models if noise else None,
        }

    def _of_steps(self) -> dict[str, float | None]:
        """Of the steps since the last measurement; empty where there was none."""
        setup, since = self._setup, self._progress.since
        [loss_sum] = setup.parallel.data_workers.sum(float(since.loss_sum))
        if not since.num_steps:
            return {}
        flops, peak = setup.flops_per_example, setup.peak_flops_per_second
        examples_per_second = since.num_examples / since.seconds
        has_tokens = setup.task.tokens_per_example is not None
        used = flops * examples_per_second / peak if flops is not None and peak else None
        return {
            "step_loss": loss_sum / since.num_targets,
            "grad_norm": since.grad_norm_sum / since.num_steps / math.sqrt(setup.task.num_models),
            "clipped_fraction": since.num_clipped / since.num_steps,
            "examples_per_second": examples_per_second,
            "tokens_per_second": since.num_tokens / since.seconds if has_tokens else None,
            "targets_per_second": since.num_seen_targets / since.seconds,
            "flops_per_example": flops,
            "peak_flops_per_second": peak,
            "model_flop_utilization": used,
        }

    def _peak_memory_bytes(self) -> float | None:
        """Most bytes that tensors held at once on the GPU of the worker with the most.

        None on CPUs: there the process's largest resident size is all that is known, and that is
        of every trial it has served.
        """
        workers = self._setup.workers
        if workers.device.type != "cuda":
            return None
        return max(workers.gather(float(torch.cuda.max_memory_allocated(workers.device))))


def _failure_of_keeping(task: Task, model: nn.Module | None, folder: str) -> str | None:
    """Why a model could not be kept, or None."""
    assert model is not None
    try:
        keep_model(task, model, folder)
    except Exception as error:  # noqa: BLE001  # a store's, or the user's own module's
        return first_line(error)
    return None
