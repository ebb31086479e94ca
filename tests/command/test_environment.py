"""What is recorded of the machine and the package."""

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from scaling.command import environment


def commit_seen_from(root: Path) -> str | None:
    """The commit where the package's file lies under this folder."""
    file = root / "scaling" / "command" / "environment.py"
    file.parent.mkdir(parents=True)
    shutil.copy(environment.__file__, file)
    spec = spec_from_file_location("copied_environment", file)
    assert spec is not None
    assert spec.loader is not None
    copied = module_from_spec(spec)
    spec.loader.exec_module(copied)
    return copied._commit()


def test_the_commit_is_of_the_packages_own_checkout(tmp_path: Path) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert commit_seen_from(tmp_path) == head.stdout[:12]
    assert commit_seen_from(tmp_path / ".venv" / "lib") is None


def test_a_package_without_metadata_has_an_unknown_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "no-such-package"))
    known = environment.describe_environment()
    assert known["version_no-such-package"] == "unknown"
    assert known["version_torch"] != "unknown"
