"""Study files that come with the package."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_PLACE = Path(__file__).parents[2]
"""The checkout, or the folder that the package is installed in."""


def shipped_studies() -> Mapping[str, Path]:
    """By name: those of this checkout, or those that the wheel has installed."""
    is_checkout = (_PLACE / "pyproject.toml").exists()
    found = [*_PLACE.glob("studies/*.yaml")] if is_checkout else _installed()
    return {path.stem: path for path in sorted(found)}


def _installed() -> list[Path]:
    try:
        package = distribution("scaling")
    except PackageNotFoundError:
        return []
    listed = [file for file in package.files or () if file.match("share/scaling/studies/*.yaml")]
    places = [Path(str(package.locate_file(file))).resolve() for file in listed]
    beside = _PLACE.glob("share/scaling/studies/*.yaml")  # as pip install --target has it
    return [place for place in places if place.exists()] or list(beside)


def study_file(study: str) -> str:
    """The path of a study file: what was given, unless only the package has one of that name."""
    if not Path(study).exists() and study in (shipped := shipped_studies()):
        return str(shipped[study])
    return study
