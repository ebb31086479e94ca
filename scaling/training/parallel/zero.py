"""Weights, gradients and moments cut among the workers by DeepSpeed (the extra `deepspeed`).

DeepSpeed's engine cuts and reduces; the loop keeps what it is about: the loss per target of the
global batch, each worker's own gradient norm, clipping, the rate, the measurements.

Source: Rajbhandari et al. 2020 (arXiv:1910.02054) sec. 5: stage 1 cuts the optimizer's state,
stage 2 the gradients too, stage 3 the weights too.
"""

import inspect
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from scaling.measures.norm_layers import NormLayers
from scaling.optimizers.tensors import trained_weights
from scaling.spec.resources import ZERO_BUCKET_BYTES, Precision
from scaling.training.parallel.base import LocalNorm, NewOptimizer, Parallel
from scaling.training.parallel.sharding import uncut_copy, with_first_moments
from scaling.training.parallel.workers import Workers

_BUCKET_ENTRIES = ZERO_BUCKET_BYTES // 4  # float32


class Zero:
    """A model in the hands of DeepSpeed."""

    def __init__(
        self,
        model: nn.Module,
        new_optimizer: NewOptimizer,
        workers: Workers,
        *,
        stage: int,
        precision: Precision,
    ) -> None:
        """Take over a model, in place.

        Args:
            model: On this worker's device, the same on all workers; weights in float32.
            new_optimizer: Its step must be entry by entry.
            workers: All of them call this; at least two.
            stage: 1, 2 or 3.
            precision: fp32 or bf16; DeepSpeed scales fp16's loss by itself.

        Raises:
            ValueError: If the precision is fp16.
        """
        if precision == "fp16":
            raise ValueError("ZeRO needs fp32 or bf16")
        deepspeed = _deepspeed(workers.device)
        self._deepspeed, self._model, self._stage = deepspeed, model, stage
        self._workers, self._local_norm = workers, LocalNorm()
        self._trained = trained_weights(model)
        # Found while their weights are still whole.
        norm_layers = NormLayers(model, keeps_inputs=True)
        self._adds_up = False
        # Before DeepSpeed's own, which reduces a gradient and takes it away.
        self._hooks = [
            weight.register_post_accumulate_grad_hook(self._measure_one) for weight in self._trained
        ]
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=model,
            optimizer=new_optimizer(model),
            dist_init_required=False,
            config=_config(stage, workers.world_size, precision),
        )
        # The loop says when a batch is complete, by `reduction`.
        self._engine.set_gradient_accumulation_boundary(is_boundary=True)
        self._weights = FlatWeights(
            self._optimizer, self._trained, norm_layers, new_optimizer, workers.device, stage=stage
        )

    @property
    def parallel(self) -> Parallel:
        """What the loop trains."""
        return Parallel(
            self._engine,
            self._weights,
            self._workers,
            # A copy without DeepSpeed's hooks.
            plain_model=lambda new_model: uncut_copy(self._model, new_model),
            local_norm=self._local_norm,
            saves_in_parts=True,
            reduction=self._reduction,
            whole_weights=self._whole_weights,
            close=self._close,
        )

    @contextmanager
    def _reduction(self, num_parts: int) -> Iterator[None]:
        """Several parts are added up on each worker and reduced together at the end.

        That takes the memory of a whole gradient until then.
        """
        self._adds_up = num_parts > 1
        with self._engine.coalesce_grad_reduction() if self._adds_up else nullcontext():
            yield
            if self._adds_up:
                for weight in self._trained:
                    self._measure(weight)
        self._weights.take_reduced_gradient()

    def _measure_one(self, weight: Tensor) -> None:
        if not self._adds_up:
            self._measure(weight)

    def _measure(self, weight: Tensor) -> None:
        if self._local_norm.wanted and weight.grad is not None:
            self._local_norm.add([weight.grad])

    @contextmanager
    def _whole_weights(self) -> Iterator[None]:
        """Only stage 3 has cut the model's own weights."""
        if self._stage < 3:
            yield
            return
        # DeepSpeed's hooks would take the weights away after each module and gather them again.
        offload = self._optimizer.parameter_offload
        offload.partition_all_parameters()
        offload.destroy()
        offload.forward_hooks, offload.backward_hooks = [], []
        with self._deepspeed.zero.GatheredParameters(list(self._model.parameters())):
            yield
        offload.setup_zero_stage3_hooks()

    def _close(self) -> None:
        """Let go of the model, which DeepSpeed would keep to the process's end."""
        for hook in self._hooks:
            hook.remove()
        self._engine.destroy()
        if self._stage == 3:
            _forget_modules()


class FlatWeights:
    """See `scaling.training.parallel.base.Weights`: one flat tensor for each parameter group.

    The parameters are those tensors, of which each worker has a part.
    """

    def __init__(
        self,
        optimizer: Any,
        trained: Sequence[nn.Parameter],
        norm_layers: NormLayers,
        new_optimizer: NewOptimizer,
        device: torch.device,
        *,
        stage: int,
    ) -> None:
        self.optimizer, self.norm_layers = optimizer, norm_layers
        self._new_optimizer, self._stage = new_optimizer, stage
        # Stage 3 keeps this worker's part of a weight aside.
        self.held: list[Tensor] = [getattr(weight, "ds_tensor", weight) for weight in trained]
        group: Any = dist.group.WORLD
        self._mesh = DeviceMesh.from_group(group, device.type)
        self.parameters: list[Any] = [self._cut(flat) for flat in self._flat_weights()]

    def take_reduced_gradient(self) -> None:
        """Give the parameters the gradients that DeepSpeed has reduced."""
        averaged = self.optimizer.averaged_gradients
        for number, parameter in enumerate(self.parameters):
            flat = torch.cat([part.detach().flatten() for part in averaged[number]])
            averaged[number] = [flat]  # what the step will take, clipped by then
            parameter.grad = self._cut(flat)

    def state(self) -> dict[str, Any]:
        """This worker's part of the weights in float32, and their moments."""
        state = self.optimizer.state_dict()
        return {"zero": {name: _plain(state[name]) for name in self._saved_names}}

    def state_after_first_step(self) -> dict[str, Any]:
        """The same with moments: DeepSpeed keeps of each flat group what is kept of any weight."""
        of_one = with_first_moments(self._new_optimizer(nn.Linear(1, 1)))["state"].get(0, {})
        state = self.state()["zero"]
        groups = enumerate(self._flat_weights() if of_one else [])
        filled = {
            number: {
                name: torch.zeros_like(flat) if moment.ndim else moment
                for name, moment in of_one.items()
            }
            for number, flat in groups
        }
        optimizer = self._saved_names[0]
        return {"zero": {**state, optimizer: {**state[optimizer], "state": filled}}}

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` gave."""
        rank, present = dist.get_rank(), self.optimizer.state_dict()
        self.optimizer.load_state_dict({rank: present | state["zero"]}, load_from_fp32_weights=True)
        if self._stage < 3:
            self.optimizer.update_lp_params()

    @property
    def _saved_names(self) -> tuple[str, str]:
        if self._stage == 3:
            return "optimizer_state_dict", "fp32_flat_groups"
        return "base_optimizer_state", "single_partition_of_fp32_groups"

    def _flat_weights(self) -> list[Tensor]:
        """This worker's part of each group's weights, in float32."""
        if self._stage == 3:
            return self.optimizer.fp32_partitioned_groups_flat
        return self.optimizer.single_partition_of_fp32_groups

    def _cut(self, part: Tensor) -> DTensor:
        return DTensor.from_local(part.detach(), self._mesh, [Shard(0)], run_check=False)


def _deepspeed(device: torch.device) -> Any:
    """The library, told to compute where this worker does and to be quiet about it."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ["LOCAL_RANK"] = str(device.index or 0)  # to DeepSpeed, the number of the device
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Its shared-memory collectives would be compiled first, by a compiler that may not be there.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # torch 2.13 renames what DeepSpeed calls.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    return deepspeed


def _forget_modules() -> None:
    """Empty what DeepSpeed's stage 3 remembers of all models together."""
    from deepspeed.runtime.zero import parameter_offload, partitioned_param_coordinator

    parameter_offload.FWD_MODULE_STACK.clear()
    coordinator = partitioned_param_coordinator.PartitionedParameterCoordinator
    marked = vars(coordinator)["_PartitionedParameterCoordinator__params_to_release"]
    inspect.getclosurevars(marked).nonlocals["func"].cache_clear()  # keeps each module it was given


def _config(stage: int, world_size: int, precision: Precision) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_batch_size": world_size,  # must be named; the loop's batches are its own
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # the loop clips
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "contiguous_gradients": False,
            "reduce_bucket_size": _BUCKET_ENTRIES,
            "allgather_bucket_size": _BUCKET_ENTRIES,
            "stage3_param_persistence_threshold": 0,
        },
    }
    if precision == "bf16":
        # The engine overrules an autocast around it by its own; gradients are reduced in float32.
        config["torch_autocast"] = {
            "enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": [],
        }  # fmt: skip
    return config


def _plain(value: Any) -> Any:
    """The same without gradients' history, as a checkpoint holds it."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
