"""`scaling init` on tables of many kinds: a study that starts, or one line that says why not."""

import json
import random
import re
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

import pandas as pd
import pytest

from scaling.plan.start_checks import require_tasks
from scaling.spec.read import read_study
from tests.cli.test_app import called

WORDS = ["how", "far", "can", "the", "batch", "grow", "and", "what", "does", "it", "cost"]
RANDOM = random.Random(0)
Make = Callable[[Path], Path]


def sentence(count: int = 8) -> str:
    return " ".join(RANDOM.choice(WORDS) for _ in range(count))


def table(name: str, **columns: Callable[[int], object]) -> Make:
    """A file of 200 rows; a column is a function of the row's number."""

    def make(folder: Path) -> Path:
        rows = [{column: value(n) for column, value in columns.items()} for n in range(200)]
        return written(folder / name, rows)

    return make


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    frame = pd.DataFrame(rows)
    match path.name.removesuffix(".gz").rsplit(".", 1)[1]:
        case "csv":
            frame.to_csv(path, index=False, sep=";" if "semicolon" in path.name else ",")
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case "parquet":
            frame.to_parquet(path)
        case "json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case _:
            lines = "\n".join(map(json.dumps, rows))
            path.write_text(lines, encoding="utf-8")
    return path


def text(name: str, content: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return make


def context(n: int) -> str:
    return f"{sentence()} number {n} {sentence()}"


def answers(n: int) -> dict[str, object]:
    here = f"{sentence()} number {n}"
    return {"text": [f"number {n}"], "answer_start": [here.index("number")], "in": here}


def reader(folder: Path) -> Path:
    rows: list[dict[str, object]] = []
    for n in range(200):
        found = answers(n)
        rows.append({"question": f"which number is row {n}?", "context": found.pop("in"),
                     "answers": found})  # fmt: skip
    return written(folder / "squad.jsonl", rows)


def squad(folder: Path) -> Path:
    paragraphs = [
        {"context": f"{n} is a number", "qas": [
            {"question": f"is it {n}?", "answers": [{"text": str(n), "answer_start": 0}]},
            {"question": f"why {n}?", "answers": [], "is_impossible": True},
        ]}
        for n in range(200)
    ]  # fmt: skip
    path = folder / "squad.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]}), "utf-8")
    return path


def western(folder: Path) -> Path:
    rows = "\n".join(f"é {sentence()},{n % 2}" for n in range(200))
    (folder / "western.csv").write_bytes(f"text,y\n{rows}".encode("latin-1"))
    return folder / "western.csv"


def folder_of_data(folder: Path) -> Path:
    (folder / "rows.csv").mkdir()
    return folder / "rows.csv"


CONLL = "\n".join(f"EU NNP B-ORG\nrejects{n} VBZ O\n" for n in range(200))

RUNS: dict[str, tuple[Make, str]] = {
    "classes as words": (
        table(
            "reviews.csv", review=lambda n: sentence(), sentiment=lambda n: ("good", "bad")[n % 2]
        ),
        "text_classification",
    ),
    "classes as numbers": (
        table("numbers.csv", text=lambda n: sentence(), label=lambda n: n % 3),
        "text_classification",
    ),
    "a column beside": (
        table(
            "beside.csv",
            id=lambda n: n,
            title=lambda n: sentence(3),
            body=lambda n: sentence(20),
            topic=lambda n: f"topic {n % 4}",
        ),
        "text_classification",
    ),
    "semicolons": (
        table("semicolon.csv", text=lambda n: sentence(), lang=lambda n: ("de", "en")[n % 2]),
        "text_classification",
    ),
    "tabs": (
        table("tabs.tsv", text=lambda n: sentence(), y=lambda n: ("yes", "no")[n % 2]),
        "text_classification",
    ),
    "parquet": (
        table("kept.parquet", text=lambda n: sentence(), label=lambda n: ("a", "b")[n % 2]),
        "text_classification",
    ),
    "json": (
        table("one.json", text=lambda n: sentence(), label=lambda n: ("a", "b")[n % 2]),
        "text_classification",
    ),
    "one column of texts": (table("texts.csv", text=lambda n: sentence(20)), "causal_lm"),
    "lines of a text file": (
        text("book.txt", "\n".join(sentence(20) for _ in range(200))),
        "causal_lm",
    ),
    "prompts and answers": (
        table("chat.jsonl", prompt=lambda n: f"say {n} {sentence()}", answer=lambda n: sentence(4)),
        "causal_lm",
    ),
    "two texts": (
        table("pairs.csv", en=lambda n: f"{sentence()} {n}", de=lambda n: f"{sentence()} {n}"),
        "seq2seq",
    ),
    "two long texts": (
        table("long.csv", en=lambda n: f"{sentence(20)} {n}", de=lambda n: f"{sentence(20)} {n}"),
        "seq2seq",
    ),
    "words and tags": (
        table("tags.jsonl", tokens=lambda n: sentence().split(), tags=lambda n: ["X", "O"] * 4),
        "token_classification",
    ),
    "questions": (reader, "question_answering"),
    "SQuAD's own JSON": (squad, "question_answering"),
    "CoNLL": (text("ner.txt", CONLL), "token_classification"),
    "CoNLL by its name": (text("ner.conll", CONLL), "token_classification"),
    "chats": (
        table(
            "talk.jsonl",
            messages=lambda n: [
                {"role": "user", "content": f"say {n}"},
                {"role": "assistant", "content": str(n)},
            ],
        ),
        "causal_lm",
    ),
    "chats as ShareGPT has them": (
        table(
            "share_gpt.jsonl",
            id=lambda n: str(n),
            conversations=lambda n: [
                {"from": "human", "value": f"say {n}"},
                {"from": "gpt", "value": str(n)},
            ],
        ),
        "causal_lm",
    ),
    "pairs": (
        table(
            "nli.csv",
            premise=lambda n: sentence(),
            hypothesis=lambda n: f"{sentence(4)} {n}",
            label=lambda n: ("yes", "no", "maybe")[n % 3],
        ),
        "text_classification",
    ),
    "several classes": (
        table("emotions.jsonl", text=lambda n: sentence(), labels=lambda n: ["a", "b"][: n % 3]),
        "text_classification",
    ),
    "a number to predict": (
        table("scores.csv", text=lambda n: sentence(), label=lambda n: n / 7),
        "text_classification",
    ),
    "strokes": (
        text("strokes.csv", "text|kind\n" + "\n".join(f"{sentence()}|{n % 2}" for n in range(200))),
        "text_classification",
    ),
    "Western letters": (western, "text_classification"),
    "row numbers without a name": (
        text("index.csv", ",text,y\n" + "\n".join(f"{n},{sentence()},{n % 2}" for n in range(200))),
        "text_classification",
    ),
    "40 classes": (
        table("many.jsonl", text=lambda n: sentence(), label=lambda n: f"c{n % 40}"),
        "text_classification",
    ),
    "words of YAML": (
        table("2024.csv", true=lambda n: sentence(), null=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
    "backslashes": (
        table('back\\sl"ash.csv', text=lambda n: sentence(), label=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
    "rows without labels": (
        table("gaps.csv", text=lambda n: sentence(), label=lambda n: ("a", "b", "")[n % 3]),
        "text_classification",
    ),
    "few short texts": (
        text("few.csv", "text,label\n" + "\n".join(f"word {n},{n % 2}" for n in range(45))),
        "text_classification",
    ),
    "a name with blanks": (
        table("My data (v2).csv", text=lambda n: sentence(), label=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
}

RUNS |= {
    "a constant column beside": (
        table("en.csv", review=lambda n: sentence(), language=lambda n: "en",
              label=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
    "a constant column and two texts": (
        table("pairs.csv", en=lambda n: f"{sentence()} {n}", de=lambda n: f"{sentence()} {n}",
              category=lambda n: "news"),
        "seq2seq",
    ),
    "texts of one language": (
        table("one_lang.csv", text=lambda n: sentence(20), lang=lambda n: "en"), "causal_lm",
    ),
    "a line break in a name": (
        table("breaks.jsonl", **{"review\ntext": lambda n: sentence(),
                                 "a\nlabel": lambda n: "ab"[n % 2]}),
        "text_classification",
    ),
    "a percentage beside": (
        table("shares.csv", percentage=lambda n: n / 7, text=lambda n: sentence(),
              reviewLabel=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
    "a target beside": (
        table("targets.csv", target_price=lambda n: n / 7, text=lambda n: sentence(),
              label=lambda n: "ab"[n % 2]),
        "text_classification",
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Make, str]] = {
    "one row": (text("one.csv", "text,label\nhello,a\n"), "--data has 1 row; a study needs"),
    "no header": (
        text("bare.csv", "\n".join(f"{sentence()},{n % 2}" for n in range(200))),
        "put a line of names before it",
    ),
    "no header, classes as words": (
        text("bare.csv", "\n".join(f"{sentence()},{'ab'[n % 2]}" for n in range(200))),
        "put a line of names before it",
    ),
    "a class a row": (
        table("ids.csv", text=lambda n: sentence(), label=lambda n: f"c{n}"),
        "column 'label' has 200 classes in 200 rows",
    ),
    "a column without a name": (
        text("short.csv", "text,\n" + "\n".join(f"{sentence()},{n % 2}" for n in range(200))),
        "column 2 of short.csv has no name",
    ),
    "a mapping of columns": (
        text("object.json", json.dumps({"text": ["a"] * 60, "label": ["b"] * 60})),
        "object.json is one mapping (text, label); write a list of rows",
    ),
    "rows inside a mapping": (
        text("inside.json", json.dumps({"data": [{"text": "a"}] * 60, "version": 1})),
        "inside.json is one mapping (data, version); write a list of rows",
    ),
    "texts without columns": (
        text("strings.json", json.dumps(["some text"] * 60)), "row 1 is str; must be a mapping",
    ),
    "lists among rows": (
        text("mixed.jsonl", "\n".join(['{"text": "a"}', "[1, 2]"] * 60)), "row 2 is list; must be",
    ),
    "mappings as cells": (
        table("wmt.jsonl", translation=lambda n: {"en": sentence(), "de": sentence()}),
        "column 'translation' has mappings (en, de); write each part as a column",
    ),
    "a table of Excel": (text("sheet.xlsx", "PK"), "sheet.xlsx ends in .xlsx; allowed: .csv"),
    "a folder": (folder_of_data, "is a folder; name one file"),
    "one class": (
        table("same.csv", text=lambda n: sentence(), label=lambda n: "only"),
        "column 'label' has one class, 'only'",
    ),
    "numbers alone": (
        table("numeric.csv", x=lambda n: n, y=lambda n: n * 0.5), "no column has texts",
    ),
    "chat messages": (
        table("talk.jsonl", messages=lambda n: [{"role": "user", "content": sentence()}]),
        "has no message with role assistant",
    ),
    "mappings that are no chat": (
        table("odd.jsonl", turns=lambda n: [{"speaker": "a", "said": sentence()}]),
        "with role and content or from and value",
    ),
    "nothing": (text("none.csv", ""), "none.csv"),
    "no such file": (lambda folder: folder / "absent.csv", "there is no such file"),
    "not a table": (text("page.html", "<html></html>"), "page.html"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RUNS)
def test_a_study_that_starts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, task = RUNS[kind]
    data = make(tmp_path)
    status, out, err = called("init", "--data", str(data))
    assert (status, err) == (0, "")
    (file,) = tmp_path.glob("*.yaml")
    assert file.stem == re.sub(r"\W+", "_", data.stem).strip("_")
    assert out.startswith(f"{file.name}: {task}.")
    spec = read_study(file)
    assert spec.workload.task == task
    assert spec.search.sampler == "surface"
    require_tasks(spec)
    status, _, err = called("init", "--data", str(data))
    assert status == 2
    assert "exists already" in err


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("pairs", {"data.text_pair_column": "hypothesis", "data.text_column": "premise"}),
        ("several classes", {"problem_type": "multi_label_classification"}),
        ("a number to predict", {"problem_type": "regression"}),
        ("rows without labels", {"data.missing_labels": "drop"}),
        ("a constant column beside", {"data.label_column": "label"}),
        ("a line break in a name", {"data.label_column": "a\nlabel"}),
        ("a percentage beside", {"data.label_column": "reviewLabel"}),
        ("a target beside", {"data.label_column": "label"}),
        ("words of YAML", {"data.text_column": "true", "data.label_column": "null"}),
        ("two long texts", {"data.tokenizer": "characters", "data.max_length": 256}),
        ("chats", {"data.messages_column": "messages"}),
        ("chats as ShareGPT has them", {"data.messages_column": "conversations"}),
    ],
)
def test_what_the_data_are_is_in_the_file(
    kind: str, fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called("init", "--data", str(RUNS[kind][0](tmp_path)))[0] == 0
    (file,) = tmp_path.glob("*.yaml")
    workload = read_study(file).workload
    for field, value in fields.items():
        assert attrgetter(field)(workload) == value


@pytest.mark.parametrize("kind", REFUSED)
def test_one_line_says_why_not(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[kind]
    status, out, err = called("init", "--data", str(make(tmp_path)))
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.yaml"))


def test_a_family_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = RUNS["classes as words"][0](tmp_path)
    status, out, _ = called("init", "--data", str(data), "--task", "causal_lm")
    assert status == 0
    assert "causal_lm" in out
    named = ["--task", "token_classification", "--output", "c.yaml"]
    status, _, err = called("init", "--data", str(data), *named)
    assert status == 2
    assert "they look like text_classification" in err
    assert not Path("c.yaml").exists()
    status, _, err = called(
        "init", "--data", str(data), "--task", "regression", "--output", "b.yaml"
    )
    assert status == 2
    assert "'regression' is none of" in err
