"""A name from a file, a table or the command line leads nowhere but into the report's folder."""

import itertools
import json
from pathlib import Path

import pytest

from scaling.files.names import file_name
from scaling.report.__main__ import main
from scaling.report.document import write_report
from tests.analysis.synthetic import study

HOSTILE = (
    "", ".", "..", "...", "/", "//", "/etc/passwd", "../x", "..\\x", "-x", "--output", ".x", "~",
    "a/b", "a\\b", "a\0b", "a\nb", "a b", "x" * 1000, "é" * 200, "é" * 199, "\udc80", "*", "a?b",
    "%2e%2e", "\u202egpj", "<b>", "a~b", "A:b", "a.", " ",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_every_name_makes_one_file_here(tmp_path: Path, name: str) -> None:
    made = file_name(name)
    (tmp_path / f"{made}.svg").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [f"{made}.svg"]
    assert made[0] not in ".-"
    assert len(f"{made}.parquet".encode()) <= 255


def test_distinct_names_are_distinct_files() -> None:
    made = [file_name(name) for name in HOSTILE]
    assert len(set(made)) == len(HOSTILE)
    for a, b in itertools.combinations(("a/b", "a b", "a_b", "a:b"), 2):
        assert file_name(a) != file_name(b)


@pytest.mark.parametrize(
    "name", ["lr_vs_batch", "global_batch_size=64,beta2=0.9", "größe", "a.b-c"]
)
def test_a_harmless_name_stays(name: str) -> None:
    assert file_name(name) == name


TABLE = "global_batch_size,peak_lr,validation_loss,{}\n" + "".join(
    f"{size},{rate},{abs(index - 1) + size / 100},{index}\n"
    for size in (8, 16)
    for index, rate in enumerate((0.01, 0.03, 0.1))
)


@pytest.mark.parametrize(
    "column",
    [
        "/../x",
        "<b>",
        *(
            pytest.param(x, marks=[pytest.mark.slow, pytest.mark.ci])
            for x in ("../../../x", "a/b", "..")
        ),
    ],
)
def test_a_column_s_name_stays_in_the_report(tmp_path: Path, column: str) -> None:
    (tmp_path / "t.csv").write_text(TABLE.format(column))
    output = tmp_path / "one/two/output"
    given = ["--from-csv", str(tmp_path / "t.csv"), "--nuisance", column, "--output", str(output)]
    assert main(given) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"t.csv", "one"}
    assert [p.name for p in (tmp_path / "one/two").iterdir()] == ["output"]
    name = file_name(f"loss_vs_{column}")
    assert (output / f"figures/{name}.svg").is_file()
    assert f"figures/{name}.svg" in (output / "report.html").read_text()


def test_a_table_s_name_stays_among_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "...csv").write_text(TABLE.format("seed"))
    assert main(["--from-csv", "...csv"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {"...csv", "reports"}
    assert len(list((tmp_path / "reports").iterdir())) == 1


@pytest.mark.slow
def test_a_foreign_summary_s_name_stays_among_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "one/two"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    for name in ("a", "b"):
        write_report(study(name=name), work / name)
    summary = json.loads((work / "a/summary.json").read_text())
    (work / "a/summary.json").write_text(json.dumps(summary | {"study": "../../../planted"}))
    assert main(["--compare", "a", "b"]) == 0
    assert {p.name for p in work.iterdir()} == {"a", "b", "reports"}
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
