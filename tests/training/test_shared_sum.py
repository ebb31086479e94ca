"""Workers of one machine sum through its memory, and by torch.distributed where they cannot."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

from scaling.training.build import parallelize
from scaling.training.parallel import shared_memory as module
from scaling.training.parallel.shared_memory import PIECE_BYTES, WorkerGoneError, shared_sum
from scaling.training.parallel.workers import Workers
from tests.recipes import recipe
from tests.together import on_workers

LENGTHS = (1, 2, 7, 100_003, PIECE_BYTES // 4 * 2 + 5)  # of float32, the last in three pieces


def own(rank: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank * 7 + length)
    return torch.randn(length, generator=generator).to(dtype)


def left_behind(folder: str) -> list[Path]:
    return list(Path(folder).glob("scaling-*"))


def summed(workers: Workers, folder: str) -> None:
    module._MEMORY_FOLDER = Path(folder)
    rank, world_size = workers.rank, workers.world_size
    found = shared_sum(workers)
    assert found is not None
    workers.sum(0.0)  # the first one has removed the files
    assert left_behind(folder) == []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for length in LENGTHS:
            parts = [own(r, length, dtype) for r in range(world_size)]
            tensor = parts[rank].clone()
            assert found.sum(tensor) is tensor
            rel = 3e-2 if dtype == torch.bfloat16 else 1e-6  # each addition rounds
            torch.testing.assert_close(tensor, sum(parts), rtol=rel, atol=rel)
            for other in workers.gather_array(tensor.double().numpy()):
                assert (other == tensor.double().numpy()).all()
    module._MEMORY_FOLDER = Path(folder) / "none"
    if rank == 0:
        tempfile.tempdir = f"{folder}/none"  # there is no place at all
    assert shared_sum(workers) is None
    module._MEMORY_FOLDER = Path(folder)
    if rank == world_size - 1:
        module.os.access = lambda *_: False  # another machine
    assert shared_sum(workers) is None
    workers.sum(0.0)
    assert left_behind(folder) == []
    if rank == 0:
        found.close()
    else:
        with pytest.raises(WorkerGoneError):
            found.sum(torch.ones(3))
        found.close()


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_every_worker_has_the_same_sum(tmp_path: Path, world_size: int) -> None:
    on_workers(summed, str(tmp_path), world_size=world_size)


def left_alone(workers: Workers) -> None:
    ddp = parallelize(nn.Linear(3, 2), recipe(2, 0.1, 1, world_size=2), workers)
    for _ in range(2):  # in the second one DDP agrees on its buckets, by gloo
        ddp.wrapped(torch.ones(1, 3)).sum().backward()
    if workers.rank == 1:
        ddp.close()  # as when its step raises
    else:
        with pytest.raises(WorkerGoneError):
            ddp.wrapped(torch.ones(1, 3)).sum().backward()
    assert workers.sum(1.0) == [2.0]  # whoever waited goes on, in step


def test_a_worker_does_not_wait_for_one_that_has_left() -> None:
    on_workers(left_alone)
