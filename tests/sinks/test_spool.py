"""The queue on disk, by itself."""

import threading
from pathlib import Path

import pytest

from scaling.sinks.spool import Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.jsonl"


def texts(spool: Spool) -> list[str]:
    return [line.text for line in spool.read()]


def test_lines_are_read_in_order_until_they_are_taken(path: Path) -> None:
    spool = Spool(path)
    for text in "abc":
        spool.append(text)
    assert texts(spool) == ["a", "b", "c"]
    assert spool.count() == 3

    spool.take(spool.read()[0].end)
    assert texts(spool) == ["b", "c"]
    assert spool.count() == 2
    assert path.read_text() == "a\nb\nc\n"

    spool.take(spool.read()[-1].end)
    assert path.read_text() == ""
    spool.append("d", durable=True)
    assert texts(spool) == ["d"]


def test_what_is_not_taken_is_there_for_the_next_process(path: Path) -> None:
    first = Spool(path)
    first.append("a")
    first.append("b")
    first.take(first.read()[0].end)
    first.release()

    second = Spool(path)
    second.append("c")
    assert [(line.text, line.is_leftover) for line in second.read()] == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]
    second.take(second.read()[-1].end)
    second.append("d")
    assert [line.is_leftover for line in second.read()] == [False]


@pytest.mark.parametrize("whole", ["", "a\nb\n"])
@pytest.mark.parametrize("cut", ['{"event": "tri', "x" * 3_000_000])
def test_a_line_that_a_crash_cut_off_is_removed(path: Path, whole: str, cut: str) -> None:
    path.write_text(whole + cut)
    spool = Spool(path)
    spool.append("c")
    assert path.read_text() == whole + "c\n"


def test_a_round_is_bounded_and_a_longer_line_is_read_whole(path: Path) -> None:
    spool = Spool(path)
    lines = ["s" * 600_000, "t" * 600_000, "u" * 3_000_000, "v"]
    for line in lines:
        spool.append(line)
    rounds: list[list[str]] = []
    while spool.count():
        rounds.append(texts(spool))
        spool.take(spool.read()[-1].end)
    assert rounds == [lines[:1], lines[1:2], lines[2:]]


def test_the_reader_waits_for_lines_and_ends_after_the_last(path: Path) -> None:
    spool = Spool(path)
    seen: list[str] = []

    def read_all() -> None:
        while spool.wait():
            lines = spool.read()
            seen.extend(line.text for line in lines)
            spool.take(lines[-1].end)

    reader = threading.Thread(target=read_all)
    reader.start()
    for number in range(5000):
        spool.append(str(number))
    spool.close_to_appending()
    reader.join(30)

    assert not reader.is_alive()
    assert seen == [str(number) for number in range(5000)]
    assert path.read_text() == ""
    with pytest.raises(ValueError, match="is closed"):
        spool.append("late")


def test_a_full_disk_is_said(path: Path) -> None:
    spool = Spool(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left on device"):
        spool.append("a")
    spool.close_to_appending()
    assert not spool.wait()


def test_nothing_is_left_of_a_line_for_which_there_was_no_room(path: Path) -> None:
    """The kernel writes what fits below the size limit and refuses the rest."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    spool = Spool(path)
    spool.append("a")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError, match="File too large"):
            spool.append("b" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    spool.append("c")
    assert path.read_text() == "a\nc\n"
    assert texts(spool) == ["a", "c"]
