"""Where `scaling init` reads and writes, and what it then says to do."""

from pathlib import Path

import pytest

from tests.cli.test_app import called
from tests.cli.test_init import RUNS, sentence, table


@pytest.mark.parametrize(
    ("output", "reason"),
    [("new/dir/s.yaml", "No such file or directory"), ("words.csv/s.yaml", "Not a directory")],
)
def test_a_study_file_that_cannot_be_written(
    output: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make = table("words.csv", text=lambda n: sentence(), label=lambda n: "ab"[n % 2])
    status, _, err = called("init", "--data", str(make(tmp_path)), "--output", output)
    assert (status, err.strip()) == (2, f"--output: cannot write {output}: {reason}")


def test_paths_may_be_in_the_home_folder_and_have_blanks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    RUNS["classes as words"][0](tmp_path)
    status, out, _ = called("init", "--data=~/reviews.csv", "--output=~/my study.yaml")
    assert status == 0
    quoted = f"'{tmp_path}/my study.yaml'"
    assert f"scaling plan {quoted}\n" in out
    assert f"scaling run {quoted}\n" in out
    assert f"Then: scaling run {quoted}\n" in (tmp_path / "my study.yaml").read_text("utf-8")
