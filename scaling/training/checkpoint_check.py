"""Whether a checkpoint that could be read is whole and belongs to the run that would load it."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, Json, PositiveInt, ValidationError
from torch import Tensor

from scaling.records.measurement import Measurement
from scaling.training.parallel.sharding import Moving

State = dict[str, Any]

_KINDS: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "text", Tensor: "a tensor"}


def fault_of(saved: Any, like: State, *, step: int) -> str | None:
    """Why a run must not load a checkpoint; None where it may.

    Args:
        saved: What was read.
        like: What the run itself would save before its first step, its moments all zero. Names,
            types, shapes, the recipe, strategy and precision must be the same, and every number
            finite that is so here; of what is `Moving` only its type counts.
        step: The one in the checkpoint's name.
    """
    if not isinstance(saved, dict):
        return f"it is {_kind(saved)} and not a mapping"
    for name in ("recipe", "strategy", "precision"):
        if name in saved and saved[name] != like[name]:
            return f"it is of another {name}"
    # A run that has not begun has none of these; weights that never had a gradient have no moments.
    grown = ("measured", "incidents", "clipping", "optimizer", "with_moments")
    fault = _difference({**saved, **{k: like[k] for k in grown if k in saved and k in like}}, like)
    if fault is None and "optimizer" in like:
        fault = _fault_of_optimizer(saved["optimizer"], like["optimizer"], saved["with_moments"])
    return fault or _fault_of_plain(saved, step=step) or _fault_of_counts(saved, step=step)


def _difference(saved: Any, like: Any, name: str = "") -> str | None:
    """Where two values differ in more than their numbers; numbers that must be finite count."""
    if saved is like:
        return None
    if isinstance(like, Moving):
        like = like.value
    if isinstance(like, Tensor):
        return _difference_of_tensors(saved, like, name)
    if like is None:
        is_number = isinstance(saved, int | float) and math.isfinite(saved)
        return None if saved is None or is_number else f"{name} is {_kind(saved)}"
    if isinstance(like, float):
        is_number = isinstance(saved, int | float) and not isinstance(saved, bool)
        return None if is_number and math.isfinite(saved) else f"{name} is {_kind(saved)}"
    if type(saved) is not type(like) and not (
        isinstance(saved, Mapping) and isinstance(like, Mapping)
    ):
        return f"{name} is {_kind(saved)} and not {_kind(like)}"
    if isinstance(like, Mapping):
        for key in like.keys() ^ saved.keys():
            if not isinstance(like.get(key), Moving):  # which may be there from the first step on
                return f"{_inside(name, key)} is {'missing' if key in like else 'unknown'}"
        parts = [(key, saved[key], like[key]) for key in like if key in saved]
    elif isinstance(like, list | tuple):
        if len(saved) != len(like):
            return f"{name} has {len(saved)} items and not {len(like)}"
        parts = [(number, saved[number], value) for number, value in enumerate(like)]
    else:
        return None
    found = (_difference(one, other, _inside(name, key)) for key, one, other in parts)
    return next(filter(None, found), None)


def _difference_of_tensors(saved: Any, like: Tensor, name: str) -> str | None:
    if not isinstance(saved, Tensor):
        return f"{name} is {_kind(saved)} and not a tensor"
    if saved.shape != like.shape or saved.layout != like.layout:
        return f"{name} has shape {list(saved.shape)} and not {list(like.shape)}"
    if saved.dtype != like.dtype:
        return f"{name} has type {saved.dtype} and not {like.dtype}"
    if not bool(torch.isfinite(saved).all()) and bool(torch.isfinite(like).all()):
        return f"{name} has numbers that are not finite"
    return None


def _fault_of_optimizer(saved: Any, like: State, with_moments: Any) -> str | None:
    """Of torch's state of an optimizer, whose numbered weights each have moments by name."""
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        return "optimizer is not an optimizer's state"
    given = {**saved, "state": {}}
    fault = _difference(given, {**like, "state": {}}, "optimizer")
    if fault is not None:
        return fault
    for number, (group, own) in enumerate(
        zip(saved["param_groups"], like["param_groups"], strict=True)
    ):
        for key, value in own.items():
            if not isinstance(value, Moving) and group[key] != value:
                return f"optimizer.param_groups.{number}.{key} is of another recipe"
    moments: dict[Any, Any] = saved["state"]
    if not isinstance(with_moments, list) or set(with_moments) != moments.keys():
        return "optimizer.state lacks the moments of some weights, or has too many"
    for number, values in moments.items():
        if number not in like["state"]:
            return f"optimizer.state.{number} is unknown"
        fault = _difference(values, like["state"][number], f"optimizer.state.{number}")
        if fault is not None:
            return fault
    return None


class _Incident(BaseModel, extra="allow"):
    kind: str


class _Plain(BaseModel, extra="forbid"):
    """What no tensor is like, and a run that has not begun has none of."""

    clipping: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    measured: Json[list[Measurement]]  # what was measured may have overflowed
    incidents: Json[list[_Incident]]
    micro_batch_size: PositiveInt


def _fault_of_plain(saved: State, *, step: int) -> str | None:
    try:
        plain = _Plain.model_validate({n: saved[n] for n in _Plain.model_fields}, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    steps = [measurement.step for measurement in plain.measured]
    if steps != sorted(set(steps)) or any(taken > step for taken in steps):
        return "measured is not of this run: its steps are out of order"
    if not all(math.isfinite(measurement.seconds) for measurement in plain.measured):
        return "measured has a time that is not finite"
    return None


def _fault_of_counts(saved: State, *, step: int) -> str | None:
    """Of numbers whose values are known, or bounded, before anything is loaded."""
    if saved["progress"]["step"] != step:
        return f"progress.step is {saved['progress']['step']} and not {step}"
    for name in ("examples", "tokens"):
        if saved["progress"][name] < 0:
            return f"progress.{name} is negative"
    for own in saved["per_worker"]:
        generators = own[1:]  # see Progress.own_numbers
        try:
            torch.Generator().set_state(generators.to(torch.uint8)[: len(torch.get_rng_state())])
        except RuntimeError:
            return "per_worker has no state of random numbers"
    return None


def _inside(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _kind(value: Any) -> str:
    for kind, words in _KINDS.items():
        if isinstance(value, kind):
            return words
    return repr(value)[:40]
