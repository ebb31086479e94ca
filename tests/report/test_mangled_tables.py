"""Mangled tables: each gives a report's summary or one line that says what is wrong."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.analysis.findings import analyse
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.summary import summarize

JUNK = (
    "", "-", "nan", "NaN", "inf", "-inf", "None", "null", "N/A", "0", "-1", "1e308", "-1e308",
    "1e-320", "1_000", "1,024", "0,5", "12%", "3 s", "1e", "0x10", "١٢", "½", "true", "FINISHED",
    '{"min": 2.3}', '"', ";", "\t", "\n", "# x", "=A1", "\ufeff", "\x00", "\x85", "\u2028",
    "9" * 400, "running", "64.0", "64.5", " 7 ", "+3e-4", "2**8", "failed",
)  # fmt: skip
HEADER = [
    "global_batch_size", "peak_lr", "validation_loss", "train_loss", "steps", "steps_to_target",
    "seed", "status", "clip_norm", "Name",
]  # fmt: skip


def sound(rng: random.Random) -> list[list[str]]:
    rows = [list(HEADER)]
    for batch in (32, 64, 128):
        for lr in (1e-4, 3e-4, 1e-3, 3e-3):
            for seed in (0, 1):
                loss = 2 + 0.05 * math.log(lr / 5e-4) ** 2 + 0.01 * rng.random()
                rows.append(
                    [f"{batch}", f"{lr}", f"{loss}", f"{loss - 0.1}", "500",
                     f"{100 + 9000 // batch}", f"{seed}", "done", "1.0", f"run-{batch}-{lr}"]
                )  # fmt: skip
    return rows


def written(rows: list[list[str]], separator: str = ",") -> str:
    return "\n".join(separator.join(row) for row in rows) + "\n"


def mangled(number: int) -> bytes:
    """One of many tables, wrong in a way that its number decides."""
    rng = random.Random(number)
    rows = sound(rng)
    way = number % 8
    if way in (0, 1, 2):
        for _ in range(way * 3 + 1):
            row = rng.choice(rows)
            row[rng.randrange(len(row))] = rng.choice(JUNK)
    elif way == 3:
        order = rng.sample(range(len(HEADER)), rng.randint(3, len(HEADER)))
        rows = [[row[i] for i in order] for row in rows]
        rows[1 + rng.randrange(len(rows) - 1)][0] = rng.choice(JUNK)
    elif way == 4:
        content = written(rows).encode()
        return content[: rng.randrange(len(content))]
    elif way == 5:
        encoding = rng.choice(("utf-16", "utf-16-le", "utf-8-sig", "latin-1", "utf-32", "cp1252"))
        rows[1][9] = "é"
        return written(rows, rng.choice(",;\t|")).encode(encoding)
    elif way == 6:
        content = bytearray(written(rows).encode())
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        return bytes(content)
    else:
        column = rng.randrange(len(HEADER))
        for row in rows[1:]:
            row[column] = rng.choice(JUNK[:16])
    return written(rows, rng.choice((",", ";", "\t"))).encode()


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


@pytest.mark.slow
@pytest.mark.parametrize("block", range(8))
def test_a_mangled_table_is_analysed_or_refused_in_one_line(block: int, tmp_path: Path) -> None:
    path = tmp_path / "mangled.csv"
    outcomes: set[str] = set()
    for number in range(block * 40, block * 40 + 40):
        path.write_bytes(mangled(number))
        try:
            summary = summarize(analyse(read_table(path).sweep))
        except TableError as error:
            message = str(error)
            assert "mangled.csv" in message
            assert "\n" not in message
            outcomes.add("refused")
        else:
            json.dumps(summary, allow_nan=False)
            assert all(math.isfinite(value) for value in numbers(summary))
            outcomes.add("analysed")
    assert outcomes == {"refused", "analysed"}


@pytest.mark.parametrize("junk", ["12%", "3 s", "1_000", "0x10", '""', "1e308", "fast"])
@pytest.mark.parametrize("column", HEADER[:6])
def test_junk_in_a_cell_names_its_line_and_column(junk: str, column: str, tmp_path: Path) -> None:
    rows = sound(random.Random(0))
    rows[4][HEADER.index(column)] = junk
    path = tmp_path / "sweep.csv"
    path.write_text(written(rows))
    if junk == '""' and column not in ("global_batch_size", "peak_lr", "validation_loss"):
        read_table(path)
        return
    with pytest.raises(TableError, match=rf"line 5 \(row 4\), column '{column}'"):
        read_table(path)
