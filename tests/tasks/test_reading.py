"""Data files as people have them: read as the text that stands there, or refused in one line."""

import gzip
import json
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.spec.workloads import TextClassification, TextWorkload, Workload
from scaling.tasks.data import file_tables as files_module
from scaling.tasks.data.reading import ReadRows
from scaling.tasks.errors import DataError
from tests.recipes import TINY_BERT, rows_of

CLASSIFICATION = "text_classification"
WORDS = "token_classification"


def workload(task: str, files: dict[str, Any], **data: Any) -> TextWorkload:
    from pydantic import TypeAdapter

    given = {"task": task, "model": TINY_BERT, "data": {"files": files, **data}}
    return TypeAdapter(Workload).validate_python(given)


def read(path: Path, content: bytes | str, task: str = CLASSIFICATION, **data: Any) -> ReadRows:
    """What a training file of this content is read as."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return rows_of(workload(task, {"train": str(path)}, **data))


def pairs(read: ReadRows) -> list[tuple[str, str | None]]:
    return [(row.text, row.label) for row in read.rows["train"]]


def json_lines(*rows: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, rows))


def question(answer: Any, start: int) -> dict[str, Any]:
    answers = {"text": [answer], "answer_start": [start]}
    return {"context": "1 b c", "question": "what?", "answers": answers}


# --- cells are the text that stands in the file --------------------------------------------------


def test_words_and_numbers_of_a_csv_are_text(tmp_path: Path) -> None:
    rows = [("NA", "None"), ("null", "001"), ("nan", "2"), ("2.0", "1e3"), ("2020-01-01", "True")]
    content = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    assert pairs(read(tmp_path / "rows.csv", content)) == rows


def test_json_keeps_texts_and_writes_numbers_plainly(tmp_path: Path) -> None:
    content = json_lines(
        {"text": "2020-01-01", "label": "001"}, {"text": 2, "label": True},
        {"text": 0.5, "label": 10**30},
    )  # fmt: skip
    assert pairs(read(tmp_path / "rows.jsonl", content)) == [
        ("2020-01-01", "001"), ("2", "true"), ("0.5", str(10**30)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a", "label": "b"}]', '{"text": "a",\n"label": "b"}\n',
        '\n[\n{"text": "a", "label": "b"}\n]\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.JSON"])
def test_json_is_a_list_or_one_value_after_another(content: str, name: str, tmp_path: Path) -> None:
    assert pairs(read(tmp_path / name, content)) == [("a", "b")]


def test_json_lines_and_values_over_several_lines_are_read_in_turn(tmp_path: Path) -> None:
    content = (
        '{"text": "a", "label": "b"}\n\n{"text": "c",\n"label": "d"} {"text": "e", "label": "f"}'
    )
    assert pairs(read(tmp_path / "rows.json", content)) == [("a", "b"), ("c", "d"), ("e", "f")]
    with pytest.raises(DataError, match="line 5 column 1"):
        read(tmp_path / "rows.json", content.replace("} {", ",\n{"))


@pytest.mark.parametrize(
    "content",
    [
        '[{"text": "a"},', '[{"text": "a"}', "[{}] 1", '{"text":', "[" * 10**5,
        '[{"text": "a", "label": "b"},]', '[{"text": "a", "label": "b"} {}]', "[",
    ],
)  # fmt: skip
def test_json_that_is_broken_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read") as raised:
        read(tmp_path / "rows.json", content)
    assert raised.value.path == "workload.data.files.train"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"a": 1}, "dict"), (["positive"], "list"), ([{"role": "user", "content": "x"}], "list"),
        (b"happy", "bytes"), (datetime(2020, 1, 1), "datetime"), (float("inf"), "inf"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("column", ["text", "label"])
def test_what_is_no_text_is_refused(value: Any, kind: str, column: str, tmp_path: Path) -> None:
    table = {"text": ["fine"], "label": ["fine"], column: [value]}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    with pytest.raises(DataError) as raised:
        rows_of(workload(CLASSIFICATION, {"train": str(tmp_path / "rows.parquet")}))
    assert str(raised.value) == (
        f"workload.data.{column}_column: row 1 of the train data has {kind} in column '{column}'; "
        "allowed: text, a number, true or false"
    )


@pytest.mark.parametrize(
    ("task", "row", "field", "named"),
    [
        ("causal_lm", {"text": [{"role": "user"}]}, "text_column", "list in column 'text'"),
        ("seq2seq", {"source": "a", "target": {"b": 1}}, "target_column", "dict in column"),
        (WORDS, {"tokens": ["a", ["b"]], "tags": ["X", "Y"]}, "tokens_column", "list in place 2"),
        (WORDS, {"tokens": ["a", "b"], "tags": ["X", None]}, "tags_column", "null in place 2"),
        (CLASSIFICATION, {"text": "\ud800", "label": "a"}, "text_column", r"pair \(\\ud800\)"),
        ("question_answering", question(1, 0), "answers_column", "has 1 at 0"),
        ("question_answering", question("c", -1), "answers_column", "'c' at -1"),
    ],
)  # fmt: skip
def test_every_task_refuses_such_cells(
    task: str, row: dict[str, Any], field: str, named: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"row 1 of the train data .*{named}") as raised:
        read(tmp_path / "rows.jsonl", json_lines(row), task)
    assert raised.value.path == f"workload.data.{field}"


def test_labels_lose_their_blanks_and_that_is_said(tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", "text,label\n a ,neutral\nb,neutral \nc,\tneutral\n")
    assert pairs(found) == [(" a ", "neutral"), ("b", "neutral"), ("c", "neutral")]
    assert found.notes == ("2 labels had blanks around them, which were removed.",)


def test_a_csv_in_a_hub_data_set_is_text_too(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\nNA,001\nnull,2\n", encoding="utf-8")
    given = {"task": CLASSIFICATION, "model": TINY_BERT, "data": {"source": f"hub:{tmp_path}"}}
    found = rows_of(TextClassification.model_validate(given))
    assert pairs(found) == [("NA", "001"), ("null", "2")]
    (tmp_path / "train.csv").write_text("text,label\nNA,001\nb,\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2 of the train data has no label"):
        rows_of(TextClassification.model_validate(given))


# --- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_missing_cells_are_named_with_all_their_rows(kind: str, tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": "" if i in (1, 4, 5) else "NA"} for i in range(6)]
    lines = [f"{row['text']},{row['label']}" for row in rows]
    nulls = [{**row, "label": row["label"] or None} for row in rows]
    content = "\n".join(["text,label", *lines]) if kind == "csv" else json_lines(*nulls)
    path = tmp_path / f"rows.{kind}"
    with pytest.raises(DataError) as raised:
        read(path, content)
    assert str(raised.value) == (
        "workload.data.label_column: rows 2, 5 and 6 of the train data have no label in column "
        "'label'; fill them, or leave such rows out with missing_labels: drop"
    )
    found = read(path, content, missing_labels="drop")
    assert pairs(found) == [("t0", "NA"), ("t2", "NA"), ("t3", "NA")]
    said = "3 rows of the train data with no label in column 'label' were left out."
    assert found.notes == (said,)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (CLASSIFICATION, {"text": None, "label": "a"}), ("causal_lm", {"text": None}),
        (CLASSIFICATION, {"text": " ", "label": "a"}), (CLASSIFICATION, {"label": "a"}),
        ("seq2seq", {"source": "a", "target": ""}), (WORDS, {"tokens": None, "tags": ["X"]}),
    ],
)  # fmt: skip
def test_missing_texts_are_refused_or_dropped(
    task: str, row: dict[str, Any], tmp_path: Path
) -> None:
    good = {"text": "a", "label": "b", "source": "a", "target": "b", "tokens": ["a"], "tags": ["X"]}
    content = json_lines(good, row)
    with pytest.raises(DataError, match=r"row 2 of the train data has no text in column .*drop"):
        read(tmp_path / "rows.jsonl", content, task)
    found = read(tmp_path / "rows.jsonl", content, task, missing_texts="drop")
    assert len(found.rows["train"]) == 1


def test_of_very_many_missing_rows_the_first_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows 1, 2, .*, 20 and 80 more of the train data have no"):
        read(tmp_path / "rows.csv", "text,label\n" + "a,\n" * 100)


def test_blank_lines_and_empty_rows_are_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path / "a.txt", "one\n\n  \ntwo\n", "causal_lm").rows["train"]) == 2
    assert pairs(read(tmp_path / "a.csv", "text,label\na,b\n,\n\nc,d\n")) == [
        ("a", "b"),
        ("c", "d"),
    ]


def test_a_held_out_split_without_labels_counts_as_not_given(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\na,\nb,\n", encoding="utf-8")
    (tmp_path / "train.csv").write_text("text,label\nc,x\nd,y\n", encoding="utf-8")
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}
    found = rows_of(workload(CLASSIFICATION, files, missing_labels="drop"))
    assert set(found.rows) == {"train"}
    assert found.notes[-1] == "The test data have no usable row and count as not given."


# --- names of numbers ----------------------------------------------------------------------------


def test_numbers_get_their_names(tmp_path: Path) -> None:
    names = ["negative", "positive"]
    found = read(tmp_path / "rows.csv", "text,label\na,1\nb,0\n", label_names=names)
    assert pairs(found) == [("a", "positive"), ("b", "negative")]
    tags = json_lines({"tokens": ["Ada", "sat"], "tags": [1, 0]})
    [row] = read(tmp_path / "rows.jsonl", tags, WORDS, tag_names=["O", "B-PER"]).rows["train"]
    assert row.tags == ("B-PER", "O")


@pytest.mark.parametrize("value", ["2", "positive", "1.5"])
def test_a_number_without_a_name_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 .*label_names .* name 0 to 1"):
        read(tmp_path / "rows.csv", f"text,label\na,{value}\n", label_names=["no", "yes"])


def test_names_in_a_parquet_files_metadata(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features(
        {"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B-X"]))}
    )
    rows = {"tokens": [["a", "b"]], "tags": [[0, 1]]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    [row] = rows_of(workload(WORDS, {"train": str(tmp_path / "rows.parquet")})).rows["train"]
    assert row.tags == ("O", "B-X")


# --- files as people have them -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["data*.csv", "data [v1] é.csv", "a?.CSV", "{a,b}.csv", "100%.csv", "~x.csv", "a::b.csv"],
)  # fmt: skip
def test_a_path_is_taken_as_it_stands(name: str, tmp_path: Path) -> None:
    for other in ("data1.csv", "data2.csv", "ab.csv"):
        (tmp_path / other).write_text("text,label\nwrong,wrong\n", encoding="utf-8")
    assert pairs(read(tmp_path / name, "text,label\na,b\n")) == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")]
)
def test_what_stands_between_cells_is_seen_by_the_first_line(
    name: str, delimiter: str, tmp_path: Path
) -> None:
    rows = [["id", "text", "label"], ["1", f'"well{delimiter} said"', "x"]]
    content = "\n".join(delimiter.join(row) for row in rows)
    assert pairs(read(tmp_path / name, content)) == [(f"well{delimiter} said", "x")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "csv.gz", "JSON.GZ", "tsv.Gz"])
def test_encodings_and_gzip(kind: str, encoding: str, tmp_path: Path) -> None:
    row = {"text": "Voilà, un café à Noël.", "label": "français"}
    delimiter = "\t" if kind.startswith("tsv") else ";"
    table = f"text{delimiter}label\n{delimiter.join(row.values())}\n"
    is_json = kind.lower().startswith("json")
    content = (json.dumps(row, ensure_ascii=False) if is_json else table).encode(encoding)
    packed = gzip.compress(content) if kind.lower().endswith("gz") else content
    found = read(tmp_path / f"rows.{kind}", packed)
    assert pairs(found) == [tuple(row.values())]
    assert len(found.notes) == (1 if encoding == "latin-1" else 0)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("слова по-русски", "cp1251"), ("text", "utf-16-le"), ("日本語の文", "shift-jis")],
)
def test_an_encoding_that_is_not_known_is_asked_for(
    text: str, encoding: str, tmp_path: Path
) -> None:
    content = f"text,label\n{text},x\n".encode(encoding)
    with pytest.raises(DataError, match=r"give workload\.data\.encoding") as raised:
        read(tmp_path / "rows.csv", content)
    assert raised.value.path == "workload.data.files.train"
    assert pairs(read(tmp_path / "rows.csv", content, encoding=encoding)) == [(text, "x")]


def test_utf_8_with_a_broken_byte_is_not_taken_for_latin_1(tmp_path: Path) -> None:
    content = "text,label\nun café à Noël, dit-elle\n".replace(", ", ",").encode()
    with pytest.raises(DataError, match="is not UTF-8 at byte 17"):
        read(tmp_path / "rows.csv", content.replace("é".encode(), b"\xc3", 1))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", b"text,label\na,b\n"),
        ("a.csv.gz", gzip.compress(b"text,label\na,b\n" * 99, mtime=0)[:-9]),
        ("a.csv", b"text,label\na,b,c\n"), ("a.csv", b"text,label\na,b\nc,d,e\n"),
        ("a.csv", b'text,label\n"a,b\n'), ("a.parquet", b"PAR1 no"),
        ("a.csv", gzip.compress(b"x", mtime=0)),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=name) as raised:
        read(tmp_path / name, content)
    assert raised.value.path == "workload.data.files.train"
    assert "\n" not in str(raised.value)


def test_several_files_and_globs_are_read_one_after_another(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "c.jsonl"):
        is_json = name.endswith("jsonl")
        content = json_lines({"text": name, "label": "x"}) if is_json else f"text;label\n{name};x\n"
        (tmp_path / name).write_text(content, encoding="utf-8")

    def texts(train: Any) -> list[str]:
        return [
            row.text for row in rows_of(workload(CLASSIFICATION, {"train": train})).rows["train"]
        ]

    listed = [str(tmp_path / name) for name in ("c.jsonl", "b.csv", "a.csv")]
    assert texts(listed) == ["c.jsonl", "b.csv", "a.csv"]
    assert texts({"glob": str(tmp_path / "*.csv")}) == ["a.csv", "b.csv"]
    (tmp_path / "b.csv").write_text("text,label\nx,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 1 of the train data in .*b\.csv has no label"):
        texts(listed)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "txt"])
def test_a_small_file_that_unpacks_to_more_than_fits_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 2**24
    monkeypatch.setattr(files_module, "MAX_BYTES", limit)
    monkeypatch.setattr("scaling.tasks.data.reading.MAX_BYTES", limit)
    content = gzip.compress(b"text,label\n" + b"a" * (2 * limit))
    assert len(content) < limit / 400
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"too large; all data files may have .* unpacked"):
            read(tmp_path / f"bomb.{kind}.gz", content, "causal_lm")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_a_large_file_is_not_held_in_memory(kind: str, tmp_path: Path) -> None:
    line = (json.dumps({"text": "a" * 1000}) if kind == "jsonl" else "a" * 1000) + "\n"
    (tmp_path / f"rows.{kind}").write_text(line * 16_000)
    tracemalloc.start()
    try:
        table = files_module.file_table(str(tmp_path / f"rows.{kind}"), path="", columns=())
        assert sum(1 for _ in table.records) == 16_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < table.num_bytes / 3


def test_more_rows_or_text_than_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "text,label\n" + "some text,b\n" * 300
    with monkeypatch.context() as patched:
        patched.setattr("scaling.tasks.data.reading.MAX_ROWS", 200)
        with pytest.raises(DataError, match="too large; all splits together may have"):
            read(tmp_path / "rows.csv", content)
    monkeypatch.setattr("scaling.tasks.data.reading.MAX_CHARACTERS", 2000)
    with pytest.raises(DataError, match="too large; all splits together may have"):
        read(tmp_path / "rows.csv", content)


# --- what looks the same is the same, and what is text stays text --------------------------------


def test_whole_numbers_of_a_column_with_an_empty_cell_are_the_same_classes(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "label": [0.0, 1.0, None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    data = workload(
        CLASSIFICATION, {"train": str(tmp_path / "rows.parquet")}, missing_labels="drop"
    )
    assert pairs(rows_of(data)) == [("a", "0"), ("b", "1")]


@pytest.mark.parametrize("other", ["cafe\u0301", "caf\u00e9\u200b", "\ufeffcaf\u00e9 "])
def test_classes_that_look_the_same_are_one(other: str, tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", f"text,label\na,caf\u00e9\nb,{other}\n")
    assert [label for _, label in pairs(found)] == ["caf\u00e9", "caf\u00e9"]
    assert len(found.notes) == 1


def test_quotation_marks_of_a_table_with_tabs_swallow_no_rows(tmp_path: Path) -> None:
    lines = ['"Hello she said\tpos', "fine day\tneg", 'bad "day\tpos', 'the end" she said\tneg']
    found = read(tmp_path / "rows.tsv", "text\tlabel\n" + "\n".join(lines) + "\n")
    assert pairs(found) == [tuple(line.split("\t")) for line in lines]
    quoted = read(tmp_path / "rows.tsv", 'text\tlabel\n"a ""b"""\tpos\n"c\td"\tneg\n')
    assert pairs(quoted) == [('a "b"', "pos"), ("c\td", "neg")]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 columns named 'label'"):
        read(tmp_path / "rows.csv", "text,label,label\na,b,c\n")
