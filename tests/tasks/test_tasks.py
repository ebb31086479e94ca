"""The task families on real text: encoding, losses, and where the data may come from."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from scaling.spec.evaluation import Evaluation
from scaling.spec.resources import Resources
from scaling.spec.workloads import CausalLm, TextClassification
from scaling.tasks.data.ragged import Ragged, by_length
from scaling.tasks.errors import DataError
from scaling.tasks.model.architectures import model_config
from scaling.tasks.model.layers import matrices_to_cut
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import ExampleLosses
from scaling.tasks.text_task import max_evaluation_logits
from scaling.tasks.trainable import require_trainable
from tests.recipes import (
    EVALUATION,
    TINY_BERT,
    TINY_LLAMA,
    part_of_speech,
    pronunciation,
    quadratic,
    rows_of,
)  # fmt: skip

CPU = torch.device("cpu")


def classification(files: dict[str, str] | None = None, **data: Any) -> TextClassification:
    given = {"files": files} if files else {}
    return TextClassification.model_validate(
        {"task": "text_classification", "model": TINY_BERT, "data": {**given, **data}}
    )


def language(**data: Any) -> CausalLm:
    return CausalLm.model_validate({"task": "causal_lm", "model": TINY_LLAMA, "data": data})


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_summed_loss_is_the_sum_of_single_examples_however_they_are_padded(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    model = task.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        together = float(task.loss_sum(model, task.collate(numbers, 0)))
        alone = [float(task.loss_sum(model, task.collate(numbers[i : i + 1], 0))) for i in range(9)]
    assert together == pytest.approx(sum(alone), rel=1e-12)
    assert task.num_targets(numbers) == sum(task.num_targets(numbers[i : i + 1]) for i in range(9))


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_evaluation_in_parts_is_evaluation_of_the_whole(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    model = task.new_model(0).double().eval()
    with torch.no_grad():
        whole = task.example_losses(model, "validation", slice(None), CPU)
        cuts = slice(0, 20), slice(20, 50)
        parts = [task.example_losses(model, "validation", cut, CPU) for cut in cuts]
    assert len(whole.loss_sums) == 50
    joined = np.concatenate([part.loss_sums for part in parts])
    np.testing.assert_allclose(joined, whole.loss_sums, rtol=1e-12)


def test_a_new_model_predicts_at_chance_and_depends_on_the_seed() -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    model = task.new_model(0).eval()
    with torch.no_grad():
        losses = task.example_losses(model, "train", slice(None), CPU)
    assert losses.loss == pytest.approx(math.log(4), abs=0.1)
    first = next(iter(model.parameters()))
    assert torch.equal(first, next(iter(task.new_model(0).parameters())))
    assert not torch.equal(first, next(iter(task.new_model(1).parameters())))


def test_only_the_answer_counts() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    row = next(r for r in rows_of(pronunciation()).rows["train"] if r.prompt == "aardvark")
    assert row.text_units is not None
    tokenizer = task.token_model.tokenizer  # type: ignore[attr-defined]
    assert len(next(tokenizer.joined([row])).prompt) == len("aardvark") + 1
    batch = task.collate(np.arange(4), 0)
    counted = (batch["labels"] != -100).sum().item()
    assert counted == task.num_targets(np.arange(4))
    assert counted < batch["labels"].numel()


def test_a_long_text_is_cut_into_windows_that_predict_each_token_once() -> None:
    workload = language(source="builtin:python_topics", max_length=64)
    task = prepare_task(workload, EVALUATION)
    sequences = task.objective.examples["test"]  # type: ignore[attr-defined]
    lengths = sequences.tokens.lengths
    assert lengths.max() == 64
    assert (lengths >= 2).all()
    texts = [row.text for row in rows_of(workload).rows["train"]]
    total = sum(
        int(s.sizes.num_targets.sum())
        for s in task.objective.examples.values()  # type: ignore[attr-defined]
    )
    assert total == sum(len(text) for text in texts)  # all characters but the first, and the end


def write_rows(folder: Path, kind: str, rows: list[dict[str, str]]) -> str:
    path = folder / f"rows.{kind}"
    match kind:
        case "csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
            path.write_text("\n".join(lines), encoding="utf-8")
        case "json" | "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case "txt":
            path.write_text("\n".join(row["text"] for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet"])
def test_local_files_of_every_kind(kind: str, tmp_path: Path) -> None:
    rows = [{"sentence": f"sentence number {i}", "class": "ab"[i % 2]} for i in range(60)]
    path = write_rows(tmp_path, kind, rows)
    workload = classification({"train": path}, text_column="sentence", label_column="class")
    task = prepare_task(workload, EVALUATION)
    assert task.num_train == 48
    assert task.num_evaluated("validation") == 6
    assert task.objective.classes == ("a", "b")  # type: ignore[attr-defined]


def test_a_text_file_is_one_document_a_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "txt", [{"text": f"line {i} of the file"} for i in range(40)])
    task = prepare_task(language(files={"train": path}), EVALUATION)
    assert task.num_train == 32


def test_prompt_and_answer_columns(tmp_path: Path) -> None:
    rows = [{"q": f"what is {i}?", "a": f"it is {i}"} for i in range(40)]
    path = write_rows(tmp_path, "json", rows)
    task = prepare_task(
        language(files={"train": path}, prompt_column="q", answer_column="a"), EVALUATION
    )
    assert task.targets_per_example == pytest.approx(len("it is 10") + 1, abs=0.5)


def test_a_folder_as_a_hub_data_set(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "xy"[i % 2]} for i in range(30)]
    for split, part in {"train": rows[:20], "validation": rows[20:25], "test": rows[25:]}.items():
        pq.write_table(pa.Table.from_pylist(part), tmp_path / f"{split}.parquet")
    task = prepare_task(classification(source=f"hub:{tmp_path}"), EVALUATION)
    assert task.num_train == 20
    assert task.num_evaluated("test") == 5


def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "json", [{"sentence": "a", "label": "b"}])
    with pytest.raises(DataError, match="sentence, label") as raised:
        prepare_task(classification({"train": path}), EVALUATION)
    assert raised.value.path == "workload.data.text_column"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("not json at all {", encoding="utf-8")
    with pytest.raises(DataError, match="cannot read") as raised:
        prepare_task(classification({"train": str(path)}), EVALUATION)
    assert raised.value.path == "workload.data.files.train"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ({**TINY_LLAMA, "architecture": "lama"}, "workload.model.architecture"),
        ({**TINY_LLAMA, "architecture": "vit"}, "workload.model"),
        ({**TINY_LLAMA, "config": {"hidden_act": "no_such"}}, "workload.model"),
        ({**TINY_LLAMA, "config": {"hidden_droput": 1}}, "workload.model.config.hidden_droput"),
        ({"pretrained": "no/such-folder-or-name"}, "workload.model.pretrained"),
    ],
)
def test_a_model_that_cannot_be_built_is_said(
    model: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The variable of this name has been read by now; with it off, the hub is tried for 47 s.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    workload = pronunciation().model_dump() | {"model": model}
    with pytest.raises(DataError) as raised:
        prepare_task(CausalLm.model_validate(workload), EVALUATION).new_model(0)
    assert raised.value.path == path


def test_a_model_that_cannot_read_the_data_is_said() -> None:
    workload = pronunciation().model_dump()
    workload["model"] = {**TINY_LLAMA, "config": {"vocab_size": 5}}
    task = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    with pytest.raises(DataError, match="cannot read the training data"):
        require_trainable(task, 0)
    require_trainable(prepare_task(pronunciation(), EVALUATION), 0)


def test_labels_of_minus_one_are_no_class(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    for split, label in (("train", 0), ("test", -1)):
        rows = {"text": [f"{split} {i}" for i in range(20)], "label": [label] * 20}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=r"rows 1, 2, .* 19 and 20 of the test data") as raised:
        prepare_task(classification(source=f"hub:{tmp_path}"), EVALUATION)
    assert raised.value.path == "workload.data.label_column"


def test_a_hub_split_that_is_named_must_exist(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"text": "a", "label": "b"}]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="validaton") as raised:
        prepare_task(
            classification(source=f"hub:{tmp_path}", hub_splits={"validation": "validaton"}),
            EVALUATION,
        )
    assert raised.value.path == "workload.data.hub_splits.validation"


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gpt_neox"])
def test_architectures_have_the_sizes_asked_for(architecture: str) -> None:
    workload = pronunciation()
    spec = workload.model.model_copy(update={"architecture": architecture})
    task = prepare_task(workload, EVALUATION)
    config = model_config(
        spec, tokenizer=task.token_model.tokenizer, max_length=32, num_labels=0, head="causal_lm"
    )  # type: ignore[attr-defined, arg-type]
    assert (config.hidden_size, config.num_hidden_layers) == (16, 1)
    widths = [getattr(config, n, None) for n in ("intermediate_size", "n_inner")]
    assert 64 in widths
    copy = workload.model_copy(update={"model": spec})
    model = prepare_task(copy, EVALUATION).new_model(0)
    assert sum(p.numel() for p in model.parameters()) < 50_000


def test_a_pretrained_folder_starts_from_its_weights(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "text", *map(str, range(40))]
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    body = BertModel(config)
    body.save_pretrained(tmp_path)
    rows = [{"text": f"text {i}", "label": "xy"[i % 2]} for i in range(40)]
    path = write_rows(tmp_path, "json", rows)
    workload = TextClassification.model_validate(
        {
            "task": "text_classification", "model": {"pretrained": str(tmp_path)},
            "data": {"files": {"train": path}},
        }
    )  # fmt: skip
    model: Any = prepare_task(workload, EVALUATION).new_model(0)
    assert torch.equal(
        model.bert.embeddings.word_embeddings.weight, body.embeddings.word_embeddings.weight
    )
    assert model.config.num_labels == 2


def test_stderr_is_that_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 10, size=(2000, 400)).astype(float)
    sums = counts * rng.gamma(2.0, 0.5, size=(2000, 400))
    means = sums.sum(1) / counts.sum(1)
    reported = np.mean(
        [ExampleLosses(s, c, c).stderr for s, c in zip(sums[:200], counts[:200], strict=True)]
    )
    assert reported == pytest.approx(means.std(), rel=0.06)


def test_ragged_rows_come_back_padded() -> None:
    ragged = Ragged.of([[1, 2, 3], [4], [5, 6]])
    values, real = ragged.padded(np.array([2, 1]), pad=9)
    assert values.tolist() == [[5, 6], [4, 9]]
    assert real.tolist() == [[True, True], [True, False]]
    assert [group.tolist() for group in by_length(ragged.lengths, 2)] == [[1, 2], [0]]


def test_noisy_quadratic_noise_has_variance_h_over_m() -> None:
    task = prepare_task(quadratic(num_chains=20_000, num_dimensions=4), Evaluation(every_steps=1))
    noise = task.collate(np.arange(8), 0)["noise"]
    expected = 1 / (np.arange(1, 5) * 8)
    np.testing.assert_allclose(noise.var(0).numpy(), expected, rtol=0.05)
    assert not torch.equal(noise, task.collate(np.arange(8, 16), 0)["noise"])
    assert torch.equal(noise, task.collate(np.arange(8), 0)["noise"])


def test_tp_cuts_by_the_architectures_plan_or_says_why_not() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    tp = Resources(strategy="tp", num_workers=2)
    cuts = matrices_to_cut(task.new_model(0), 2)
    assert cuts["model.layers.0.self_attn.q_proj"] == "colwise"
    assert cuts["model.layers.0.mlp.down_proj"] == "rowwise"
    assert not [name for name in cuts if "embed" in name or "head" in name]
    with pytest.raises(DataError, match=r"resources\.num_workers: .*num_attention_heads \(2\)"):
        require_trainable(task, 0, resources=Resources(strategy="tp", num_workers=3))
    with pytest.raises(DataError, match=r"resources\.strategy: .*transformers has none of bert"):
        require_trainable(prepare_task(part_of_speech(), EVALUATION), 0, resources=tp)
    drops = pronunciation(model={**TINY_LLAMA, "config": {"attention_dropout": 0.5}})
    with pytest.raises(DataError, match=r"repeat the masks of the model's attention_dropout"):
        require_trainable(prepare_task(drops, EVALUATION), 0, resources=tp)


@pytest.mark.parametrize(
    ("free_bytes", "expected"), [(None, 2**27), (2**37, 2**32), (2**20, 2**15), (0, 1)]
)
def test_logits_of_an_evaluation_take_half_of_a_gpus_free_memory(
    free_bytes: int | None, expected: int
) -> None:
    assert max_evaluation_logits(free_bytes) == expected


@pytest.mark.parametrize(("longest", "expected"), [(64, 250), (512, 250), (1024, 128), (8192, 16)])
def test_long_texts_are_evaluated_fewer_at_once(longest: int, expected: int) -> None:
    task: Any = prepare_task(part_of_speech(), EVALUATION)
    texts = task.objective.examples["validation"]
    numbers = np.arange(len(texts.sizes.lengths))
    lengths = np.where(numbers == 3, longest, 5)
    task._sizes["validation"] = replace(texts.sizes, lengths=lengths)
    assert task.examples_at_once("validation", numbers, None) == expected
    assert task.examples_at_once("validation", numbers[:3], None) == 250
