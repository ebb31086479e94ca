"""What models write: sources, prompts, greedy decoding and beams."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Translation, Value
from torch import nn

from scaling.spec.workloads import Seq2Seq, Seq2SeqData, Workload
from scaling.tasks.data.rows import Row
from scaling.tasks.data.tokenizer_choice import learnt_subwords
from scaling.tasks.data.tokens import TrainedTokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task, WritingTask, Written
from scaling.tasks.trainable import require_trainable
from scaling.training.evaluation import written_metrics
from scaling.training.parallel.workers import Workers
from tests.recipes import (
    EVALUATION,
    TINY_LLAMA,
    TINY_MBART,
    part_of_speech,
    pronunciation,
    recipe,
    rows_of,
    spelling,
)
from tests.tasks.examples import CPU, write_lines
from tests.tasks.test_families import measurements_of


def test_a_decoder_reads_a_start_and_what_it_has_written() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    batch = task.collate(np.arange(5), 0)
    labels, read = batch["labels"], batch["decoder_input_ids"]
    assert (read[:, 0] == task.token_model.tokenizer.end_id).all()
    counted = labels[:, :-1] != -100
    assert torch.equal(read[:, 1:][counted], labels[:, :-1][counted])
    assert (labels != -100).sum() == task.num_targets(np.arange(5))
    lengths = (labels != -100).sum(1)
    assert all(labels[i, n - 1] == task.token_model.tokenizer.end_id for i, n in enumerate(lengths))


@pytest.mark.parametrize("architecture", ["mbart", "marian", "bart", "t5"])
def test_encoder_decoders_have_the_sizes_asked_for(architecture: str) -> None:
    workload = spelling().model_dump()
    workload["model"] = {**TINY_LLAMA, "architecture": architecture, "config": {}}
    task: Any = prepare_task(type(spelling()).model_validate(workload), EVALUATION)
    model: Any = task.new_model(0)
    layers = [module for name, module in model.named_modules() if name.endswith("layers.0")]
    blocks = [module for name, module in model.named_modules() if name.endswith("block.0")]
    assert len(layers) + len(blocks) == 2
    assert sum(parameter.numel() for parameter in model.parameters()) < 50_000
    with torch.no_grad():
        assert math.isfinite(float(task.loss_sum(model, task.collate(np.arange(3), 0))))


def trained(task: Task, family: Callable[[], Workload]) -> nn.Module:
    """A model that has learnt to write something, if not the right thing."""
    model = task.new_model(0)
    model.load_state_dict(learnt(family))
    return model.eval()


@cache
def learnt(family: Callable[[], Workload]) -> dict[str, torch.Tensor]:
    task: Any = prepare_task(family(), EVALUATION)
    model = task.new_model(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        batch = task.collate((np.arange(32) + 32 * step) % (task.num_train or 1), 0)
        optimizer.zero_grad()
        (task.loss_sum(model, batch) / 200).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_written_texts_do_not_depend_on_how_they_are_shared(num_beams: int) -> None:
    how = {"num_examples": 12, "num_beams": num_beams, "max_new_tokens": 6}
    for family in (spelling, pronunciation):
        task: Any = prepare_task(family(generation=how), EVALUATION)
        assert isinstance(task, WritingTask)
        assert len(task.writing.references) == 12
        model = trained(task, family)
        whole, *parts = (
            task.writing.write(model, part, CPU)
            for part in (slice(0, 12), slice(0, 5), slice(5, 12))
        )
        assert whole == sum(parts, ())
        assert any(text.greedy for text in whole)
        assert all((text.beam is None) == (num_beams == 1) for text in whole)
        metrics = written_metrics(task, model, Workers(), precision="fp32")
        ways = ["greedy"] if num_beams == 1 else ["greedy", "beam"]
        assert set(metrics) == {
            f"{way}_{rate}" for way in ways for rate in ("phone_error_rate", "word_error_rate")
        }


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    model = trained(task, spelling)
    batch = task._batch("validation", np.arange(1), 1)
    ids = [task.writing.decoder_start_id]
    for _ in range(64):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch.get("attention_mask"),
            decoder_input_ids=torch.tensor([ids]),
        ).logits  # fmt: skip
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == task.token_model.tokenizer.end_id:
            break
    [written] = task.writing.write(model, slice(0, 1), CPU)
    assert written.greedy == task.token_model.tokenizer.written(ids[1:])


def test_right_answers_have_no_errors() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    right = [Written(text, None) for text in task.writing.references[:20]]
    assert set(task.writing.metrics(right).values()) == {0.0}


@pytest.mark.parametrize("kind", ["json", "translation", "hub"])
def test_a_column_inside_another_one(kind: str, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "translation": {"en": f"word {i}", "de": f"Wort {i}"}} for i in range(40)
    ]
    columns: dict[str, Any] = {
        "source_column": "translation.en", "target_column": "translation.de",
    }  # fmt: skip
    if kind == "json":
        columns["files"] = write_lines(tmp_path / "rows.json", rows)
    else:  # as data sets of translations on the hub have it
        features = Features(
            {"id": Value("string"), "translation": Translation(languages=["en", "de"])}
        )
        path = tmp_path / "train.parquet"
        Dataset.from_list(rows, features=features).to_parquet(path)
        columns |= (
            {"source": f"hub:{tmp_path}"} if kind == "hub" else {"files": {"train": str(path)}}
        )
    workload = Seq2Seq.model_validate(
        {"task": "seq2seq", "model": TINY_MBART, "data": columns, "generation": None}
    )
    read = rows_of(workload).rows["train"]
    assert [(row.prompt, row.text) for row in read[:2]] == [
        ("word 0", "Wort 0"), ("word 1", "Wort 1"),
    ]  # fmt: skip
    assert len(read) == 40
    columns["target_column"] = "translation.fr"
    absent = Seq2Seq.model_validate({"task": "seq2seq", "model": TINY_MBART, "data": columns})
    with pytest.raises(DataError, match=r"no column 'translation\.fr'.*translation\.de") as raised:
        rows_of(absent)
    assert raised.value.path == "workload.data.target_column"


def test_a_row_without_the_mapping_and_a_column_whose_name_has_a_dot(tmp_path: Path) -> None:
    data = {"source_column": "t.en", "target_column": "t.de"}
    rows: list[dict[str, Any]] = [{"t": {"en": "a", "de": "b"}, "t.en": "own"}, {"t": None}]
    workload = Seq2Seq.model_validate(
        {
            "task": "seq2seq", "model": TINY_MBART,
            "data": data | {"files": write_lines(tmp_path / "rows.json", rows[:1])},
        }
    )  # fmt: skip
    assert rows_of(workload).rows["train"][0].prompt == "own"
    rows[0].pop("t.en")
    data |= {"files": write_lines(tmp_path / "others.json", rows)}
    workload = workload.model_copy(update={"data": Seq2SeqData.model_validate(data)})
    with pytest.raises(DataError, match=r"row 2 of the train data has no text in column 't\."):
        rows_of(workload)


@pytest.mark.parametrize("task_name", ["seq2seq", "causal_lm"])
def test_texts_of_tables_are_compared_as_texts(task_name: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    lines = [f"say {i},the number is {i} again" for i in range(60)]
    path.write_text("\n".join(["asked,said", *lines]), encoding="utf-8")
    columns = {
        "seq2seq": {"source_column": "asked", "target_column": "said"},
        "causal_lm": {"prompt_column": "asked", "answer_column": "said"},
    }[task_name]
    template = spelling() if task_name == "seq2seq" else pronunciation()
    given = template.model_dump() | {"generation": {"num_examples": 4, "num_beams": 2}}
    given["data"] = {"files": {"train": str(path)}, **columns}
    task: Any = prepare_task(type(template).model_validate(given), EVALUATION)
    require_trainable(task, 0)
    metrics = written_metrics(task, task.new_model(0), Workers(), precision="fp32")
    names = ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "word_error_rate")
    assert set(metrics) == {f"{way}_{name}" for way in ("greedy", "beam") for name in names}


def test_a_model_writes_after_its_last_step_alone() -> None:
    workload = spelling(generation={"num_examples": 5, "max_new_tokens": 4, "num_beams": 2})
    task: Any = prepare_task(workload, EVALUATION)
    measured = measurements_of(task, recipe(8, 3e-3, 4))
    assert set(measured[0].metrics) == {"accuracy", "perplexity"}
    assert {"greedy_phone_error_rate", "beam_word_error_rate"} < set(measured[-1].metrics)


def test_a_model_writes_nothing_unless_asked() -> None:
    for workload in (spelling(generation=None), pronunciation(), part_of_speech()):
        task: Any = prepare_task(workload, EVALUATION)
        assert written_metrics(task, task.new_model(0), Workers(), precision="fp32") == {}


def targets_of(template: str, *, keeps_start: bool, max_length: int | None) -> list[str]:
    """Tokens of the targets `a b` and `a b c d` by a tokenizer with such special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<s>", "<unk>", *"abcd"]
    backend = Tokenizer(models.WordLevel({w: n for n, w in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = [(name, names.index(name)) for name in ("</s>", "<s>") if name in template]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    loaded = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    made = TrainedTokenizer(loaded, keeps_start).target_ids(
        [Row("a b"), Row("a b c d")], max_length
    )
    return [" ".join(loaded.convert_ids_to_tokens(ids)) for ids in made]


@pytest.mark.parametrize(
    ("template", "keeps_start", "whole", "cut"),
    [
        ("$A", True, "a b </s>", "a b c d"), ("$A </s>", True, "a b </s>", "a b c </s>"),
        ("</s> $A", True, "</s> a b </s>", "</s> a b c"),  # OPT's
        ("<s> $A </s>", True, "<s> a b </s>", "<s> a b </s>"),
        ("<s> $A </s>", False, "a b </s>", "a b c </s>"), ("<s> $A", False, "a b </s>", "a b c d"),
        ("$A </s> <s>", True, "a b </s> <s>", "a b </s> <s>"),  # mBART's, with a language
    ],
)  # fmt: skip
def test_a_target_ends_and_starts_as_its_decoder_reads(
    template: str, keeps_start: bool, whole: str, cut: str
) -> None:
    given = targets_of(template, keeps_start=keeps_start, max_length=4)
    assert given == [whole, cut]
    ends = targets_of(template, keeps_start=keeps_start, max_length=None)
    assert all("</s>" in target.split()[1:] for target in ends)


def test_a_decoder_from_scratch_reads_a_start_of_its_own(tmp_path: Path) -> None:
    lines = [{"source": f"a {n}", "target": f"{'abcdefghij'[n % 10]} {n}"} for n in range(60)]
    files = write_lines(tmp_path / "rows.jsonl", lines)
    folder = str(tmp_path / "tokenizer")
    learnt_subwords([Row("a b c d e f g h i j 0 1 2 3")], 40).tokenizer.save_pretrained(folder)
    given = {"task": "seq2seq", "model": TINY_MBART, "data": {"files": files, "tokenizer": folder}}
    task: Any = prepare_task(Seq2Seq.model_validate(given), EVALUATION)
    labels = task.collate(np.arange(8), 0)["labels"]
    start = task.token_model.tokenizer.tokenizer.cls_token_id
    assert start is not None
    assert not bool((labels == start).any())
