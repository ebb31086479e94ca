"""Files as their authors publish them: SQuAD's own JSON, and words in CoNLL's columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.spec.workloads import TextClassification
from scaling.tasks.data.conll import sentences
from scaling.tasks.data.rows import Row
from scaling.tasks.errors import DataError
from tests.recipes import TINY_BERT, rows_of
from tests.tasks.test_reading import CLASSIFICATION, json_lines, pairs, read

QUESTIONS, TAGS = "question_answering", "token_classification"


def squad(*questions: dict[str, Any]) -> str:
    """SQuAD's file of one article and two paragraphs, the second without questions."""
    paragraphs = [{"context": "Oslo is cold.", "qas": list(questions)}, {"context": "B", "qas": []}]
    return json.dumps({"version": "v2.0", "data": [{"title": "Oslo", "paragraphs": paragraphs}]})


ANSWERED = {"id": "1", "question": "which city?", "answers": [{"text": "Oslo", "answer_start": 0}]}
IMPOSSIBLE = {
    "id": "2", "question": "how cold?", "is_impossible": True, "answers": [],
    "plausible_answers": [{"text": "cold", "answer_start": 8}],
}  # fmt: skip


def question_rows(path: Path, content: str) -> list[Row]:
    return list(read(path, content, QUESTIONS).rows["train"])


def test_squads_own_json_has_a_row_for_each_question(tmp_path: Path) -> None:
    rows = question_rows(tmp_path / "train-v2.0.json", squad(ANSWERED, IMPOSSIBLE))
    assert [(row.text, row.prompt, row.answers) for row in rows] == [
        ("Oslo is cold.", "which city?", ((0, "Oslo"),)), ("Oslo is cold.", "how cold?", ()),
    ]  # fmt: skip


def test_the_forms_of_answers_are_one(tmp_path: Path) -> None:
    nested = question_rows(tmp_path / "nested.json", squad(ANSWERED))
    flat = {"context": "Oslo is cold.", "question": "which city?"}
    forms: list[Any] = [
        {"text": ["Oslo"], "answer_start": [0]}, [{"text": "Oslo", "answer_start": 0}],
    ]  # fmt: skip
    for answers in forms:
        line = json.dumps({**flat, "answers": answers})
        assert question_rows(tmp_path / "flat.jsonl", line) == nested


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({**ANSWERED, "is_impossible": True}, "row 1 .* has answers and is_impossible: true"),
        ({"id": "3", "question": "q"}, "row 1 .* no text in column 'answers'"),
        ({"id": "3", "answers": []}, "have no column 'question'"),
        ({**ANSWERED, "answers": [{"text": "Oslo"}]}, "row 1 .* needs a mapping of text and"),
        ({**ANSWERED, "answers": [{"text": "Oslo", "answer_start": 2}]}, "'Oslo' starts at 2"),
        ("which?", r"has str at qas\[0\]; allowed: a mapping"),
    ],
)
def test_a_question_of_squads_that_cannot_be_read(
    question: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path / "train.json", squad(question), QUESTIONS)
    assert str(raised.value).startswith("workload.data.")
    assert len(str(raised.value).splitlines()) == 1


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

# SYM O O
Oslo NNP B-NP B-LOC
"""


def tagged_rows(path: Path, content: str, **data: Any) -> list[tuple[Any, Any]]:
    rows = read(path, content, TAGS, **data).rows["train"]
    return [(row.text_units, row.tags) for row in rows]


@pytest.mark.parametrize("name", ["eng.txt", "eng.conll"])
def test_a_word_a_line_with_its_tag_in_the_last_column(name: str, tmp_path: Path) -> None:
    assert tagged_rows(tmp_path / name, CONLL) == [
        (("EU", "rejects"), ("B-ORG", "O")), (("#", "Oslo"), ("O", "B-LOC")),
    ]  # fmt: skip


def test_the_column_of_the_tags_may_be_named_by_its_number(tmp_path: Path) -> None:
    found = tagged_rows(tmp_path / "eng.conll", CONLL, tags_column=2)
    assert [tags for _, tags in found] == [("NNP", "VBZ"), ("SYM", "NNP")]


def test_tabs_part_columns_whose_cells_have_blanks(tmp_path: Path) -> None:
    found = tagged_rows(tmp_path / "eng.txt", "New York\tB-LOC\nis\tO\n\n")
    assert found == [(("New York", "is"), ("B-LOC", "O"))]


def test_universal_dependencies_have_words_in_the_second_column(tmp_path: Path) -> None:
    lines = ["# text = al gato", "1-2\tal\t_\t_", "1\ta\ta\tADP", "2\tel\tel\tDET", "2.1\tx\tx\tX"]
    found = tagged_rows(tmp_path / "es.conllu", "\n".join(lines) + "\n\n")
    assert found == [(("a", "el"), ("ADP", "DET"))]


@pytest.mark.parametrize(
    ("content", "path", "message"),
    [
        ("EU B-ORG\nrejects\n", "files.train", "eng.txt: line 2 has 1 column and line 1 has 2"),
        ("\nEU\n", "files.train", "eng.txt: line 2 has 1 column; needs a word and its tag"),
        ("a\tX\nb\t \n", "files.train", "eng.txt: line 2 has nothing in column 2"),
    ],
)
def test_columns_that_are_not_conlls(content: str, path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path / "eng.txt", content, TAGS)
    assert raised.value.path == f"workload.data.{path}"
    assert len(str(raised.value).splitlines()) == 1


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column '7'; they have: tokens, tags, 1, 2, 3, 4"):
        read(tmp_path / "eng.txt", CONLL, TAGS, tags_column=7)


def test_sentences_end_with_a_blank_line_or_the_file() -> None:
    found = list(sentences("a.txt", iter(["a X", "", "", "b Y"])))
    assert [sentence["tokens"] for sentence in found] == [["a"], ["b"]]


# --- cells that are not what they seem ----------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "row", "data"),
    [
        (CLASSIFICATION, {"text": "a", "label": "\u200b"}, {}),
        (TAGS, {"tokens": ["a", "b"], "tags": ["X", " "]}, {}),
        (TAGS, {"tokens": ["a", "b"], "tags": ["X", "\ufeff"]}, {}),
    ],
)
def test_a_label_without_a_letter_is_none(
    task: str, row: dict[str, Any], data: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"row 1 of the train data has (no label|an empty text)"):
        read(tmp_path / "rows.jsonl", json_lines(row), task, **data)


def test_rows_whose_label_does_not_show_are_left_out(tmp_path: Path) -> None:
    rows = json_lines({"text": "a", "label": "\u200b"}, {"text": "b", "label": "x"})
    assert pairs(read(tmp_path / "rows.jsonl", rows, missing_labels="drop")) == [("b", "x")]


def test_numbers_of_classes_may_be_written_with_a_point(tmp_path: Path) -> None:
    content = "text,label\na,1.0\nb,0\nc,-1.0\n"
    found = read(tmp_path / "rows.csv", content, label_names=["no", "yes"], missing_labels="drop")
    assert pairs(found) == [("a", "yes"), ("b", "no")]


@pytest.mark.parametrize("cell", ["1_00", "1e39", "-1e300", "inf"])
def test_what_is_no_number_of_32_bits_is_no_label_of_regression(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\na,1.5\nb,{cell}\n", encoding="utf-8")
    data = {"files": {"train": str(path)}}
    given = {"task": CLASSIFICATION, "model": TINY_BERT, "problem_type": "regression"}
    with pytest.raises(DataError, match=rf"row 2 .* has '{cell}'") as raised:
        rows_of(TextClassification.model_validate({**given, "data": data}))
    assert raised.value.path == "workload.data.label_column"


def test_a_column_deep_inside_others_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    cells = {"a": pa.array([{"b": {"c": "t"}}]), "label": pa.array(["x"])}
    pq.write_table(pa.table(cells), path)
    content = path.read_bytes()
    assert pairs(read(path, content, text_column="a.b.c")) == [("t", "x")]
    with pytest.raises(DataError, match=r"no column 'a\.c'; they have: a, label, a\.b, a\.b\.c"):
        read(path, content, text_column="a.c")


def test_a_column_of_an_odd_type_that_is_not_read_refuses_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    odd = pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"text": ["t"], "label": ["x"], "odd": odd}), path)
    assert pairs(read(path, path.read_bytes())) == [("t", "x")]


def test_a_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 has 3 cells, and the first line names 2 columns"):
        read(tmp_path / "rows.csv", "text,label\na,x\nb,y,\n")
