"""Versions with known holes are not installed, and a Ray that asks for no token is not used."""

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scaling.runner.own_ray import protect_token

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# The last version with a hole: setuptools CVE-2025-47273, jinja2 CVE-2025-27516.
HOLED = {"setuptools": "78.1.0", "jinja2": "3.1.5"}

_JOINS = """
import sys
from pathlib import Path
import ray
from scaling.runner.cluster import connect, disconnect
from scaling.runner.preflight import StartError
try:
    connect("local", Path(sys.argv[1]))
except StartError as error:
    print(error)
finally:
    disconnect()
"""


def requirements() -> dict[str, Requirement]:
    texts = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    return {parsed.name: parsed for parsed in map(Requirement, texts)}


@pytest.mark.parametrize("name", HOLED)
def test_a_version_with_a_hole_is_not_allowed(name: str) -> None:
    assert not requirements()[name].specifier.contains(HOLED[name])


def test_a_ray_before_the_first_tested_one_is_not_allowed() -> None:
    assert not requirements()["ray"].specifier.contains("2.54.99")


def test_the_fixed_set_is_within_the_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    for name, requirement in requirements().items():
        if name not in ("setuptools", "setuptools-scm"):  # of the build alone
            assert requirement.specifier.contains(Version(pinned[name])), name


@pytest.mark.slow
@pytest.mark.ray
def test_a_ray_that_asks_for_no_token_is_refused(tmp_path: Path) -> None:
    # As Ray 2.55 to 2.58 are where they were imported before anybody asked for a token.
    done = subprocess.run(
        [sys.executable, "-c", _JOINS, str(tmp_path / "ray.log")],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "Ray starts without token authentication; set RAY_AUTH_MODE=token" in done.stdout, (
        done.stderr
    )


def test_the_token_of_clusters_is_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    protect_token()  # there is none
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    protect_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
