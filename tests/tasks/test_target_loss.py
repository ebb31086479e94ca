"""A loss in chunks of targets is the loss of all logits at once, and takes less memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaling.spec.evaluation import Sharpness
from scaling.spec.resources import Resources
from scaling.spec.workloads import CausalLm, Seq2Seq, Workload
from scaling.tasks import target_loss
from scaling.tasks.prepare import prepare_task
from scaling.tasks.target_loss import TARGETS, in_one_piece
from scaling.tasks.text_task import TextTask
from scaling.training.curvature import measure_curvature
from scaling.training.evaluation import evaluate
from scaling.training.memory.estimate import longest_example, study_footprint
from scaling.training.memory.footprint import pass_bytes
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TIED = {**SIZES, "config": {"tie_word_embeddings": True}}
PRONUNCIATION = {"source": "builtin:grapheme_to_phoneme", "num_train": 40}
FEW_LOGITS = 1000  # of a chunk: some ten places of these vocabularies


def workload(architecture: str, **model: Any) -> Workload:
    section = Seq2Seq if architecture == "t5" else CausalLm
    return section.model_validate(
        {
            "task": "seq2seq" if architecture == "t5" else "causal_lm",
            "model": {"architecture": architecture, **SIZES, **model},
            "data": PRONUNCIATION,
        }
    )


def prepared(architecture: str, **model: Any) -> TextTask:
    task = prepare_task(workload(architecture, **model), EVALUATION)
    assert isinstance(task, TextTask)
    return task


def gradient(task: TextTask, batch: Any, label_smoothing: float) -> tuple[Tensor, Tensor]:
    model = task.new_model(0, dropout=0.0).double()
    loss = task.loss_sum(model, batch, label_smoothing=label_smoothing)
    (loss / 7).backward()
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(found)


@pytest.mark.slow
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("architecture", "model"),
    [("llama", {}), ("llama", TIED), ("gpt2", {}), ("t5", {})],
    ids=["llama", "tied", "gpt2", "t5"],
)
def test_losses_and_gradients_are_those_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, architecture: str, model: Any, label_smoothing: float
) -> None:
    task, indices = prepared(architecture, **model), np.arange(12)
    whole = task.collate(indices, 0)
    assert TARGETS not in whole  # so few logits are computed as they always were
    monkeypatch.setattr(target_loss, "MAX_LOGITS", FEW_LOGITS)
    batch = task.collate(indices, 0)
    rows = count_rows(monkeypatch)
    loss, found = gradient(task, batch, label_smoothing)
    assert len(rows) > 2  # chunks
    assert sum(rows) == task.num_targets(indices) < batch["labels"].numel()
    expected_loss, expected = gradient(task, whole, label_smoothing)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    assert (found - expected).norm() / expected.norm() < 1e-12


def count_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of which the loss is computed, by call of the head in the place of the model's own."""
    rows: list[int] = []
    own = target_loss._own_forward

    def counting(head: nn.Module) -> Any:
        forward = own(head)

        def counted(hidden: Tensor) -> Tensor:
            rows.append(len(hidden))
            return forward(hidden)

        return counted

    monkeypatch.setattr(target_loss, "_own_forward", counting)
    return rows


def test_evaluation_is_that_of_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (prepared("llama"), prepared("t5")):
        model = task.new_model(0)
        expected = evaluate(task, model, ["validation"], Workers(), precision="fp32")["validation"]
        with monkeypatch.context() as patched:
            patched.setattr(target_loss, "MAX_LOGITS", FEW_LOGITS)
            rows = count_rows(patched)
            found = evaluate(task, model, ["validation"], Workers(), precision="fp32")["validation"]
        assert sum(rows) == found.num_targets.sum()
        np.testing.assert_allclose(found.loss_sums, expected.loss_sums, rtol=1e-5)
        np.testing.assert_array_equal(found.num_correct, expected.num_correct)


def test_a_model_that_does_more_than_its_head_keeps_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for architecture, config in (("cohere", {"logit_scale": 0.5}), ("gemma2", {"head_dim": 8})):
        task = prepared(architecture, config=config)
        whole = task.collate(np.arange(12), 0)
        with monkeypatch.context() as patched:
            patched.setattr(target_loss, "MAX_LOGITS", FEW_LOGITS)
            rows = count_rows(patched)
            found = gradient(task, task.collate(np.arange(12), 0), 0.0)
        assert not rows
        for one, other in zip(found, gradient(task, whole, 0.0), strict=True):
            assert torch.equal(one, other)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTask, Workload]:
    """A vocabulary of 4,000 and a narrow model, so that memory is the logits'."""
    folder, files = tmp_path_factory.mktemp("wide"), {}
    rng = np.random.default_rng(0)
    for split, count in (("train", 200), ("validation", 4), ("test", 4)):
        texts = ["".join(chr(0x4E00 + n) for n in rng.integers(0, 4000, 40)) for _ in range(count)]
        files[split] = str(folder / f"{split}.csv")
        (folder / f"{split}.csv").write_text("\n".join(["text", *texts]), encoding="utf-8")
    data = {"files": files, "tokenizer": "characters", "max_length": 41}
    section = CausalLm.model_validate(
        {"task": "causal_lm", "model": {"architecture": "llama", **SIZES}, "data": data}
    )
    task = prepare_task(section, EVALUATION)
    assert isinstance(task, TextTask)
    return task, section


def test_peak_memory_is_that_of_a_chunk(
    monkeypatch: pytest.MonkeyPatch, wide: tuple[TextTask, Workload]
) -> None:
    task, _ = wide
    monkeypatch.setattr(target_loss, "MAX_LOGITS", 2**18)
    batch = task.collate(np.arange(32), 0)
    model = task.new_model(0)
    logit_bytes = 4 * batch["labels"].numel() * task.token_model.tokenizer.vocab_size
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task.loss_sum(model, batch)
    assert max(saved) < logit_bytes / 10
    at_once = pass_bytes(model, lambda: task.loss_sum(model, in_one_piece(batch)))
    in_chunks = pass_bytes(model, lambda: task.loss_sum(model, batch))
    assert at_once.peak > 3 * logit_bytes
    assert in_chunks.peak < logit_bytes
    assert in_chunks.kept < at_once.kept / 4


@pytest.mark.parametrize("size", [8, 48])
def test_the_estimate_knows_of_it(
    monkeypatch: pytest.MonkeyPatch, wide: tuple[TextTask, Workload], size: int
) -> None:
    task, section = wide
    monkeypatch.setattr(target_loss, "MAX_LOGITS", 2**21)  # between 8 and 16 examples
    found = study_footprint(task, section, Resources())
    assert found is not None
    memory = found.memory(size, optimizer="adamw")
    model, batch = task.new_model(0), task.collate(np.full(size, longest_example(task)), 0)
    real = pass_bytes(model, lambda: task.loss_sum(model, batch)).peak
    estimate = memory.activations + memory.workspace
    assert real * 0.85 < estimate
    if size == 48:
        assert estimate < real * 1.15


def test_curvature_has_the_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, spec = prepared("llama"), Sharpness(num_examples=8)
    found: list[Any] = []
    for most in (target_loss.MAX_LOGITS, FEW_LOGITS):
        monkeypatch.setattr(target_loss, "MAX_LOGITS", most)
        found.append(
            measure_curvature(task, task.new_model(0), spec, Workers(), micro_batch_size=8)
        )
    assert found[0] == found[1]
