"""Question answering: windows, spans and what they answer."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.evaluation import Evaluation
from scaling.tasks.data.python_questions import questions_of
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.question_answering import Prediction
from tests.recipes import questions
from tests.tasks.examples import squad_rows, write_lines


def read_questions(tmp_path: Path, rows: list[dict[str, Any]]) -> Any:
    workload = questions(write_lines(tmp_path / "rows.json", rows))
    return prepare_task(workload, Evaluation(every_steps=5, num_examples=1000))


def test_windows_hold_every_answer_and_give_it_back(tmp_path: Path) -> None:
    task = read_questions(tmp_path, squad_rows())
    for split, windows in task.objective.examples.items():
        perfect = [Prediction(float(first > 0), 0.5, first, last) for first, last in windows.spans]
        rights = [row.answers[0][1] for row in task.objective.rows[split]]
        assert task.objective.answers(split, perfect) == rights
        counts = np.bincount(windows.questions)
        assert set(counts) == {1, 2}
    assert task.num_targets(np.arange(7)) == 7


def test_the_most_likely_span_is_in_the_context_and_not_too_long(tmp_path: Path) -> None:
    task = read_questions(tmp_path, squad_rows())
    windows = task.objective.examples["train"]
    numbers = np.arange(5)
    batch = windows.batch(numbers, task.token_model.tokenizer.pad_id)
    length = batch["input_ids"].shape[1]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 2, length, generator=generator)
    found = list(task.objective._best_spans(logits, batch["in_context"]))
    for number, prediction in enumerate(found):
        inside = batch["in_context"][number]
        best = max(
            (float(logits[number, 0, i] + logits[number, 1, j]), i, j)
            for i in range(length) for j in range(i, min(length, i + 30))
            if inside[i] and inside[j]
        )  # fmt: skip
        assert prediction.score == pytest.approx(best[0])
        assert (prediction.first, prediction.last) == best[1:]


def test_questions_without_an_answer(tmp_path: Path) -> None:
    rows = squad_rows()
    for row in rows[::3]:
        row["answers"] = {"text": [], "answer_start": []}
    task = read_questions(tmp_path, rows)
    windows = task.objective.examples["validation"]
    ends = np.split(windows.last_chars.flat, windows.last_chars.starts[1:])
    firsts = [int(np.argmax(of_window > 0)) for of_window in ends]  # of the context
    silent = [Prediction(1.0, 2.0, first, first) for first in firsts]
    assert set(task.objective.answers("validation", silent)) == {""}
    sure = [prediction._replace(no_span_score=0.0) for prediction in silent]
    assert "" not in task.objective.answers("validation", sure)


def test_an_answer_that_is_not_where_it_says_is_refused(tmp_path: Path) -> None:
    rows = squad_rows(3)
    rows[1]["answers"]["answer_start"] = [1]
    with pytest.raises(DataError, match="row 2 of the train data says that 'code-1'") as raised:
        read_questions(tmp_path, rows)
    assert raised.value.path == "workload.data.answers_column"


def test_blanks_at_the_ends_of_an_answer_are_no_part_of_it(tmp_path: Path) -> None:
    rows = squad_rows()
    plain = read_questions(tmp_path, rows)
    for row in rows:
        [start], [text] = row["answers"]["answer_start"], row["answers"]["text"]
        first, end = max(0, start - 1), start + len(text) + 1
        row["answers"] = {"text": [row["context"][first:end]], "answer_start": [first]}
    task = read_questions(tmp_path, rows)
    for split, windows in task.objective.examples.items():
        np.testing.assert_array_equal(windows.spans, plain.objective.examples[split].spans)
    rows[0]["answers"] = {"text": [" "], "answer_start": [rows[0]["context"].index(" ")]}
    with pytest.raises(DataError, match=r"has ' ' at .*; needs a text"):
        read_questions(tmp_path, rows)


def test_answers_that_no_window_holds_are_said(tmp_path: Path) -> None:
    rows = squad_rows()
    assert read_questions(tmp_path, rows).data_summary.notes == ()
    for row in rows[:9]:
        row["answers"] = {"text": [row["context"]], "answer_start": [0]}
    notes = read_questions(tmp_path, rows).data_summary.notes
    found = [re.search(r"that fit into no window: (\d+)\.", note) for note in notes]
    lost = sum(int(one[1]) for one in found if one is not None)
    assert 0 < lost <= 9


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
    questions_of_windows = task.objective.examples["train"].questions
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
    found = {row.prompt: row for row in questions_of(source, "thing.py")}
    assert {asked: row.answers[0][1] for asked, row in found.items()} == {
        "what is the default of size in method?": "-1",
        "what is the default of name in method?": '"été"',
        "what is the default of flag in method?": "None",
        "what does method return?": "size + 1",
    }
    for row in found.values():
        [(start, answer)] = row.answers
        assert row.text[start : start + len(answer)] == answer
