"""Tables that would take the process down: what is shown is made fit, what is too large refused."""

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.report.__main__ import main
from scaling.report.foreign_tables import table_text
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.page.printable import printable
from tests.commands import run

HEADER = "global_batch_size,peak_lr,validation_loss"
UNFIT = ("\x01", "\x07", "\x0b", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u202e", "\ufffe", "\ufdd0")


def rates(words: tuple[str, ...]) -> list[str]:
    return [
        f"{batch},{lr},{2 + abs(place - 2) / 5},a{word}b"
        for batch in (16, 32)
        for word in words
        for place, lr in enumerate((1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--cell", "--nuisance"])
def test_what_no_picture_can_hold_is_shown_as_its_code(option: str, tmp_path: Path) -> None:
    """In a process of its own, which a control character used to end."""
    path = tmp_path / "sweep\x07.csv"
    column = "kind\x02"
    path.write_text("\n".join([f"{HEADER},{column}", *rates(UNFIT)]), encoding="utf-8")
    arguments = ["--from-csv", str(path), option, column, "--output", "out"]
    done = run(tmp_path, *arguments, module="scaling.report")
    assert done.status == 0, done.stderr[:1500]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    if option == "--cell":
        assert len(summary["cells"]) == 2 * len(UNFIT)  # what differs still does
    pictures = list((tmp_path / "out" / "figures").glob("*.svg"))
    assert pictures
    assert any("a[U+0007]b" in picture.read_text() for picture in pictures)
    for shown in (*pictures, tmp_path / "out" / "report.html", tmp_path / "out" / "report.md"):
        text = shown.read_text()
        assert not [word for word in ("a\x01b", "a\u202eb", "a\ufffeb", "\x07.csv") if word in text]


def test_printable_keeps_what_can_be_shown() -> None:
    assert printable("é ½ 日本 \u200f\u05d0 👍🏽 a\tb\nc") == "é ½ 日本 \u200f\u05d0 👍🏽 a\tb\nc"
    assert printable("a\x00\ud800") == "a[U+0000][U+D800]"


REFUSED: dict[str, tuple[str, str]] = {
    "zero byte": (f"{HEADER}\n32,0.001,2\x00\n", "line 2"),
    "overflow": (f"{HEADER}\n32,1e999,2\n", "line 2"),
    "huge whole number": (f"{HEADER}\n{'9' * 400},0.1,2\n", "line 2"),
    "a truth for a batch": (f"{HEADER}\nTrue,0.1,2\n", "line 2"),
    "a date for a rate": (f"{HEADER}\n32,2024-01-01,2\n", "line 2"),
    "mixed types": (f"{HEADER}\n32,0.1,2\n32,0.1,[1]\n", "line 3"),
    "huge cell": (f"{HEADER}\n32,0.1,{'9' * 200_000}\n", "line 2"),
    "only a header": (f"{HEADER}\n", "no rows left"),
    "blank lines": ("\n\n\n \n", "is empty"),
    "empty names": (",,\n1,2,3\n", "missing column"),
    "duplicate names": (f"{HEADER},peak_lr\n1,2,3,4\n", "two columns"),
    "half a batch after blank lines": (f"{HEADER}\n\n\n1.5,2,3\n", "line 4"),
    "long word": (f"{HEADER},w\n1,2,3,{'w' * 101}\n", "line 2"),
    "control in a header": ("a\x07b\n1\n", "a\\x07b"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_with_the_place(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = REFUSED[name]
    path = tmp_path / "sweep.csv"
    path.write_text(content, encoding="utf-8")
    options = ["--cell", "w"] if name == "long word" else []
    assert main(["--from-csv", str(path), *options, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said
    assert "\x07" not in said


def test_lone_surrogates_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_bytes(f"{HEADER},w\n1,2,3,".encode() + b"\xed\xa0\x80\n")
    with pytest.raises(TableError, match="not UTF-8"):
        read_table(path)


def parquet(path: Path, **columns: Any) -> Path:
    own = {"global_batch_size": [32, 64], "peak_lr": [0.1, 0.2], "validation_loss": [2.0, 1.0]}
    pq.write_table(pa.table(own | columns), path)
    return path


def test_parquet_of_any_type_is_read_or_one_line(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    )
    with pytest.raises(TableError, match="rows 1 to"):
        read_table(parquet(tmp_path / "a.parquet", w=broken))
    far = pa.array([2**62, 1], pa.timestamp("us"))
    with pytest.raises(TableError, match="rows 1 to"):
        read_table(parquet(tmp_path / "b.parquet", w=far))
    nested = read_table(parquet(tmp_path / "c.parquet", w=[{"a": [1]}, None]))
    assert len(nested.sweep.rows) == 2
    with pytest.raises(TableError, match="no rows left"):
        read_table(parquet(tmp_path / "d.parquet", global_batch_size=pa.array([], pa.int64()),
                           peak_lr=pa.array([], pa.float64()),
                           validation_loss=pa.array([], pa.float64())))  # fmt: skip


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sweep.csv", "sweep.csv.gz", "sweep.parquet"])
def test_rows_above_the_limit_are_refused_and_at_it_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_text, "MOST_ROWS", 100)
    for count in (100, 101):
        path = tmp_path / name
        rows = [(16, 1e-4 * (place + 1), 2.0) for place in range(count)]
        if name.endswith("parquet"):
            columns = zip(HEADER.split(","), zip(*rows, strict=True), strict=True)
            parquet(path, **{column: list(values) for column, values in columns})
        else:
            text = "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)]).encode()
            path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        if count == 100:
            assert len(read_table(path).sweep.rows) == 100
        else:
            with pytest.raises(TableError, match="more than 100 rows"):
                read_table(path)


def test_too_many_cells_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join([HEADER, *(f"{n},0.1,2" for n in range(1, 1002))]))
    with pytest.raises(TableError, match="1,000 cells"):
        read_table(path)


BOMBS = {
    "rows": lambda: HEADER.encode() + b"\n" + b"32,0.001,2.5\n" * 90_000_000,
    "one line": lambda: HEADER.encode() + b"\n" + b"3" * (600 << 20),
    "blank lines": lambda: HEADER.encode() + b"\n" * (600 << 20),
    "wide": lambda: HEADER.encode() + b",w\n" + (b"32,0.001,2.5," + b"w" * 100_000 + b"\n") * 6000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_unpacks_to_much_is_refused_in_little_memory(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.csv.gz"
    path.write_bytes(gzip.compress(BOMBS[name](), 1))
    done, peak = report_of(path, tmp_path)
    assert done.returncode == 2, done.stderr[-500:]
    assert done.stderr.count("\n") == 1
    assert peak < 1 << 30


@pytest.mark.slow
def test_a_parquet_file_of_one_long_word_is_refused(tmp_path: Path) -> None:
    word = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["w" * (1 << 24)]))
    done, peak = report_of(parquet(tmp_path / "sweep.parquet", w=word), tmp_path)
    assert done.returncode == 2
    assert "too many to be read" in done.stderr
    assert peak < 1 << 30


def a_grid(file: TextIO) -> None:
    """Ten batch sizes, twenty rates, five thousand seeds."""
    for number in range(1_000_000):
        recipe, seed = divmod(number, 5000)
        batch, place = divmod(recipe, 20)
        loss = 2 + 0.05 * (place / 2 - 3 - 0.4 * batch) ** 2 + (number * 7919 % 9973) / 1e5
        file.write(f"{16 << batch},{1e-4 * 2 ** (place / 2):.6g},{loss:.6f},{seed}\n")


def random_rates(file: TextIO) -> None:
    """A million rates, each tried once."""
    for number in range(1_000_000):
        batch, place = number % 10, (number * 7919 % 1_000_003) / 1e5
        loss = 2 + 0.05 * (place - 3 - 0.4 * batch) ** 2 + (number * 31 % 997) / 1e4
        file.write(f"{16 << batch},{1e-4 * 2**place!r},{loss:.6f},{number}\n")


@pytest.mark.slow
@pytest.mark.parametrize("write", [a_grid, random_rates])
def test_a_million_rows_in_a_minute_and_four_gigabytes(
    write: Callable[[TextIO], None], tmp_path: Path
) -> None:
    """Processor time, since other processes may share the machine."""
    path = tmp_path / "sweep.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{HEADER},seed\n")
        write(file)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done, peak = report_of(path, tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[:1500]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{seconds:.1f} s of processor time, {peak >> 20} MiB")
    assert peak < 4 << 30
    assert seconds < 60
    assert (tmp_path / "out" / "report.html").stat().st_size < 10 << 20
    assert pq.read_metadata(tmp_path / "out" / "trials.parquet").num_rows == 1_000_000


def report_of(path: Path, folder: Path) -> tuple[subprocess.CompletedProcess[str], int]:
    """The command on a table in a process of its own, and the most bytes that it had.

    `ru_maxrss` would count what this process had when it made the other one.
    """
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from scaling.report.__main__ import main\n"
        f"status = main(['--from-csv', {str(path)!r}, '--output', {str(folder / 'out')!r}])\n"
        "status_file = Path('/proc/self/status').read_text()\n"
        "print(int(re.search(r'VmHWM:\\s*(\\d+)', status_file)[1]) * 1024)\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return done, int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("renamed", ["bs", "bs*2"])
def test_of_two_columns_of_one_name_none_is_taken(renamed: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("bs,bs,peak_lr,validation_loss\n32,64,0.001,2.0\n")
    with pytest.raises(TableError, match="two columns are called 'bs'"):
        read_table(path, rename=[(renamed, "global_batch_size")])
