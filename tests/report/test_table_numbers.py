"""How numbers in tables are written: decimals, thousands, times."""

from pathlib import Path

import pytest

from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.foreign_tables.table_numbers import Marks, seconds_in

HEADER = ("global_batch_size", "peak_lr", "validation_loss")


def first_row(folder: Path, separator: str, *cells: str, quote: str = "") -> tuple[object, ...]:
    path = folder / "sweep.csv"
    rows = [HEADER, tuple(f"{quote}{cell}{quote}" for cell in cells)]
    path.write_text("\n".join(separator.join(row) for row in rows), encoding="utf-8")
    row = read_table(path).sweep.rows[0]
    return row.global_batch_size, row.peak_lr, row.validation_loss


@pytest.mark.parametrize(
    ("separator", "cells"),
    [
        (";", ("1.000", "0,001", "2,31")),
        (";", ("1 000", "0,001", "2,31")),
        (";", ("1\u202f000", "0,001", "2,31")),
        (";", ("1\u00a0000", "1e-3", "2,31")),
        (";", ("1'000", "0.001", "2.31")),
        (";", ("1’000", "0.001", "2.31")),
        ("\t", ("1.000", "0,001", "2,31")),
        (";", ("1000.0", "0.001", "2.31")),
        (";", ("1000,0", "0,001", "2,31")),
        (",", ("1000.000", "0.001", "2.31")),
    ],
)
def test_one_thousand(separator: str, cells: tuple[str, ...], tmp_path: Path) -> None:
    assert first_row(tmp_path, separator, *cells) == (1000, 0.001, 2.31)


@pytest.mark.parametrize("cells", [("1,000", "0.001", "2.31"), ("1.000", "0,001", "2,31")])
def test_quoted_between_commas(cells: tuple[str, ...], tmp_path: Path) -> None:
    assert first_row(tmp_path, ",", *cells, quote='"') == (1000, 0.001, 2.31)


def test_a_point_in_a_count_is_one_of_decimals_where_other_numbers_have_them(
    tmp_path: Path,
) -> None:
    assert first_row(tmp_path, ";", "32.000", "0.001", "2.310") == (32, 0.001, 2.31)


@pytest.mark.parametrize(
    ("separator", "cells", "words"),
    [
        (";", ("1.000", "1e-3", "2"), "has a point that may stand between thousands"),
        (";", ("1,000", "0,001", "2,0"), "has a comma that may stand between thousands"),
        (";", ("1.000", "0.001", "2,31"), "has a point that may stand between thousands"),
        (";", ("32", "0,001", "2.345"), "has a point that may stand between thousands"),
        (",", ("32", "0.001", '"2,345"'), "has a comma that may stand between thousands"),
        (",", ("32", "0.001", '"2,31"'), "has a comma that may stand between thousands"),
    ],
)
def test_what_may_be_either_is_refused(
    separator: str, cells: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    with pytest.raises(TableError, match=rf"line 2 .* {words}"):
        first_row(tmp_path, separator, *cells)


def test_how_numbers_were_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(
        "global_batch_size;peak_lr;validation_loss;seconds\n1.000;0,001;2,31;1.234,5\n"
        "1.000;0,002;2,21;87,5 sec\n"
    )
    found = read_table(path)
    assert [row.seconds for row in found.sweep.rows] == [1234.5, 87.5]
    assert "Commas in numbers are read as decimal marks." in found.notes
    assert any("between thousands" in note for note in found.notes)
    assert "Times with a unit are read as seconds." in found.notes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("87.5 sec", 87.5), ("87.5s", 87.5), ("1.5min", 90.0), ("1h 2m 3s", 3723.0),
        ("2 hours", 7200.0), ("250 ms", 0.25), ("0 days 00:01:27.500000", 87.5),
        ("1 day, 0:00:01", 86401.0), ("01:02:03", 3723.0), ("12:30", 750.0),
        ("3 apples", None), ("fast", None), ("", None), ("5 s later", None),
    ],
)  # fmt: skip
def test_times_with_units(text: str, seconds: float | None) -> None:
    assert seconds_in(text, Marks()) == seconds


def test_a_point_between_thousands_stays_one_before_a_unit() -> None:
    marks = Marks(decimal=",", between_commas=False)
    assert seconds_in("1.234 s", marks) == 1234
    assert seconds_in("1,5 min", marks) == 90


def test_the_unit_in_a_columns_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(
        "global_batch_size,peak_lr,validation_loss,Runtime (min)\n32,0.001,2.0,30\n"
        "32,0.002,2.1,45 s\n"
    )
    found = read_table(path, rename=[("Runtime (min)", "seconds")])
    assert [row.seconds for row in found.sweep.rows] == [1800, 45]
    assert "Times with a unit are read as seconds." in found.notes


def versions(folder: Path, *words: str) -> Path:
    path = folder / "sweep.csv"
    lines = [",".join((*HEADER, "torch_version"))]
    lines += [f"32,{r},2.0,{w}" for w in words for r in (0.001, 0.002)]
    path.write_text("\n".join(lines))
    return path


def test_versions_are_words(tmp_path: Path) -> None:
    path = versions(tmp_path, "2.1", "2.10")
    cells = read_table(path, axes=["torch_version"]).sweep.cells
    assert [cell["torch_version"] for cell in cells] == ["2.1", "2.10"]
    assert len(read_table(path, where=[("torch_version", "2.1")]).sweep.rows) == 2
    cells = read_table(versions(tmp_path, "1e-4", "0.0001"), axes=["torch_version"]).sweep.cells
    assert [cell["torch_version"] for cell in cells] == [0.0001]


def test_zeros_at_the_end_of_another_number_are_none_of_its_value(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    lines = [f"32,{r},2.0,{d}" for d in ("0.1", "0.10", "0.2") for r in (0.001, 0.002)]
    path.write_text("\n".join((",".join((*HEADER, "dropout")), *lines)))
    for found in (read_table(path, nuisance=["dropout"]), read_table(path)):
        assert {row.choices["dropout"] for row in found.sweep.rows} == {0.1, 0.2}
        assert "Numbers such as 0.1 and 0.10 are the same in: dropout." in found.notes
    assert len(read_table(path, where=[("dropout", "0.1")]).sweep.rows) == 4


@pytest.mark.parametrize("column", ["60*runtime_min", "runtime_min*60"])
def test_a_product_has_no_unit_of_its_own(column: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(",".join((*HEADER, "runtime_min")) + "\n32,0.001,2.0,30\n")
    assert read_table(path, rename=[(column, "seconds")]).sweep.rows[0].seconds == 1800
