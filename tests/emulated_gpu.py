"""A GPU that computes on the CPU, so that what mixes devices is found where there is none.

Tensors on it compute as those of the CPU do and say that they are on cuda:0. Where one meets a
tensor of the CPU, an error is raised as on a GPU. What of torch.cuda asks the driver is answered
here; the rest of it is torch's own. Neither kernels nor memory are a GPU's.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # which looks for a GPU as it is loaded
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from scaling.measures import throughput

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")
MEMORY_BYTES = 2**34
_COPIES = ("copy_", "_foreach_copy_", "_to_copy", "detach")
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")  # indices may be the CPU's


class GpuTensor(Tensor):
    """A tensor that says it is on the GPU; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "GpuTensor":
        """A tensor in the place of one of the CPU."""
        assert type(held) is Tensor
        made: Any = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=CPU,
        )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda _: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_cpu = property(lambda _: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return 0

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.held.tolist()

    def cpu(self) -> Tensor:  # type: ignore[override]
        return _Move.apply(self, CPU)  # type: ignore[no-any-return]

    def pin_memory(self) -> Tensor:  # type: ignore[override]
        raise RuntimeError("only dense CPU tensors can be pinned")

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a tensor of the GPU leaves its process")

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copy: Any = GpuTensor(self.held.clone()).requires_grad_(self.requires_grad)
            copy._is_param = isinstance(self, nn.Parameter)
            memo[id(self)] = copy
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        of_cpu = [
            tensor
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor) and not isinstance(tensor, GpuTensor)
        ]
        is_mixed = any(tensor.ndim for tensor in of_cpu) or (of_cpu and name in ("cat", "stack"))
        if is_mixed and name not in _COPIES + _INDEXED and not _Attention.is_inside:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}"
            )
        on_gpu: dict[int, GpuTensor] = {}

        def held(value: Any) -> Any:
            if not isinstance(value, GpuTensor):
                return value
            on_gpu[id(value.held)] = value
            return value.held

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor) or isinstance(value, GpuTensor):
                return value
            return on_gpu[id(value)] if id(value) in on_gpu else GpuTensor(value)

        return tree_map(moved, func(*tree_map(held, args), **tree_map(held, kwargs)))


class _Move(torch.autograd.Function):
    """To the other device, and the gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device) -> Any:
        ctx.device = tensor.device
        copy = (tensor.held if isinstance(tensor, GpuTensor) else tensor.detach()).clone()
        return copy if device == CPU else GpuTensor(copy)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return _on(gradient, ctx.device), None


def _on(tensor: Tensor, device: torch.device) -> Any:
    return tensor if tensor.device.type == device.type else _Move.apply(tensor, device)


class _Attention:
    """Torch's own, which makes a mask where the tensors are: in C++, which knows the CPU alone."""

    is_inside = False

    def __enter__(self) -> None:
        _Attention.is_inside = True

    def __exit__(self, *_: object) -> None:
        _Attention.is_inside = False


class _Calls(TorchFunctionMode):
    """Reads where a call wants its result."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            return _to(*args, **kwargs)
        if func in (Tensor.cpu, Tensor.numpy, Tensor.__array__, Tensor.tolist):
            return getattr(type(args[0]), func.__name__)(*args)
        if func is functional.scaled_dot_product_attention:
            with _Attention():
                return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        if device is None:
            return func(*args, **kwargs)
        kwargs.pop("pin_memory", None)
        device = torch.device(device)
        if device.type == "meta":
            return func(*args, **kwargs, device=device)
        args = tuple(a.held if isinstance(a, GpuTensor) else a for a in args)
        requires_grad = kwargs.pop("requires_grad", False)
        made = _on(func(*args, **kwargs, device=CPU), device)
        return made.requires_grad_() if requires_grad else made


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Tensor.to, whose arguments are a device, a type, a tensor that has both, or flags."""
    device, others = kwargs.pop("device", None), dict(kwargs)
    for name in ("non_blocking", "copy"):
        others.pop(name, None)
    for value in args:
        if isinstance(value, Tensor):
            device, others["dtype"] = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            others["dtype"] = value
        elif isinstance(value, torch.device | str):
            device = value
    moved = tensor if device is None else _on(tensor, torch.device(device))
    return Tensor.to(moved, **others) if others else moved


class _Generator:
    """The GPU's random numbers, which are the CPU's here; it has a state of its own."""

    def __init__(self) -> None:
        self._state = torch.zeros(16, dtype=torch.uint8)

    def get_state(self) -> Tensor:
        return self._state.clone()

    def set_state(self, state: Tensor) -> None:
        assert state.shape == (16,)
        self._state = state.clone()

    def manual_seed(self, seed: int) -> None:
        self._state = torch.full((16,), seed % 256, dtype=torch.uint8)


def _driver() -> dict[str, Any]:
    """What torch.cuda asks of its part in C++."""
    properties = SimpleNamespace(
        total_memory=MEMORY_BYTES, name="NVIDIA H200", major=9, minor=0, multi_processor_count=132
    )
    of_memory = {"allocated_bytes": {"all": {"current": 2**20, "peak": 2**21}}}
    of_memory["reserved_bytes"] = of_memory["allocated_bytes"]
    return {
        "_C._cuda_getDeviceCount": lambda: 1,
        "_C._cuda_getDevice": lambda: 0,
        "_C._cuda_setDevice": lambda _: None,
        "_C._cuda_getMemoryFraction": lambda _: 1.0,
        "_C._cuda_memoryStats": lambda _: of_memory,
        "_C._cuda_resetPeakMemoryStats": lambda _: None,
        "_C._cuda_emptyCache": lambda: None,
        "_C._cuda_synchronize": lambda: None,
        "_C._cuda_isCurrentStreamCapturing": lambda: False,
        "cuda._exchange_device": lambda _: 0,
        "cuda._maybe_exchange_device": lambda _: 0,
        "cuda._get_device_properties": lambda _: properties,
        "cuda._cudart": SimpleNamespace(cudaMemGetInfo=lambda _: (MEMORY_BYTES, MEMORY_BYTES)),
        "cuda._is_compiled": lambda: True,
        "cuda._is_in_bad_fork": lambda: False,
        "cuda._initialized": True,
        "cuda._cached_device_count": 1,
        "cuda.default_generators": (_Generator(),),
    }


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def emulated_gpu() -> Iterator[torch.device]:
    """Inside, tensors may be moved to the device that is given, and torch finds one GPU."""
    with ExitStack() as stack:
        for path, answer in _driver().items():
            where, _, name = path.partition(".")
            module = getattr(torch, where)
            stack.enter_context(mock.patch.object(module, name, answer, create=True))
        stack.enter_context(mock.patch.object(torch, "autocast", _Autocast))
        # There is no driver to pin memory for.
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", lambda tensor: tensor))
        # Torch's tensors without contents know no others.
        stack.enter_context(
            mock.patch.object(throughput, "_is_of_known_modules", return_value=False)
        )
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        stack.enter_context(_Calls())
        yield CUDA
