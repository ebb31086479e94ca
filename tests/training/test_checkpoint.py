"""A run that is interrupted goes on as if it had not been, bit for bit."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.phases import Asha, EarlyStopping
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training import supervision as supervision_module
from scaling.training.checkpoint import CheckpointStore, remove_checkpoints
from scaling.training.loop import Outcome, train
from scaling.training.parallel.workers import Workers
from scaling.training.progress import Progress, SinceMeasured
from scaling.training.supervision import Directive, Supervision
from tests.recipes import EVALUATION, changed, part_of_speech, pronunciation, quadratic, recipe
from tests.together import on_workers

CPU = torch.device("cpu")
DROPOUT = {
    "architecture": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "config": {"hidden_dropout_prob": 0.1},
}  # fmt: skip


THROUGHPUT = (
    "examples_per_second", "tokens_per_second", "targets_per_second", "model_flop_utilization",
    "flops_per_example",
)  # fmt: skip


OTHER_SECONDS = ("evaluation_seconds", "warm_up_seconds")


def without_time(measurements: list[Measurement]) -> list[Measurement]:
    return [
        replace(m, seconds=0.0, **dict.fromkeys(OTHER_SECONDS + THROUGHPUT)) for m in measurements
    ]


def run(
    task: Task,
    how: Recipe,
    supervision: Supervision,
    evaluation: Evaluation = EVALUATION,
    workers: Workers | None = None,
    decide: Callable[[Measurement, bool], Directive] | None = None,
) -> tuple[Outcome, list[Measurement]]:
    measurements: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measurements.append(measurement)
        return decide(measurement, at_rung) if decide is not None else "continue"

    outcome = train(task, how, evaluation, workers or Workers(), report, supervision)
    return outcome, measurements


def paused_often(
    task: Task, how: Recipe, folder: str, evaluation: Evaluation, workers: Workers | None = None
) -> tuple[int, list[Measurement], list[dict[str, Any]]]:
    """Train with a pause at every other step; returns the starts, measurements and incidents."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(supervision_module, "CHECK_SECONDS", 0.0)
        return _paused_often(task, how, folder, evaluation, workers)


def _paused_often(
    task: Task, how: Recipe, folder: str, evaluation: Evaluation, workers: Workers | None
) -> tuple[int, list[Measurement], list[dict[str, Any]]]:
    for starts in itertools.count(1):
        asked = itertools.count(1)
        incidents: list[Any] = []
        supervision = Supervision(
            checkpoints=CheckpointStore(folder, keep=2),
            checkpoint_seconds=1e9,
            directive=lambda asked=asked: "pause" if next(asked) % 2 == 0 else "continue",
            note=incidents.append,
        )
        outcome, measurements = run(task, how, supervision, evaluation, workers)
        if outcome.status != "paused":
            return starts, measurements, incidents
    raise AssertionError


@pytest.fixture
def checks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision_module, "CHECK_SECONDS", 0.0)


@pytest.mark.usefixtures("checks_often")
@pytest.mark.parametrize(
    ("workload", "changes"),
    [
        (pronunciation(), {"clip_norm": 1.0, "weight_average_half_life_examples": 100.0}),
        (pronunciation(), {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine"}),
        (part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model}), {}),
        (quadratic(num_chains=10), {"optimizer": "sgd", "peak_lr": 0.1}),
        (
            pronunciation(),
            {"batch_ramp_at_examples": (60, 150), "weight_average_half_life_examples": 100.0},
        ),
        (pronunciation(), {"clip_percentile": 30.0, "clip_history_steps": 5}),
        (pronunciation(), {"optimizer": "lamb"}),
        (pronunciation(), {"optimizer": "lars", "momentum": 0.9, "peak_lr": 3.0}),
        (pronunciation(), {"optimizer": "adafactor"}),
        (pronunciation(), {"optimizer": "lion", "peak_lr": 1e-3}),
        (pronunciation(), {"optimizer": "muon", "momentum": 0.95}),
    ],
    ids=[
        "averaged",
        "momentum and cosine",
        "dropout",
        "noisy quadratic",
        "batch ramp",
        "percentile",
        "lamb",
        "lars",
        "adafactor",
        "lion",
        "muon",
    ],
)
def test_interrupted_equals_uninterrupted(
    workload: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    task: Any = prepare_task(workload, EVALUATION)
    how = changed(recipe(16, 1e-2, 14), **changes)
    evaluation = Evaluation(growth_ratio=1.4, num_examples=50)
    whole, expected = run(task, how, Supervision(), evaluation)
    starts, measurements, incidents = paused_often(task, how, str(tmp_path), evaluation)
    assert starts > 5
    assert whole.status == "done"
    assert without_time(measurements) == without_time(expected)
    assert [incident["kind"] for incident in incidents] == ["resumed"] * (starts - 1)
    seconds = [m.seconds for m in measurements]
    assert seconds == sorted(seconds)
    assert len(list(tmp_path.glob("step-*.pt"))) == 2
    assert not list(tmp_path.glob(".*"))  # no half a file


def train_on_two(workers: Workers, folder: str) -> None:
    supervision_module.CHECK_SECONDS = 0.0
    workload = part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model})
    task: Any = prepare_task(workload, EVALUATION)
    how = recipe(8, 1e-2, 12, world_size=2)
    _, expected = run(task, how, Supervision(), EVALUATION, workers)
    starts, measurements, _ = paused_often(task, how, folder, EVALUATION, workers)
    assert starts > 3
    assert without_time(measurements) == without_time(expected)


def test_two_workers_go_on_with_their_own_dropout(tmp_path: Path) -> None:
    on_workers(train_on_two, str(tmp_path))


@pytest.mark.parametrize("cut", ["truncated", "not a checkpoint"])
def test_an_unreadable_checkpoint_is_passed_over(cut: str, tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=2)
    for step in (1, 2):
        store.save(step, {"step": step, "weights": torch.ones(1000)})
    newest = tmp_path / "step-000000000002.pt"
    newest.write_bytes(newest.read_bytes()[:500] if cut == "truncated" else b"no")
    task: Any = prepare_task(quadratic(num_chains=3), EVALUATION)
    assert store.read(2) is None
    first = store.read(1)
    assert first is not None
    assert first["step"] == 1
    # One of another recipe is not gone on from.
    store.save(3, {"recipe": "another"})
    _, measurements = run(task, recipe(4, 0.1, 3), Supervision(checkpoints=store))
    assert measurements[0].step == 0


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "here"), keep=1)
    store.save(1, {"step": 1})
    (tmp_path / "here/step-000000000002.pt").mkdir()
    with pytest.raises(OSError, match="directory"):
        store.save(2, {"step": 2})
    assert store.read(1) == {"step": 1}
    assert not list((tmp_path / "here").glob(".*"))


def test_checkpoints_under_a_url() -> None:
    url = "memory://studies/one/trial"
    store = CheckpointStore(url, keep=2)
    assert store.steps() == []
    for step in range(4):
        store.save(step, {"step": step})
    assert store.steps() == [2, 3]
    assert store.read(3) == {"step": 3}
    remove_checkpoints(url)
    assert not fsspec.filesystem("memory").exists("/studies/one/trial")
    remove_checkpoints(url)


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    store = CheckpointStore(str(tmp_path), keep=1)
    store.save(1, {"step": Harm()})
    assert store.read(1) is None
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "rule",
    [
        Asha(rule="asha", first_rung_examples=33, reduction_factor=2.0),
        Asha(rule="asha", first_rung_tokens=250, reduction_factor=2.0),
    ],
    ids=["examples", "tokens"],
)
def test_a_run_is_stopped_at_the_exact_step(rule: EarlyStopping) -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    rungs: list[Measurement] = []

    def decide(measurement: Measurement, at_rung: bool) -> Directive:
        if at_rung:
            rungs.append(measurement)
        return "stop" if len(rungs) == 2 else "continue"

    evaluation = Evaluation(every_steps=1000, num_examples=20)
    outcome, measurements = run(
        task, recipe(8, 1e-2, 40), Supervision(early_stopping=rule), evaluation, decide=decide
    )
    assert outcome.status == "stopped"
    assert measurements[1:] == rungs  # evaluated there and nowhere else
    if rule.first_rung_examples:
        assert [m.step for m in rungs] == [5, 9]  # the first steps past 33 and 66 examples
    else:
        for measurement, rung in zip(rungs, (250, 500), strict=True):
            assert measurement.tokens is not None
            per_step = measurement.tokens / measurement.step
            assert rung <= measurement.tokens < rung + 2 * per_step


def test_warming_up_of_both_attempts_counts() -> None:
    first, second = (Progress(SinceMeasured(torch.zeros(()))) for _ in range(2))
    first.warm_up_seconds, second.warm_up_seconds = 3.0, 1.0
    second.restore(first.state(), first.own_numbers(CPU), CPU)
    assert second.warm_up_seconds == 4.0


def test_memory_running_out_halves_the_micro_batch_and_changes_nothing_else() -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    how = recipe(12, 1e-2, 4)
    _, expected = run(task, how, Supervision())
    incidents: list[Any] = []
    limited: Any = _LimitedMemory(task, at_most=2)
    _, measurements = run(limited, how, Supervision(note=incidents.append))
    assert [i["micro_batch_size"] for i in incidents] == [6, 3, 1]
    # What the passes took that did not fit is no time of training.
    lost = limited.seconds_lost
    assert (measurements[-1].warm_up_seconds or 0) > lost > measurements[-1].seconds
    for got, wanted in zip(measurements, expected, strict=True):
        assert got.validation_loss == pytest.approx(wanted.validation_loss, abs=1e-5)
    none: Any = _LimitedMemory(task, at_most=0)
    with pytest.raises(RuntimeError, match="can't allocate"):
        run(none, how, Supervision())


class _LimitedMemory:
    """A task whose forward asks for more memory than there is above some examples."""

    def __init__(self, task: Task, at_most: int) -> None:
        self._task = task
        self._at_most = at_most
        self.seconds_lost = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss_sum(self, model: Any, batch: Any, **options: Any) -> torch.Tensor:
        if len(next(iter(batch.values()))) > self._at_most:
            time.sleep(0.2)
            self.seconds_lost += 0.2
            torch.empty(2**60, dtype=torch.uint8)  # torch's own error
        return self._task.loss_sum(model, batch, **options)
