"""The ledger: what was recorded survives, once."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.files.json_text import parse_mapping
from scaling.records.ledger import Ledger, append_line, by_cell, cut_unfinished_line, read_records
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from tests.recipes import recipe


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []

    def trial_started(self, record: TrialRecord) -> None:
        self.told.append(("started", record.trial_id, 0))

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        self.told.append(("measured", trial_id, len(measurements)))

    def trial_ended(self, record: TrialRecord) -> None:
        self.told.append((record.status, record.trial_id, len(record.measurements)))


def record(name: str = "search-a-000") -> TrialRecord:
    return TrialRecord(name, "search", {"global_batch_size": 4}, {}, recipe(4, 0.1, 3))


def points(*steps: int) -> list[Measurement]:
    return [Measurement(s, s * 4, s * 4, s * 0.1, validation_loss=1 / (s + 1)) for s in steps]


def test_a_trial_is_told_written_and_read_back_exactly(tmp_path: Path) -> None:
    watcher = Watcher()
    ledger = Ledger(tmp_path, [watcher])
    ledger.start(record())
    ledger.measure("search-a-000", points(0, 1))
    ledger.measure("search-a-000", points(2))
    ledger.end("search-a-000", "done")
    assert [kind for kind, *_ in watcher.told] == ["started", "measured", "measured", "done"]
    again = Ledger(tmp_path, [])
    assert again.records == ledger.records
    assert by_cell(again.records, {"global_batch_size": 4}) == [ledger.records["search-a-000"]]


def test_a_line_without_targets_is_read(tmp_path: Path) -> None:
    lines = replace(record(), status="done", measurements=tuple(points(0, 1))).to_json()
    old = json.loads(lines)
    for measurement in old["measurements"]:
        del measurement["targets"], measurement["targets_per_second"]
    (tmp_path / "trials.jsonl").write_text(json.dumps(old) + "\n", encoding="utf-8")
    [read] = Ledger(tmp_path, []).records.values()
    assert [m.targets for m in read.measurements] == [None, None]


def test_steps_measured_again_after_a_lost_group_are_not_doubled(tmp_path: Path) -> None:
    watcher = Watcher()
    ledger = Ledger(tmp_path, [watcher])
    ledger.start(record())
    ledger.measure("search-a-000", points(0, 1, 2))
    ledger.start(record())
    ledger.measure("search-a-000", points(0, 1, 2, 3))
    ledger.end("search-a-000", "done")
    ledger.end("search-a-000", "failed")  # the first end counts
    assert [m.step for m in ledger.records["search-a-000"].measurements] == [0, 1, 2, 3]
    assert [told for told in watcher.told if told[0] == "measured"][-1][2] == 1
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 1


def test_a_line_cut_off_by_a_crash_is_left_out_and_overwritten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    for name in ("one", "two"):
        ledger.start(record(name))
        ledger.end(name, "done")
    file = tmp_path / "trials.jsonl"
    file.write_text(file.read_text()[:-40])
    again = Ledger(tmp_path, [])
    assert set(again.records) == {"one"}
    again.start(record("two"))
    again.end("two", "done")
    assert set(Ledger(tmp_path, []).records) == {"one", "two"}


def test_a_line_from_before_recipes_had_parts_is_read(tmp_path: Path) -> None:
    kept = replace(record(), status="done", measurements=tuple(points(0, 1)))
    old = json.loads(kept.to_json())
    old["recipe"] = kept.recipe.columns()
    del old["recipe_of"]
    (tmp_path / "trials.jsonl").write_text(json.dumps(old) + "\n")
    assert Ledger(tmp_path, []).records == {kept.trial_id: kept}


def test_a_failed_trial_runs_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    ledger.start(record())
    ledger.end("search-a-000", "failed", "ValueError: no")
    again = Ledger(tmp_path, [])
    assert again.records["search-a-000"].status == "failed"
    again.start(record())
    again.end("search-a-000", "done")
    assert Ledger(tmp_path, []).records["search-a-000"].status == "done"


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    for name in ("search-a-000", "search-a-001"):
        ledger.start(record(name))
        ledger.end(name, "done")
    file = tmp_path / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert list(Ledger(tmp_path, []).records) == ["search-a-000"]
    assert file.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_what_does_not_fit_on_the_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond a size."""
    file = tmp_path / "lines"
    file.write_text("first\n")
    code = """
import resource, signal, sys
from pathlib import Path
from scaling.records.ledger import append_line
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    append_line(Path(sys.argv[1]), "x" * 500)
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() in ("No space left on device", "File too large")
    assert file.read_text() == "first\n"


WRONG_LINES: dict[str, Any] = {
    "a list": [],
    "a number": 3,
    "nothing": None,
    "an empty mapping": {},
    "no recipe": {"recipe": None},
    "a recipe without a rate": {"recipe": {"global_batch_size": 4}},
    "measurements as text": {"measurements": "many"},
    "a measurement without a step": {"measurements": [{"validation_loss": 1.0}]},
    "a loss as text": {
        "measurements": [
            {"step": 0, "examples": 0, "tokens": 0, "seconds": 0.0, "validation_loss": "low"}
        ]
    },
    "an unknown status": {"status": "fine"},
    "an unknown key": {"more": 1},
    "no name": {"trial_id": None},
    "incidents as numbers": {"incidents": [1]},
}


@pytest.mark.parametrize("what", WRONG_LINES)
def test_a_line_that_is_no_record_is_named(what: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [])
    for name in ("search-a-000", "search-a-001"):
        ledger.start(record(name))
        ledger.measure(name, points(0, 1))
        ledger.end(name, "done")
    file = tmp_path / "trials.jsonl"
    first, second = file.read_text().splitlines()
    assert set(read_records(file)) == {"search-a-000", "search-a-001"}
    change = WRONG_LINES[what]
    wrong = json.loads(first) | change if isinstance(change, dict) and change else change
    file.write_text(f"{json.dumps(wrong)}\n{second}\n")
    with pytest.raises(ValueError, match=r"line 1 of .*trials\.jsonl is not a trial's record \("):
        read_records(file)
    file.write_text(f"{first}\nno JSON\n")
    with pytest.raises(ValueError, match="line 2 of"):
        read_records(file)
    file.write_bytes(first.encode() + b"\n\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2 of"):
        read_records(file)


def test_a_file_is_read_again_only_where_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, lines = tmp_path / "trials.jsonl", []
    read = TrialRecord.from_json

    def counted(line: str, **options: int) -> TrialRecord:
        lines.append(line)
        return read(line, **options)

    monkeypatch.setattr(TrialRecord, "from_json", counted)
    append_line(file, record("search-a-000").to_json())
    known = read_records(file)
    known.clear()  # a reader's own, as a ledger adds to it
    assert list(read_records(file)) == list(Ledger(tmp_path, []).records) == ["search-a-000"]
    assert len(lines) == 1
    append_line(file, record("search-a-001").to_json())
    assert list(read_records(file)) == ["search-a-000", "search-a-001"]
    assert len(lines) == 3


def test_a_recipe_that_was_written_before_it_had_parts_is_read() -> None:
    now = record("search-a-000")
    flat = json.loads(now.to_json()) | {"recipe": now.recipe.columns()}
    assert TrialRecord.from_json(json.dumps(flat)) == now
    del flat["recipe"]["peak_lr"]
    with pytest.raises(ValueError, match=r"recipe\.hyperparameters\.peak_lr: "):
        TrialRecord.from_json(json.dumps(flat))


@pytest.mark.parametrize("size", [0, 1, 5, 6, 7, 13])
@pytest.mark.parametrize("piece", [1, 3, 6, 100])
def test_only_an_unfinished_line_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, piece: int
) -> None:
    """However small the pieces are in which the end is looked for."""
    monkeypatch.setattr("scaling.records.ledger._PIECE", piece)
    whole = b"first\nsecond\n"
    file = tmp_path / "lines"
    file.write_bytes(whole[:size])
    cut_unfinished_line(file)
    assert file.read_bytes() == whole[: whole[:size].rfind(b"\n") + 1]


def test_what_was_written_is_read_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in (parse_mapping, TrialRecord.from_json):
        monkeypatch.setitem(reader.__kwdefaults__, "max_bytes", 100)
    file = tmp_path / "trials.jsonl"
    append_line(file, record().to_json())
    assert list(read_records(file)) == [record().trial_id]
    with pytest.raises(ValueError, match="is larger than 100 bytes"):
        TrialRecord.from_json(record().to_json())
