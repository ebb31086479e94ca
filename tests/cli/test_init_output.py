"""Where `scaling init` reads and writes, and what it then says to do."""

from pathlib import Path

import pytest
import yaml

from scaling.cli.draft import Draft, study_text
from scaling.spec.data import DATA_SUFFIXES
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


@pytest.mark.parametrize("model", [None, "bert-base-uncased"])
@pytest.mark.parametrize("num_rows", [45, 200, 1_000, 50_000])
def test_there_are_batch_sizes_enough_for_an_exponent(num_rows: int, model: str | None) -> None:
    draft = Draft(
        "text_classification", {"text_column": "a", "label_column": "b"}, (), num_rows, 30.0
    )
    text = study_text(draft, Path("reviews.csv"), "reviews", "reviews.yaml", model)
    study = yaml.safe_load(text)
    batches = study["scientific"]["global_batch_size"]
    assert len(batches) >= 3
    assert study["transfer"]["base_batch_size"] == batches[1]
    assert study["search"]["num_trials"] == 6 * len(batches)


def test_the_help_names_every_ending_that_is_read() -> None:
    status, out, _ = called("init", "--help")
    words = " ".join(out.split())
    assert status == 0
    assert all(kind.removeprefix(".") in words for kind in DATA_SUFFIXES)
