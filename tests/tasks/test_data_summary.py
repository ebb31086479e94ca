"""What a task says of its data: rows, examples, classes, lengths and what is cut off."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from scaling.spec.workloads import Workload
from scaling.tasks.data.overview import DataSummary, SplitSummary
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import ExampleLosses
from tests.recipes import EVALUATION, TINY_BERT, TINY_LLAMA, TINY_MBART, quadratic


def task_of(folder: Path, task: str, rows: list[dict[str, Any]], **data: Any) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = {"causal_lm": TINY_LLAMA, "seq2seq": TINY_MBART}.get(task, TINY_BERT)
    given = {"task": task, "model": model, "data": {"files": {"train": str(path)}, **data}}
    return prepare_task(TypeAdapter(Workload).validate_python(given), EVALUATION)


def summary_of(folder: Path, task: str, rows: list[dict[str, Any]], **data: Any) -> DataSummary:
    return task_of(folder, task, rows, **data).data_summary


def test_classes_lengths_and_cuts_by_hand(tmp_path: Path) -> None:
    # A separator stands before a text's characters; every tenth text has 20 and is cut to 8.
    rows = [
        {"text": f"{i:03d}" + "x" * 17 * (i % 10 == 0), "label": "ab"[i % 2] + " " * (i == 1)}
        for i in range(100)
    ]
    summary = summary_of(tmp_path, "text_classification", rows, max_length=8)
    assert sum(split.num_truncated for split in summary.splits) == 10
    train = summary.splits[0]
    assert train == SplitSummary(
        "train", 80, 80, {"a": 40, "b": 40}, tokens_min=4, tokens_median=4.0, tokens_max=8,
        num_truncated=train.num_truncated,
    )  # fmt: skip
    assert [split.split for split in summary.splits] == ["train", "validation", "test"]
    assert summary.notes == ("1 label had blanks around it, which were removed.",)


def test_a_class_with_one_row_does_not_end_a_study(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    task = task_of(tmp_path, "text_classification", [*rows, {"text": "one", "label": "rare"}])
    assert task.objective.classes == ("a", "b", "rare")
    counts = [split.class_counts for split in task.data_summary.splits]
    assert counts == [{"a": 16, "b": 16, "rare": 1}, {"a": 2, "b": 2}, {"a": 2, "b": 2}]


def test_a_class_of_given_validation_data_alone_is_an_output_that_is_never_learnt(
    tmp_path: Path,
) -> None:
    (tmp_path / "held.csv").write_text("text;label\nc;new\nd;a\n", encoding="utf-8")
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = {"train": str(tmp_path / "rows.jsonl"), "validation": str(tmp_path / "held.csv")}
    given = {"task": "text_classification", "model": TINY_BERT, "data": {"files": files}}
    task: Any = prepare_task(TypeAdapter(Workload).validate_python(given), EVALUATION)
    assert task.objective.classes == ("a", "b", "new")
    assert task.num_evaluated("validation") == 2
    assert any("classes that the training data lack: new (1)" in n for n in task.data_summary.notes)


def test_prompts_without_room_and_answers_that_are_cut(tmp_path: Path) -> None:
    # Of the characters and marks, 10 fit: a prompt, a separator, an answer and its end.
    rows = [{"q": f"{i:03d}", "a": "y" * (5 if i % 2 else 6)} for i in range(50)]
    rows += [{"q": f"{i:03d}" + "z" * 9, "a": "y"} for i in range(50, 60)]
    summary = summary_of(
        tmp_path, "causal_lm", rows, prompt_column="q", answer_column="a", max_length=10
    )
    assert sum(split.num_truncated for split in summary.splits) == 25 + 10
    assert sum(split.num_examples for split in summary.splits) == 50
    assert sum(split.num_rows for split in summary.splits) == 60
    assert any("fill max_length 10 and leave no room" in note for note in summary.notes)


def test_sources_and_targets_that_are_cut(tmp_path: Path) -> None:
    rows = [{"source": "s" * (i % 4) + f"{i:02d}", "target": "t" * (i % 5 + 1)} for i in range(60)]
    summary = summary_of(tmp_path, "seq2seq", rows, max_length=5)
    cut = sum(i % 4 == 3 or i % 5 == 4 for i in range(60))  # 5 and a separator; 5 and an end
    assert sum(split.num_truncated for split in summary.splits) == cut
    assert summary.splits[0].tokens_max == 10


def test_words_and_questions_that_are_cut(tmp_path: Path) -> None:
    words = [
        {"tokens": ["a", "b" * (30 if i % 6 == 0 else 2)], "tags": ["X", f"Y{i % 2}"]}
        for i in range(60)
    ]
    summary = summary_of(
        tmp_path, "token_classification",
        [{**row, "tokens": [*row["tokens"], str(i)], "tags": [*row["tags"], "X"]}
         for i, row in enumerate(words)], max_length=16,
    )  # fmt: skip
    assert sum(split.num_truncated for split in summary.splits) == 10
    assert sum(split.class_counts["X"] for split in summary.splits) == 120
    questions = [
        {"question": "why? " * (20 if i % 4 == 0 else 1), "context": f"since {i}",
         "answers": {"text": ["since"], "answer_start": [0]}}
        for i in range(60)
    ]  # fmt: skip
    summary = summary_of(tmp_path, "question_answering", questions, max_length=72)
    assert sum(split.num_truncated for split in summary.splits) == 15


@pytest.mark.parametrize("scheme", ["BIOES", "BILOU"])
def test_numbered_tags_with_names_have_their_entities_scored(scheme: str, tmp_path: Path) -> None:
    last, single = {"BIOES": "ES", "BILOU": "LU"}[scheme]
    names = ["O", "B-PER", "I-PER", f"{last}-PER", f"{single}-LOC"]
    rows = [
        {"tokens": [f"Ada{i}", "King", "Byron", "in", "Rome"], "tags": [1, 2, 3, 0, 4]}
        for i in range(40)
    ]
    task = task_of(tmp_path, "token_classification", rows, tag_names=names)
    assert set(task.objective.tags) == set(names)
    right = tuple(map(tuple, task.objective._labels("validation", 4)))
    ones = np.ones(4)
    assert task.metrics(ExampleLosses(ones, ones * 5, ones * 5, right))["entity_f1"] == 1
    wrong = tuple((0,) * 5 for _ in right)
    assert task.metrics(ExampleLosses(ones, ones * 5, ones, wrong))["entity_f1"] < 1
    bare = task_of(tmp_path, "token_classification", rows)
    assert any("Tags are numbers; give tag_names" in note for note in bare.data_summary.notes)


def test_noisy_quadratics_have_no_data_to_show() -> None:
    assert prepare_task(quadratic(num_chains=2, num_dimensions=2), EVALUATION).data_summary is None
