"""Which columns `scaling init` reads, and how much room their texts have."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scaling.cli.draft import drafted
from scaling.cli.table_columns import NoDraftError
from scaling.plan.start_checks import require_tasks
from scaling.spec.read import read_study
from scaling.tasks.errors import DataError
from tests.cli.test_app import called
from tests.cli.test_init import sentence, table


@pytest.mark.parametrize(
    ("name", "encoding", "mark"),
    [
        ("semi.csv", "cp1252", ";"),
        ("semi.csv.gz", "utf-8", ";"),
        ("tabs.tsv", "utf-16", "\t"),
        ("tabs.csv.gz", "utf-16", "\t"),
    ],
)
def test_a_header_is_read_as_the_rows_are(
    name: str, encoding: str, mark: str, tmp_path: Path
) -> None:
    rows = [("Größe", "Klasse"), *((sentence(), ("groß", "klein")[n % 2]) for n in range(200))]
    lines = "".join(f"{text}{mark}{label}\n" for text, label in rows)
    pack = gzip.compress if name.endswith(".gz") else bytes
    (tmp_path / name).write_bytes(pack(lines.encode(encoding)))
    (tmp_path / "usual.csv").write_text(lines.replace(mark, ","), encoding="utf-8")
    found = drafted(tmp_path / name)
    assert found == drafted(tmp_path / "usual.csv")
    assert found.task == "text_classification"
    assert set(found.columns.values()) == {"Größe", "Klasse"}


def test_a_first_line_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.csv").write_text("a" * 140_000 + ",label\n" + "b,c\n" * 99)
    with pytest.raises(DataError, match=r"cannot read .*long.csv: field larger than field limit"):
        drafted(tmp_path / "long.csv")


SPLITS = ("train", "Training", "dev", "test", "validation")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split", lambda n: SPLITS[n % 5]), ("data_set", lambda n: SPLITS[n % 5]),
        ("subset", lambda n: "train"), ("part", lambda n: SPLITS[n % 5]),
        ("fold", lambda n: str(n % 5)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": None}, {"text_column": "text"}),
        ({"text": None, "label": "ab"}, {"text_column": "text", "label_column": "label"}),
        ({"review": None, "verdict": "ab"}, {"text_column": "review", "label_column": "verdict"}),
        ({"en": None, "de": None}, {"source_column": "en", "target_column": "de"}),
        ({"prompt": None, "answer": None}, {"prompt_column": "prompt", "answer_column": "answer"}),
    ],
)
def test_a_column_of_splits_is_no_label_and_no_text(
    name: str,
    value: Callable[[int], object],
    columns: dict[str, str | None],
    expected: dict[str, str],
    tmp_path: Path,
) -> None:
    cells = {
        column: (lambda n: f"{sentence()} {n}") if classes is None else (lambda n: "ab"[n % 3 > 0])
        for column, classes in columns.items()
    }
    found = drafted(table("splits.csv", **{name: value}, **cells)(tmp_path))
    assert found.columns == expected
    assert f"Not read: {name};" in " ".join(found.why)


def test_classes_may_have_names_of_splits(tmp_path: Path) -> None:
    make = table("x.csv", text=lambda n: sentence(), label=lambda n: ("train", "test")[n % 2])
    assert drafted(make(tmp_path)).columns["label_column"] == "label"
    make = table("y.csv", text=lambda n: sentence(), set=lambda n: ("cups", "plates")[n % 2])
    assert drafted(make(tmp_path)).columns["label_column"] == "set"


@pytest.mark.parametrize(
    ("columns", "length"),
    [
        ({"prompt": 20, "answer": 5}, range(120, 200)),
        ({"instruction": 60, "output": 20}, range(300, 600)),
        ({"messages": 60}, range(300, 600)),
    ],
)
def test_prompts_have_room_for_their_answers(
    columns: dict[str, int], length: range, tmp_path: Path
) -> None:
    def chat(n: int) -> object:
        said = (("user", sentence(60)), ("assistant", f"yes {n}"))
        return [{"role": role, "content": content} for role, content in said]

    cells = {
        name: chat if name == "messages" else (lambda n, count=count: f"{sentence(count)} {n}")
        for name, count in columns.items()
    }
    path, output = table("asked.jsonl", **cells)(tmp_path), tmp_path / "asked.yaml"
    assert called("init", "--data", str(path), "--output", str(output))[0] == 0
    assert read_study(output).workload.data.max_length in length
    require_tasks(read_study(output))


def lines_of(tmp_path: Path, row: Callable[[int], dict[str, object]]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row(n)) for n in range(80)), encoding="utf-8")
    return path


@pytest.mark.parametrize("empty", [None, " ", float("nan"), "\u200b"])
def test_what_the_reader_misses_is_left_out(empty: object, tmp_path: Path) -> None:
    path = lines_of(
        tmp_path,
        lambda n: {"text": f"{sentence()} {n}", "label": empty if n % 9 == 0 else float(n % 2)},
    )
    found = drafted(path)
    assert found.problem_type is None
    assert found.left_out == {"missing_labels": "drop"}
    assert "9 rows without label are left out." in found.why


def test_a_word_for_no_number_makes_no_regression(tmp_path: Path) -> None:
    make = table("x.csv", text=lambda n: sentence(), label=lambda n: ("nan", "0", "1")[n % 3])
    assert drafted(make(tmp_path)).problem_type is None


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (lambda n: n, "regression"), (lambda n: n / 8, "regression"),
        (lambda n: f"{n % 5}.0", None), (lambda n: n % 5, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["score", "user_rating"])
def test_scores_and_ratings_are_labels(
    name: str, value: Callable[[int], object], kind: str | None, tmp_path: Path
) -> None:
    found = drafted(
        lines_of(tmp_path, lambda n: {"text": f"{sentence()} {n}", "by": "x", name: value(n)})
    )
    assert found.columns == {"text_column": "text", "label_column": name}
    assert found.problem_type == kind
    assert "Not read: by." in found.why


def test_a_score_beside_classes_or_two_texts_is_no_label(tmp_path: Path) -> None:
    topics = lines_of(
        tmp_path, lambda n: {"text": f"{sentence()} {n}", "score": n / 8, "kind": "ab"[n % 2]}
    )
    found = drafted(topics)
    assert found.columns == {"text_column": "text", "label_column": "kind"}
    assert found.problem_type is None
    pairs = lines_of(
        tmp_path, lambda n: {"de": f"{sentence()} {n}", "en": f"{sentence()} {n}", "score": n}
    )
    assert drafted(pairs).columns == {"source_column": "de", "target_column": "en"}
    assert "Not read: score." in drafted(pairs).why


def tagged(*names: str) -> Callable[[int], dict[str, object]]:
    tags = {name: ["X", "O"] for name in names}
    return lambda n: {"id": n, "tokens": [f"a{n}", "b"], **tags}


def test_of_several_lists_those_named_so_are_words_and_tags(tmp_path: Path) -> None:
    found = drafted(lines_of(tmp_path, tagged("pos_tags", "ner_tags", "chunk_tags")))
    assert found.columns == {"tokens_column": "tokens", "tags_column": "ner_tags"}
    assert "Not read: id, pos_tags, chunk_tags." in found.why
    with pytest.raises(NoDraftError, match=r"3 columns have lists \(tokens, pos_tags, chunk_tags"):
        drafted(lines_of(tmp_path, tagged("pos_tags", "chunk_tags")))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("prompt", "chosen", "rejected"), "columns chosen and rejected are preferences"),
        (("instruction", "input", "output"), "instruction and input are two parts of a prompt"),
    ],
)
def test_columns_that_no_task_reads_are_refused(
    columns: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(NoDraftError, match=message):
        drafted(lines_of(tmp_path, lambda n: {name: f"{sentence()} {n}" for name in columns}))


def test_an_input_that_is_always_empty_is_not_read(tmp_path: Path) -> None:
    def row(n: int) -> dict[str, object]:
        return {"instruction": f"{sentence()} {n}", "input": "", "output": f"{sentence()} {n}"}

    found = drafted(lines_of(tmp_path, row))
    assert found.columns == {"prompt_column": "instruction", "answer_column": "output"}
    assert "Not read: input." in found.why
