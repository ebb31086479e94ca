"""fsdp trains as ddp does, is measured alike, and goes on from its checkpoints bit for bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from scaling.spec import Evaluation
from scaling.tasks.task import prepare_task
from scaling.training import supervision as supervision_module
from scaling.training.parallel import Workers
from scaling.training.supervision import Supervision
from tests.recipes import part_of_speech, pronunciation, recipe
from tests.training.test_checkpoint import DROPOUT, paused_often, run, without_time

EVALUATION = Evaluation(every_steps=4, num_examples=51)  # an odd number: uneven parts


def train_on_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    supervision_module.CHECK_SECONDS = 0.0
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    workers = Workers(rank, 2)
    how = recipe(
        16, 1e-2, 12, world_size=2, micro_batch_size=4, clip_norm=0.3,
        weight_average_half_life_examples=100.0,
    )  # fmt: skip
    task = prepare_task(pronunciation(), EVALUATION)
    _, by_ddp = run(task, how, Supervision(), EVALUATION, workers)
    _, by_fsdp = run(task, replace(how, strategy="fsdp"), Supervision(), EVALUATION, workers)
    assert by_fsdp[-1].grad_noise_scale is not None
    assert by_fsdp[-1].clipped_fraction
    for ours, theirs in zip(by_fsdp, by_ddp, strict=True):
        expected = without_time([theirs])[0].scalars()
        assert without_time([ours])[0].scalars() == pytest.approx(expected, rel=1e-3)

    dropout = part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model})
    for workload, changes in (
        (pronunciation(), {"precision": "fp16"}),
        (dropout, {"activation_checkpointing": True, "optimizer": "sgd", "momentum": 0.9}),
    ):
        task = prepare_task(workload, EVALUATION)
        how = replace(how, strategy="fsdp", num_steps=8, **changes)
        _, expected = run(task, how, Supervision(), EVALUATION, workers)
        place = f"{folder}/{workload.task}"
        starts, measurements, _ = paused_often(task, how, place, EVALUATION, workers)
        assert starts > 2
        assert without_time(measurements) == without_time(expected)
    torch.distributed.destroy_process_group()


def test_fsdp_trains_like_ddp_and_goes_on_exactly(tmp_path: Path, free_port: int) -> None:
    mp.spawn(train_on_two, args=(free_port, str(tmp_path)), nprocs=2)
