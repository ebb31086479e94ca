"""Examples of the user's own: read by number, and hashed."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling.tasks.own.contract import Examples
from scaling.tasks.task import Indices

NUM_HASHED = 256
"""Examples of a split that its hash is of, evenly spread over it; its size is in it too."""
_MAX_DEPTH = 20
_READING = threading.Lock()
"""On a GPU a thread reads ahead, and two threads must not read one open file at once."""


@contextmanager
def fixed_chance(seed: int) -> Iterator[None]:
    """Random numbers of Python, numpy and torch start from a seed inside, and go on after it."""
    with _kept_chance():
        _set_chance(seed)
        yield


def _set_chance(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # what user code draws from
    torch.manual_seed(seed)


@contextmanager
def _kept_chance() -> Iterator[None]:
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # what user code draws from
    # Another GPU, or one not used yet, would be given a context of several hundred MB by this.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def read(
    examples: Examples, numbers: Iterable[int], *, seeds: Iterable[int] | None = None
) -> list[Any]:
    """The examples of these numbers.

    Args:
        examples: Of a split.
        numbers: Which.
        seeds: Of each example, which may be changed at random as it is read, as by augmentation;
            None where none is.
    """
    wanted = [int(number) for number in numbers]
    with _READING:
        if seeds is not None:
            found: list[Any] = []
            with _kept_chance():
                for number, seed in zip(wanted, seeds, strict=True):
                    _set_chance(int(seed))
                    found.append(examples[number])
            return found
        at_once: Callable[[list[int]], list[Any]] | None = getattr(examples, "__getitems__", None)
        return [examples[number] for number in wanted] if at_once is None else at_once(wanted)


def is_random(examples: Examples) -> bool:
    """Whether an example is another one each time it is read."""
    digests: set[bytes] = set()
    for seed in (0, 1):
        with fixed_chance(seed):
            digests.add(digest_of(examples[0]))
    return len(digests) > 1


def seeds_of(seed: int, numbers: Indices) -> list[int]:
    """For each of some examples of a stream that is drawn by a seed, one of its own."""
    # A counter through the finalizer of splitmix64 (Steele et al. 2014), all at once.
    [start] = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)).tolist()


def spread(count: int, *, at_most: int) -> list[int]:
    """So many numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).astype(int)).tolist()


def digest_of_split(examples: Examples) -> bytes:
    """A hash of a split's size and of examples spread over it."""
    digest = sha256(str(len(examples)).encode())
    for number in spread(len(examples), at_most=NUM_HASHED):
        digest.update(digest_of(*read(examples, [number], seeds=[number])))
    return digest.digest()


def digest_of(value: Any, depth: int = 0) -> bytes:
    """A hash of an example, by what it holds: the same in every process."""
    return sha256(b"".join(_pieces(value, depth))).digest()


def _pieces(value: Any, depth: int) -> Iterator[bytes]:
    """Bytes that tell a value from others of its kind."""
    yield type(value).__name__.encode()
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        yield f"{value.dtype}{list(value.shape)}".encode()
        yield value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    elif isinstance(value, np.ndarray | np.generic):
        yield f"{value.dtype}{list(value.shape)}".encode()
        yield repr(value.tolist()).encode() if value.dtype.hasobject else value.tobytes()
    elif isinstance(value, bytes | bytearray):
        yield bytes(value)
    elif isinstance(value, str | int | float | complex | bool | None):
        yield repr(value).encode()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield digest_of(key, depth + 1) + digest_of(item, depth + 1)
    elif isinstance(value, set | frozenset):
        yield from sorted(digest_of(item, depth + 1) for item in value)
    elif isinstance(value, Sequence):
        for item in value:
            yield digest_of(item, depth + 1)
    elif hasattr(value, "tobytes"):  # of an image
        yield value.tobytes()
    elif is_dataclass(value):
        for field in fields(value):
            yield digest_of(getattr(value, field.name), depth + 1)
    else:
        yield digest_of(getattr(value, "__dict__", None), depth + 1)
