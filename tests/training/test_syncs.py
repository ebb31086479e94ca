"""How often a step reads a value from the device, which a GPU's host waits for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scaling.spec.evaluation import Evaluation
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.training import loop
from scaling.training.supervision import Supervision
from tests.recipes import changed, part_of_speech, pronunciation, recipe
from tests.training.test_checkpoint import run

ONCE = Evaluation(every_steps=1000, num_examples=4)
READING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select")


class Reads(TorchDispatchMode):
    """Counts values that are read, between the second step and the evaluation after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.num_steps, self.steps_over = 0, 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.num_steps > 1 and not self.steps_over:
            self.count += func.overloadpacket.__name__ in READING
        return func(*args, **(kwargs or {}))


class Counted:
    """A task that tells when a step begins and when an evaluation does."""

    def __init__(self, task: Any, reads: Reads) -> None:
        self._task, self._reads, self._is_measured = task, reads, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def begin_batch(self) -> None:
        self._reads.num_steps += 1
        self._task.begin_batch()

    def example_losses(self, *args: Any) -> Any:
        if not self._is_measured:  # steps before that are discarded
            self._is_measured, self._reads.count, self._reads.num_steps = True, 0, 0
        self._reads.steps_over = self._reads.num_steps > 0
        return self._task.example_losses(*args)


def reads_a_step(task: Any, num_steps: int = 3, **changes: Any) -> float:
    reads = Reads()
    counted: Any = Counted(task, reads)
    with reads:
        run(counted, changed(recipe(16, 1e-3, num_steps), **changes), Supervision(), ONCE)
    assert reads.num_steps == num_steps
    return reads.count / (num_steps - 1)


@pytest.mark.parametrize(
    ("changes", "micro_batch_size"),
    [
        ({"clip_norm": 0.1, "weight_average_half_life_examples": 100.0}, 16),
        ({"clip_norm": 0.1, "weight_average_half_life_examples": 100.0}, 4),
        ({"optimizer": "lamb"}, 4),
        ({"optimizer": "lars", "momentum": 0.9}, 4),
        ({"optimizer": "lion"}, 4),
    ],
    ids=["adamw in one pass", "adamw", "lamb", "lars", "lion"],
)
def test_a_step_reads_its_gradient_norm_alone(
    changes: dict[str, Any], micro_batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a batch is cut is none of the optimizer's business, so one of them has it whole too."""
    monkeypatch.setattr(loop, "measures_noise_at", lambda *_, **__: False)
    task = prepare_task(pronunciation(), ONCE)
    assert reads_a_step(task, micro_batch_size=micro_batch_size, **changes) == 1


@pytest.mark.parametrize("micro_batch_size", [8, 2])
def test_a_measured_step_reads_few_values_however_it_is_cut(
    micro_batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "measures_noise_at", lambda *_, **__: True)
    task = prepare_task(pronunciation(), ONCE)
    # The norm, one for each group's, which are read together.
    most = 1 + 16 // micro_batch_size
    assert reads_a_step(task, micro_batch_size=micro_batch_size) <= most


def test_an_encoder_reads_no_mask_where_all_texts_are_of_one_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "measures_noise_at", lambda *_, **__: False)
    task = prepare_task(part_of_speech(), ONCE)
    assert isinstance(task, TextTask)
    lengths = task.lengths(torch.arange(task.num_train).numpy())
    longest = int((lengths == max(set(lengths.tolist()), key=lengths.tolist().count)).argmax())
    same = _Same(task, longest)
    assert reads_a_step(same, micro_batch_size=4) == 1


class _Same:
    """A task whose batches have one example many times."""

    def __init__(self, task: Any, number: int) -> None:
        self._task, self._number = task, number

    def __getattr__(self, name: str) -> Any:
        value: Callable[..., Any] = getattr(self._task, name)
        if name not in ("collate", "num_targets", "num_tokens", "lengths"):
            return value
        return lambda indices, *rest: value(indices * 0 + self._number, *rest)
