"""A path in a message is one that a person can follow."""

from pathlib import Path

import pytest

from scaling.files.access import why_not_writable
from scaling.files.shown_path import shown_path

ROOT = Path(__file__).parents[1]


def test_inside_the_working_directory_it_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "runs" / "waves") == str(Path("runs", "waves"))
    assert shown_path("..runs/waves") == str(Path("..runs", "waves"))
    assert shown_path(tmp_path) == "."


def test_elsewhere_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    file = tmp_path / "mnt" / "disk"
    assert shown_path(file) == str(file)
    assert shown_path("../../mnt/disk") == str(file)
    file.parent.mkdir()
    file.touch()
    assert why_not_writable(file / "runs") == f"{file} is not a folder"


def test_messages_have_no_other_way_to_show_one() -> None:
    """`os.path.relpath` alone gives `../../../../mnt/disk`."""
    sources = (ROOT / "scaling").rglob("*.py")
    own = ROOT / "scaling" / "files" / "shown_path.py"
    assert [p for p in sources if "relpath" in p.read_text(encoding="utf-8") and p != own] == []
