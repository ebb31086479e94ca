"""A checkpoint that can be read and is wrong is passed over for the one before."""

import copy
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training import supervision as supervision_module
from scaling.training.checkpoint import CheckpointStore
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import changed, part_of_speech, pronunciation, recipe
from tests.together import case, on_workers
from tests.training.test_checkpoint import run, without_time

EVALUATION = Evaluation(every_steps=2, num_examples=20)
HOW = changed(recipe(8, 1e-2, 8), clip_percentile=50.0, weight_average_half_life_examples=50.0)
SAVED_AFTER = (3, 6)  # steps


@pytest.fixture(scope="module", autouse=True)
def checks_often() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervision_module, "CHECK_SECONDS", 0.0)
        yield


def leave_two_checkpoints(
    task: Task, how: Recipe, folder: str, workers: Workers | None = None
) -> None:
    """Train until after the second checkpoint."""
    for step in SAVED_AFTER:
        asked = iter(["continue"] * (step - 1 if step == SAVED_AFTER[0] else 2))
        supervision = Supervision(
            checkpoints=CheckpointStore(folder, keep=2),
            checkpoint_seconds=1e9,
            directive=lambda asked=asked: next(asked, "pause"),  # type: ignore[arg-type]
        )
        outcome, _ = run(task, how, supervision, EVALUATION, workers)
        assert outcome.status == "paused"
    (workers or Workers()).sum(0.0)  # the first worker writes last
    assert CheckpointStore(folder, keep=2).steps() == list(SAVED_AFTER)


def resumed(
    task: Task, how: Recipe, folder: str, workers: Workers | None = None, keep: int = 2
) -> tuple[list[Measurement], list[dict[str, Any]]]:
    incidents: list[Any] = []
    supervision = Supervision(
        checkpoints=CheckpointStore(folder, keep=keep),
        checkpoint_seconds=1e9,
        note=incidents.append,
    )
    outcome, measurements = run(task, how, supervision, EVALUATION, workers)
    assert outcome.status == "done"
    return measurements, incidents


@pytest.fixture(scope="module")
def task() -> Any:
    return prepare_task(part_of_speech(), EVALUATION)


def first(tensors: Mapping[str, Any]) -> str:
    return next(name for name, value in tensors.items() if value.ndim == 2)


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """The same state, changed in place."""

    def changed(state: dict[str, Any]) -> Any:
        change(state)
        return state

    return changed


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(state: Any) -> None:
        *outer, last = path
        for key in outer:
            state = state[key]
        state[last] = value

    return edit(change)


def without(*path: Any) -> Callable[[dict[str, Any]], Any]:
    def change(state: Any) -> None:
        *outer, last = path
        for key in outer:
            state = state[key]
        del state[last]

    return edit(change)


def fill_weight(value: float) -> Callable[[dict[str, Any]], Any]:
    return edit(lambda state: state["model"][first(state["model"])].view(-1)[3:4].fill_(value))


def with_measured(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Any], Any]:
    def changed(state: dict[str, Any]) -> None:
        measured = json.loads(state["measured"])
        state["measured"] = json.dumps(change(measured) or measured)

    return edit(changed)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda state: [state], "a list"),
    "a tensor": (lambda _: torch.ones(3), "a tensor"),
    "a number": (lambda _: 7, "7"),
    "nothing": (lambda _: None, "cannot be read"),
    "an empty mapping": (lambda _: {}, "missing"),
    "another recipe": (put("recipe", value="{}"), "another recipe"),
    "another precision": (put("precision", value="bf16"), "another precision"),
    "another strategy": (put("strategy", value="tp"), "another strategy"),
    "an unknown key": (put("more", value=1), "more is unknown"),
    "no weights": (put("model", value={}), "missing"),
    "weights as a list": (put("model", value=[]), "model is a list"),
    "a weight less": (edit(lambda s: s["model"].pop(first(s["model"]))), "is missing"),
    "a weight more": (put("model", "more", value=torch.ones(2)), "model.more is unknown"),
    "another shape": (
        edit(lambda s: s["model"].update({first(s["model"]): torch.ones(3, 3)})), "has shape",
    ),
    "another type": (
        edit(lambda s: s["model"].update({k: v.half() for k, v in s["model"].items()})),
        "torch.float16",
    ),
    "weights as lists": (
        edit(lambda s: s["model"].update({k: v.tolist() for k, v in s["model"].items()})),
        "not a tensor",
    ),
    "a weight of NaN": (fill_weight(float("nan")), "not finite"),
    "an infinite weight": (fill_weight(float("inf")), "not finite"),
    "an optimizer as a list": (put("optimizer", value=[]), "optimizer"),
    "no moments": (put("optimizer", "state", value={}), "optimizer.state"),
    "one weight without moments": (without("optimizer", "state", 0), "optimizer.state"),
    "a moment less": (without("optimizer", "state", 1, "exp_avg_sq"), "exp_avg_sq is missing"),
    "a moment of another shape": (
        put("optimizer", "state", 1, "exp_avg", value=torch.ones(2)), "exp_avg has shape",
    ),
    "a moment of NaN": (
        edit(lambda s: s["optimizer"]["state"][1]["exp_avg"].fill_(float("nan"))), "not finite",
    ),
    "groups less": (edit(lambda s: s["optimizer"]["param_groups"].pop()), "items"),
    "other groups": (
        edit(lambda s: s["optimizer"]["param_groups"][0]["params"].reverse()), "param_groups",
    ),
    "another decay": (
        put("optimizer", "param_groups", 0, "weight_decay", value=0.5), "weight_decay",
    ),
    "an average of NaN": (
        edit(lambda s: s["weight_average"]["average"][0].fill_(float("nan"))), "not finite",
    ),
    "an average less": (edit(lambda s: s["weight_average"]["average"].pop()), "items"),
    "no average": (put("weight_average", value=None), "weight_average"),
    "norms of NaN": (edit(lambda s: s["clipping"].append(float("nan"))), "clipping"),
    "norms as text": (put("clipping", value="many"), "clipping"),
    "progress as a list": (put("progress", value=[]), "progress"),
    "progress without examples": (without("progress", "examples"), "progress.examples"),
    "progress of another step": (put("progress", "step", value=1), "progress.step"),
    "examples as text": (put("progress", "examples", value="48"), "progress.examples"),
    "seconds of NaN": (put("progress", "seconds", value=float("nan")), "progress.seconds"),
    "noise of another length": (put("progress", "noise", value=(1.0,)), "progress.noise"),
    "no worker": (put("per_worker", value=[]), "per_worker"),
    "no random numbers": (put("per_worker", 0, value=torch.ones(2).double()), "per_worker"),
    "other random numbers": (
        edit(lambda s: s["per_worker"][0][1:].fill_(255.0)), "random numbers",
    ),
    "no micro-batch": (put("micro_batch_size", value=0), "micro_batch_size"),
    "measured as a mapping": (with_measured(lambda _: {"step": 0}), "measured"),
    "measured without steps": (with_measured(lambda m: m[0].pop("step") and m), "measured"),
    "measured unknown": (with_measured(lambda m: m[0].update(more=1)), "measured"),
    "measured later": (with_measured(lambda m: m[-1].update(step=99)), "measured"),
    "measured no JSON": (put("measured", value="{"), "measured"),
    "incidents as numbers": (put("incidents", value="[1]"), "incidents"),
}  # fmt: skip


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    leave_two_checkpoints(task, HOW, str(folder))
    return folder


@pytest.fixture(scope="module")
def expected(task: Task) -> list[Measurement]:
    return without_time(run(task, HOW, Supervision(), EVALUATION)[1])


def assert_same(measurements: list[Measurement], expected: list[Measurement]) -> None:
    """The same but for time; says where they differ."""
    found = without_time(measurements)
    assert [m.step for m in found] == [m.step for m in expected]
    for one, other in zip(found, expected, strict=True):
        assert asdict(one) == asdict(other)


def copied(interrupted: Path, folder: Path, changed: Callable[[Any], Any], *steps: int) -> None:
    for file in interrupted.iterdir():
        state = torch.load(file, weights_only=True)
        if int(file.stem.removeprefix("step-")) in steps:
            state = changed(state)
        torch.save(state, folder / file.name)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_checkpoint_is_passed_over_for_the_one_before(
    what: str, interrupted: Path, task: Task, expected: list[Measurement], tmp_path: Path
) -> None:
    changed, cause = WRONG[what]
    copied(interrupted, tmp_path, changed, 6)
    measurements, incidents = resumed(task, HOW, str(tmp_path))
    assert_same(measurements, expected)
    assert [incident["kind"] for incident in incidents[-2:]] == [
        "checkpoint_passed_over",
        "resumed",
    ]
    assert incidents[-2]["step"] == 6
    assert cause in incidents[-2]["cause"]
    assert "\n" not in incidents[-2]["cause"]
    assert incidents[-1]["step"] == 3


def test_where_all_are_wrong_the_run_starts_at_its_first_step(
    interrupted: Path, task: Task, expected: list[Measurement], tmp_path: Path
) -> None:
    copied(interrupted, tmp_path, fill_weight(float("nan")), 3, 6)
    measurements, incidents = resumed(task, HOW, str(tmp_path))
    assert_same(measurements, expected)
    assert [(i["kind"], i["step"]) for i in incidents] == [
        ("checkpoint_passed_over", 6),
        ("checkpoint_passed_over", 3),
    ]


def test_a_right_one_is_gone_on_from(
    interrupted: Path, task: Task, expected: list[Measurement], tmp_path: Path
) -> None:
    copied(interrupted, tmp_path, lambda state: state)
    measurements, incidents = resumed(task, HOW, str(tmp_path))
    assert_same(measurements, expected)
    assert incidents[-1] == {"kind": "resumed", "step": 6}
    assert "checkpoint_passed_over" not in {incident["kind"] for incident in incidents}


def test_a_right_one_may_have_measured_an_overflow(
    interrupted: Path, task: Task, tmp_path: Path
) -> None:
    copied(interrupted, tmp_path, with_measured(lambda m: m[-1].update(grad_norm=math.inf)), 6)
    _, incidents = resumed(task, HOW, str(tmp_path))
    assert incidents[-1] == {"kind": "resumed", "step": 6}


def test_what_was_passed_over_does_not_push_out_what_comes_after(
    interrupted: Path, task: Task, tmp_path: Path
) -> None:
    copied(interrupted, tmp_path, lambda _: [], 3, 6)
    store = CheckpointStore(str(tmp_path), keep=1)
    asked = iter(["continue"] * 3)
    supervision = Supervision(
        checkpoints=store,
        checkpoint_seconds=1e9,
        directive=lambda: next(asked, "pause"),  # type: ignore[arg-type]
    )
    outcome, _ = run(task, HOW, supervision, EVALUATION)
    assert outcome.status == "paused"
    assert store.steps() == [4]
    _, incidents = resumed(task, HOW, str(tmp_path), keep=1)
    assert incidents[-1] == {"kind": "resumed", "step": 4}
    assert sum(i["kind"] == "checkpoint_passed_over" for i in incidents) == 2  # kept on record


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "sgd"},
        {"optimizer": "lamb"},
        {"optimizer": "lars", "momentum": 0.9, "peak_lr": 3.0},
        {"optimizer": "adafactor"},
        {"optimizer": "lion", "peak_lr": 1e-3},
        {"optimizer": "muon", "momentum": 0.95},
        {"precision": "fp16"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_optimizer_knows_its_own_moments(
    changes: dict[str, Any], task: Task, tmp_path: Path
) -> None:
    how = changed(recipe(8, 1e-2, 8), **changes)
    whole = without_time(run(task, how, Supervision(), EVALUATION)[1])
    leave_two_checkpoints(task, how, str(tmp_path))
    newest = tmp_path / "step-000000000006.pt"
    state = torch.load(newest, weights_only=True)
    if changes != {"optimizer": "sgd"}:
        assert state["optimizer"]["state"]
        moments = next(iter(state["optimizer"]["state"].values()))
        moments.pop(next(iter(moments)))
    else:
        state["model"].clear()
    torch.save(state, newest)
    measurements, incidents = resumed(task, how, str(tmp_path))
    assert_same(measurements, whole)
    assert incidents[-1] == {"kind": "resumed", "step": 3}
    # All of them wrong: the optimizer begins as new.
    for file in tmp_path.glob("*.pt"):
        torch.save({}, file)
    measurements, incidents = resumed(task, how, str(tmp_path))
    assert_same(measurements, whole)
    assert "resumed" not in {incident["kind"] for incident in incidents}


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(seed, marks=[pytest.mark.slow, pytest.mark.ci] if seed >= 8 else [])
        for seed in range(40)
    ],
)
def test_bytes_that_are_no_checkpoint_are_passed_over(
    seed: int, interrupted: Path, task: Task, expected: list[Measurement], tmp_path: Path
) -> None:
    copied(interrupted, tmp_path, lambda state: state)
    newest = tmp_path / "step-000000000006.pt"
    content = bytearray(newest.read_bytes())
    generator = torch.Generator().manual_seed(seed)

    def drawn(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    match seed % 4:
        case 0:
            content = content[: drawn(len(content))]
        case 1:
            start = drawn(len(content) - 64)
            content[start : start + 64] = bytes(drawn(256) for _ in range(64))
        case 2:
            content = bytearray(bytes(drawn(256) for _ in range(500)))
        case _:
            legacy = io.BytesIO()
            torch.save({"a": torch.ones(3)}, legacy, _use_new_zipfile_serialization=False)
            content = bytearray(legacy.getvalue())
            content[drawn(len(content))] ^= 1 << drawn(8)
    newest.write_bytes(bytes(content))
    measurements, incidents = resumed(task, HOW, str(tmp_path))
    assert_same(measurements, expected)
    # 64 bytes in the middle may be padding, which nothing reads.
    assert incidents[-1]["step"] == 3 or seed % 4 == 1


def pass_over_on_two(workers: Workers, folder: str, strategies: tuple[str, ...]) -> None:
    supervision_module.CHECK_SECONDS = 0.0
    for strategy in strategies:
        with case(strategy):
            pass_over(workers, f"{folder}/{strategy}", strategy)


def pass_over(workers: Workers, path: str, strategy: str) -> None:
    """A part that is wrong, whatever it is, lets all workers go on from the checkpoint before."""
    task: Any = prepare_task(pronunciation(), EVALUATION)
    how = recipe(
        8, 1e-2, 10, world_size=2, micro_batch_size=4, strategy=strategy,
        weight_average_half_life_examples=50.0,
    )  # fmt: skip
    whole = without_time(run(task, how, Supervision(), EVALUATION, workers)[1])
    leave_two_checkpoints(task, how, path, workers)
    store, state = CheckpointStore(path, keep=2), None
    for wrong in (spoilt, lambda state: [state], lambda _: {}):
        workers.sum(0.0)
        if workers.rank == 1:  # of the parts one is enough
            state = store.read(6, 1)
            torch.save(wrong(copy.deepcopy(state)), f"{path}/step-000000000006.worker-00001.pt")
        workers.sum(0.0)
        measurements, incidents = resumed(task, how, path, workers)
        assert_same(measurements, whole)
        assert [(i["kind"], i["step"]) for i in incidents[-2:]] == [
            ("checkpoint_passed_over", 6), ("resumed", 3),
        ]  # fmt: skip
        workers.sum(0.0)
        if workers.rank == 1:
            torch.save(state, f"{path}/step-000000000006.worker-00001.pt")
    workers.sum(0.0)
    measurements, incidents = resumed(task, how, path, workers)
    assert_same(measurements, whole)
    assert incidents[-1] == {"kind": "resumed", "step": 6}


def spoilt(state: Any) -> Any:
    """The same with NaN in every tensor of weights."""
    for tensor in tensors_of(state.get("model", state.get("zero"))):
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    return state


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value
    return [t for item in inner for t in tensors_of(item)] if isinstance(
        value, Mapping | list | tuple
    ) else []  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("strategies", [("fsdp", "tp"), ("zero1", "zero2", "zero3")])
def test_a_wrong_part_is_passed_over_by_all_workers(
    strategies: tuple[str, ...], tmp_path: Path
) -> None:
    if "zero1" in strategies:
        pytest.importorskip("deepspeed")
    on_workers(pass_over_on_two, str(tmp_path), strategies)
