"""What `scaling doctor` names, beside what the package has."""

import tomllib
from pathlib import Path

from scaling.cli.doctor import EXTRAS

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_every_extra_is_named_with_what_it_installs() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert EXTRAS.keys() == extras.keys()
    for name, (module, _) in EXTRAS.items():
        packages = [package.replace("-", "_") for package in extras[name]]
        assert any(package.startswith(module) for package in packages), name
