"""fsdp trains as ddp does, is measured alike, and goes on from its checkpoints bit for bit."""

from pathlib import Path
from typing import Any

import pytest

from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.spec.workloads import Workload
from scaling.tasks.prepare import prepare_task
from scaling.training import supervision as supervision_module
from scaling.training.checkpoint import CheckpointStore, newest
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import changed, part_of_speech, pronunciation, recipe
from tests.together import case, on_workers
from tests.training.adapted import adapted
from tests.training.test_checkpoint import DROPOUT, paused_often, run, without_time

EVALUATION = Evaluation(every_steps=4, num_examples=51)  # an odd number: uneven parts
WITH_SHARPNESS = EVALUATION.model_copy(update={"sharpness": Sharpness(num_examples=9)})


def train_on_two(workers: Workers, folder: str) -> None:
    supervision_module.CHECK_SECONDS = 0.0
    how = recipe(
        16, 1e-2, 12, world_size=2, micro_batch_size=4, clip_norm=0.3,
        weight_average_half_life_examples=100.0,
    )  # fmt: skip
    task = prepare_task(pronunciation(), EVALUATION)
    _, by_ddp = run(task, how, Supervision(), WITH_SHARPNESS, workers)
    with case("fsdp"):
        cut = changed(how, strategy="fsdp")
        _, by_fsdp = run(task, cut, Supervision(), WITH_SHARPNESS, workers)
        assert by_fsdp[-1].sharpness is not None
        assert by_fsdp[-1].grad_noise_scale is not None
        assert by_fsdp[-1].clipped_fraction
        for ours, theirs in zip(by_fsdp, by_ddp, strict=True):
            expected = without_time([theirs])[0].scalars()
            assert without_time([ours])[0].scalars() == pytest.approx(expected, rel=1e-3)

    common = how
    dropout = part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model})
    cases: list[tuple[str, Workload, dict[str, Any]]] = [
        ("fp16", pronunciation(), {"precision": "fp16"}),
        ("muon", pronunciation(), {"optimizer": "muon", "momentum": 0.95}),
        ("lora", adapted("text_classification", f"{folder}/encoder"), {"lora_rank": 3}),
        (
            "dropout", dropout,
            {"activation_checkpointing": True, "optimizer": "sgd", "momentum": 0.9},
        ),
        ("lamb", pronunciation(), {"optimizer": "lamb"}),
        ("adafactor", pronunciation(), {"optimizer": "adafactor"}),
    ]  # fmt: skip
    for name, workload, changes in cases:
        with case("fsdp", name):
            task = prepare_task(workload, EVALUATION)
            path = f"{folder}/{name}"
            how = changed(common, strategy="fsdp", num_steps=8, **changes)
            _, expected = run(task, how, Supervision(), EVALUATION, workers)
            starts, measurements, _ = paused_often(
                task, how, f"{folder}/{name}", EVALUATION, workers
            )
            assert starts > 2
            assert without_time(measurements) == without_time(expected)
            check_parts(path, measurements[-1].num_trained_parameters, workers)


def check_parts(folder: str, num_trained: float | None, workers: Workers) -> None:
    """Each worker wrote half of the weights; parts of two attempts are not read as one."""
    store = CheckpointStore(folder, keep=2)
    assert num_trained is not None
    older, newer = store.steps()
    assert len(list(Path(folder).glob("*.pt"))) == 4
    state = newest(store, workers, in_parts=True)
    assert state is not None
    held = sum(average.numel() for average in state["weight_average"]["average"])
    assert 0.3 * num_trained < held < 0.7 * num_trained
    assert workers.sum(held) == [num_trained]
    if workers.rank == 1:
        other = store.read(older, 1)
        assert other is not None
        store.save(newer, other, 1)
    workers.sum(0.0)
    state = newest(store, workers, in_parts=True)
    assert state is not None
    assert state["progress"]["step"] == older


@pytest.mark.ci
@pytest.mark.slow
def test_fsdp_trains_like_ddp_and_goes_on_exactly(tmp_path: Path) -> None:
    adapted("text_classification", str(tmp_path / "encoder"))  # before two workers write it
    on_workers(train_on_two, str(tmp_path))


# --- matrices cut among workers that compute together -------------------------------------------


def measured_by_tp(workers: Workers, folder: str = "") -> list[list[dict[str, Any]]]:
    """What runs under several kinds of clipping and precision measure, but for time.

    With a folder for checkpoints they also go on exactly from them.
    """
    task = prepare_task(pronunciation(), EVALUATION)
    found: list[list[dict[str, Any]]] = []
    for name, changes in (
        ("muon", {"optimizer": "muon", "momentum": 0.95, "clip_norm": 0.3}),
        ("adafactor", {"optimizer": "adafactor", "clip_norm": 0.3}),
        ("norm", {"clip_norm": 0.3, "weight_average_half_life_examples": 100.0}),
        ("value", {"clip_value": 0.01, "activation_checkpointing": True}),
        ("percentile", {"clip_percentile": 50.0, "optimizer": "lamb"}),
        ("half", {"precision": "bf16", "optimizer": "sgd", "momentum": 0.9, "clip_norm": 0.3}),
    ):
        how = recipe(
            16, 1e-2, 8, world_size=workers.world_size, micro_batch_size=4, strategy="tp",
            **changes,
        )  # fmt: skip
        with case("tp", name):
            evaluation = WITH_SHARPNESS if name == "norm" else EVALUATION
            _, measured = run(task, how, Supervision(), evaluation, workers)
            found.append([m.scalars() for m in without_time(measured)])
            if folder:
                path = f"{folder}/{name}"
                starts, again, _ = paused_often(task, how, path, evaluation, workers)
                assert starts > 2
                assert without_time(again) == without_time(measured)
                assert len(list(Path(path).glob("*.pt"))) == 4
    return found


def cut_on_two(workers: Workers, folder: str) -> list[list[dict[str, Any]]]:
    supervision_module.CHECK_SECONDS = 0.0
    return measured_by_tp(workers, folder)


@pytest.mark.ci
@pytest.mark.slow
def test_tp_trains_like_one_worker_and_goes_on_exactly(tmp_path: Path) -> None:
    alone = measured_by_tp(Workers())
    on_two = on_workers(cut_on_two, str(tmp_path))
    # bf16 rounds partial sums, of which two workers have others.
    rels = (1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 0.05)
    for together, one, rel in zip(on_two, alone, rels, strict=True):
        assert one[-1]["grad_noise_scale"] is not None
        assert one[-1]["norm_layer_noise_scale"] is not None
        assert one[-1]["clipped_fraction"]
        for ours, theirs in zip(together, one, strict=True):
            for scalars in (ours, theirs):
                scalars.pop("peak_flops_per_second", None)  # of two workers
            assert ours == pytest.approx(theirs, rel=rel)


# --- a batch that grows -------------------------------------------------------------------------

SAME = ("examples", "tokens", "lr", "step_loss", "grad_norm", "clipped_fraction", "validation_loss")


def growing(workers: Workers, **changes: Any) -> list[list[float]]:
    """What does not depend on the number of workers, of a run whose batch grows twice."""
    how = recipe(
        8, 1e-2, 12, world_size=workers.world_size, micro_batch_size=4, clip_norm=0.3,
        batch_ramp_at_examples=(32, 96), weight_average_half_life_examples=50.0, **changes,
    )  # fmt: skip
    task = prepare_task(pronunciation(), EVALUATION)
    _, measured = run(task, how, Supervision(), EVALUATION, workers)
    return [[getattr(m, name) for name in SAME] for m in measured if m.step]


def grow_on_two(workers: Workers) -> list[list[list[float]]]:
    return [growing(workers, strategy=strategy) for strategy in ("ddp", "fsdp")]


@pytest.mark.ci
@pytest.mark.slow
def test_a_growing_batch_trains_on_two_workers_as_on_one() -> None:
    alone = growing(Workers())
    assert [row[0] for row in alone] == [32, 96, 224]  # after 4 steps of 8, of 16, of 32
    for strategy, together in zip(("ddp", "fsdp"), on_workers(grow_on_two), strict=True):
        for ours, theirs in zip(together, alone, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4), strategy
