"""Seconds on a GPU: as reported, beside others' loops, and what measuring and saving cost."""

import math
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from gpu_frame import Finding, Result, judged, not_judged
from gpu_rivals import Job, bare, huggingface
from gpu_tasks import LARGE_VOCABULARY, NO_EVALUATION, Run, Watched, language, recipe, run
from torch.utils._python_dispatch import TorchDispatchMode

from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.training import loop
from scaling.training.checkpoint import CheckpointStore
from scaling.training.supervision import Supervision

A_CPU = "a CPU that others use too has no steady clock, and the bounds are a GPU's"
SAVING_SECONDS = 4.0  # of training at least, so that there are checkpoints however fast it is


def seconds(device: str) -> Finding:
    """Seconds of training as reported, against those that the device's own clock has."""
    marks: list[Any] = []
    is_measured = False  # steps before the first evaluation are discarded

    def mark() -> Any:
        if device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def begin() -> None:
        if is_measured and not marks:
            marks.append(mark())

    def end() -> None:
        nonlocal is_measured
        is_measured = True
        if len(marks) == 1:
            marks.append(mark())

    trained = language("MIDDLE" if device == "cuda" else "SMALL").task
    found = run(Watched(trained, begin, end), recipe(32, 40, micro_batch_size=8), device)
    if device == "cuda":
        torch.cuda.synchronize()
        own = marks[0].elapsed_time(marks[1]) / 1000
    else:
        own = marks[1] - marks[0]
    distance = abs(found.last.seconds / own - 1)
    return judged(Result("distance from the device's clock", distance, "at most", 0.03))


def cold_start(device: str) -> Finding:
    """In a new process the first steps of a trial take no longer than those that follow."""
    evaluation = Evaluation(every_steps=4, num_examples=16)
    how = recipe(16, 12, micro_batch_size=8)
    found = run(language("SMALL", varied=True).task, how, device, evaluation)
    ends = [m.seconds for m in found.measured]
    first, *later = (b - a for a, b in pairwise(ends))
    warm_up = found.measured[0].warm_up_seconds or 0.0
    results = (
        Result("seconds of the first steps over later ones", first / max(later), "at most", 2.0),
        Result("seconds of warming up", warm_up, "at least", 1e-6),
    )
    return judged(*results) if device == "cuda" else not_judged(A_CPU, *results)


def syncs(device: str) -> Finding:
    """How often a step waits for the device; a micro-batch more must not add to it."""
    by_step = {parts: _syncs_of_steps(device, 16 // parts) for parts in (1, 4)}
    return judged(
        *(
            Result(f"a step of {n} micro-batches", found, "at most", 1)
            for n, found in by_step.items()
        )
    )


def _syncs_of_steps(device: str, micro_batch_size: int) -> float:
    counted, num_steps, warm = _Reads(), 12, 3
    steps = 0
    counts = False

    def begin() -> None:
        nonlocal steps, counts
        steps += 1
        if steps == warm + 1:
            counts = True
            counted.start(device)

    def end() -> None:
        nonlocal steps, counts
        steps = 0  # those before the first evaluation are discarded
        if counts:
            counts = False
            counted.stop(device)

    task = Watched(language("SMALL").task, begin, end)
    how = recipe(16, num_steps, micro_batch_size=micro_batch_size)
    with _without_noise(), warnings.catch_warnings(record=True) as caught, counted:
        warnings.simplefilter("always")
        run(task, how, device)
    if device == "cuda":
        found = sum("synchroniz" in str(warning.message) for warning in caught)
    else:
        found = counted.num_reads
    return found / (num_steps - warm)


class _Reads(TorchDispatchMode):
    """Counts what would wait for a GPU, on a CPU by the operations that read a value."""

    _OPERATIONS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.num_reads, self._counts = 0, False

    def start(self, device: str) -> None:
        self._counts = True
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")

    def stop(self, device: str) -> None:
        self._counts = False
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if self._counts and func.overloadpacket.__name__ in self._OPERATIONS:
            self.num_reads += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_noise() -> Iterator[None]:
    """No step measures the noise scale inside."""
    before, loop.measures_noise_at = loop.measures_noise_at, lambda *_, **__: False
    try:
        yield
    finally:
        loop.measures_noise_at = before


def _ours(job: Job, **changes: Any) -> float:
    """Examples a second of our loop in the second half of its steps."""
    times: list[float] = []
    how = recipe(
        job.global_batch_size, 2 * job.num_steps, micro_batch_size=job.micro_batch_size,
        **{"precision": job.precision, **changes},
    )  # fmt: skip
    evaluation = Evaluation(every_steps=job.num_steps, num_examples=2)
    found = run(
        job.task(), how, job.device, evaluation,
        on_report=lambda _: times.append(time.perf_counter()),
    )  # fmt: skip
    middle, last = found.measured[-2:]
    evaluating = (last.evaluation_seconds or 0) - (middle.evaluation_seconds or 0)
    return (last.examples - middle.examples) / (times[-1] - times[-2] - evaluating)


def _job(device: str, global_batch_size: int, num_steps: int) -> Job:
    """125 million weights at 1,024 tokens; on a CPU something small."""
    if device == "cpu":
        return Job(device, "SMALL", 24, 200, 64, global_batch_size, 4, num_steps)
    large = torch.cuda.get_device_properties(0).total_memory > 60 * 2**30
    micro = min(global_batch_size, 32 if large else 8)
    size = ("LARGE", 1024, LARGE_VOCABULARY, 1024)
    return Job(device, *size, global_batch_size, micro, num_steps)


def throughput(device: str) -> Finding:
    """Our loop, a bare one and HF Trainer in turn, at three batch sizes."""
    batches = {8: (20, 0.90), 64: (6, 0.95), 512: (2, 0.98)}
    if device == "cpu":
        batches = {4: (4, 0.90), 8: (3, 0.95), 16: (2, 0.98)}
    jobs = {size: _job(device, size, num_steps) for size, (num_steps, _) in batches.items()}
    by_hf = dict(zip(jobs, huggingface(list(jobs.values()), seconds=150), strict=True))
    results: list[Result] = []
    for size, job in jobs.items():
        turns = [(_ours(job), bare(job)) for _ in range(2)]
        own, other = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
        results += [
            Result(f"B = {size}, over bare", own / other, "at least", batches[size][1]),
            Result(f"B = {size}, over HF Trainer", own / by_hf[size], "at least", 1.0),
        ]
    return judged(*results) if device == "cuda" else not_judged(A_CPU, *results)


def tf32(device: str) -> Finding:
    """The same training in tf32 and fp32."""
    if device != "cuda":
        return not_judged("a CPU has no tf32")
    if torch.cuda.get_device_capability() < (8, 0):
        return not_judged("a GPU before Ampere has no tf32")
    job = _job(device, 8, 8)
    ratio = _ours(job, precision="tf32") / _ours(job, precision="fp32")
    return judged(Result("tf32 over fp32", ratio, "at least", 2.0))


def noise_cost(device: str) -> Finding:
    """The share of throughput that measuring the noise scale takes."""

    def without(job: Job) -> float:
        with _without_noise():
            return _ours(job)

    return _cost(device, "measuring the noise scale", 0.025, _ours, without)


def averaging_cost(device: str) -> Finding:
    """The share of throughput that averaging the weights takes."""
    half_life = {"weight_average_half_life_examples": 1e4}

    def averaged(job: Job) -> float:
        return _ours(job, **half_life)

    return _cost(device, "averaging", 0.01, averaged, _ours)


def _cost(
    device: str,
    name: str,
    bound: float,
    dear: Callable[[Job], float],
    cheap: Callable[[Job], float],
) -> Finding:
    """1 − the ratio of two speeds, which take turns."""
    job = _job(device, 64, 12) if device == "cuda" else _job(device, 8, 6)
    turns = [(dear(job), cheap(job)) for _ in range(2)]
    first, second = (statistics.median(speeds) for speeds in zip(*turns, strict=True))
    result = Result(f"share of throughput for {name}", 1 - first / second, "at most", bound)
    return judged(result) if device == "cuda" else not_judged(A_CPU, result)


def saving(device: str) -> Finding:
    """The share of a run's time that is neither a step nor an evaluation, saving all it may."""
    size, length, least = ("LARGE", 256, 300) if device == "cuda" else ("SMALL", 24, 60)
    trained = language(size, length=length).task
    how = partial(recipe, 16, micro_batch_size=16, precision="bf16")
    pace = run(trained, how(20), device, NO_EVALUATION).last.seconds / 20
    num_steps = max(least, math.ceil(SAVING_SECONDS / pace))
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(folder, keep=2)
        supervision = Supervision(checkpoints=store, checkpoint_seconds=0.5)
        found = run(
            trained, how(num_steps), device, NO_EVALUATION, supervision,
            on_report=lambda _: times.append(time.perf_counter()),
        )  # fmt: skip
        num_saved = len(store.steps())
    counted = found.last.seconds + (found.last.evaluation_seconds or 0)
    counted -= found.measured[0].evaluation_seconds or 0
    share = 1 - counted / (times[-1] - times[0])
    return judged(
        Result("share of time", share, "at most", 0.02),
        Result("checkpoints", num_saved, "at least", 1),
    )


def _counted_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _why_no_compiler(device: str) -> str | None:
    found = any(shutil.which(name) for name in ("g++", "clang++", "c++"))
    if device == "cpu" and not found:
        return "there is no C++ compiler"
    return None


def compiling(device: str) -> Finding:
    """Compiled blocks against eager ones; a second trial compiles nothing."""
    if why := _why_no_compiler(device):
        return not_judged(why)
    job = _job(device, 8, 12 if device == "cuda" else 4)
    _ours(job, compile=True)
    before = _counted_graphs()
    compiled = _ours(job, compile=True)
    graphs = Result(
        "graphs compiled in the second trial", _counted_graphs() - before, "equal to", 0
    )
    ratio = Result("compiled over eager", compiled / _ours(job), "at least", 1.15)
    return judged(ratio, graphs) if device == "cuda" else _judge_graphs(ratio, graphs)


def _judge_graphs(ratio: Result, graphs: Result) -> Finding:
    """On a CPU the number of graphs is a GPU's, and the speed is not."""
    found = judged(graphs)
    if found.passed:
        return not_judged(A_CPU, ratio, graphs)
    return found


def compiled_sharpness(device: str) -> Finding:
    """A compiled trial's sharpness is that of one that is not."""
    if why := _why_no_compiler(device):
        return not_judged(why)
    task = language("SMALL", num_train=64).task
    evaluation = Evaluation(every_steps=5, num_examples=16, sharpness=Sharpness(num_examples=16))
    ends: list[Run] = [
        run(task, replace(recipe(16, 10, compile=compiles)), device, evaluation)
        for compiles in (True, False)
    ]
    found, expected = (end.last.sharpness or math.nan for end in ends)
    distance = abs(found / expected - 1)
    return judged(Result("distance from the eager one", distance, "at most", 0.05))
