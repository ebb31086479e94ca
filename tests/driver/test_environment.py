"""What is recorded of the machine and the package."""

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from scaling.driver import environment


def commit_seen_from(file: Path) -> str | None:
    """The commit where this is the package's file."""
    spec = spec_from_file_location("copied_environment", file)
    assert spec is not None
    assert spec.loader is not None
    copied = module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied._commit()


def test_the_commit_is_of_the_checkout_that_the_package_is_part_of(tmp_path: Path) -> None:
    files = [
        tmp_path / folder / "scaling/driver/environment.py"
        for folder in ("", "third_party/scaling", ".venv/lib/python/site-packages")
    ]
    for file in files:
        file.parent.mkdir(parents=True)
        shutil.copy(environment.__file__, file)
    (tmp_path / ".gitignore").write_text(".venv\n__pycache__\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    commit = head.stdout[:12]
    assert [commit_seen_from(file) for file in files] == [commit, commit, None]
    (tmp_path / ".gitignore").write_text("")
    assert [commit_seen_from(file) for file in files] == [*[f"{commit}-dirty"] * 2, None]


def test_a_package_without_metadata_has_an_unknown_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package"))
    known = environment.describe_environment()
    assert known["version_no-such-package"] == "unknown"
    assert known["version_torch"] != "unknown"
