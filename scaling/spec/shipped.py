"""Study files that come with the package."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_PLACE = Path(__file__).parents[2]
"""The checkout, or the folder that the package is installed in."""


def shipped_studies() -> Mapping[str, Path]:
    """By name: those of this checkout, or those that the wheel has installed.

    A name is that of the file below `studies`, as in lr_vs_batch and gallery/ladder.
    """
    is_checkout = (_PLACE / "pyproject.toml").exists()
    folder = _PLACE / "studies" if is_checkout else _installed()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.yaml"))
    }


def _installed() -> Path:
    beside = _PLACE / "share" / "scaling" / "studies"  # as pip install --target has it
    try:
        package = distribution("scaling")
    except PackageNotFoundError:
        return beside
    for file in package.files or ():
        if file.match("share/scaling/studies/*.yaml"):
            place = Path(str(package.locate_file(file))).resolve()
            return place.parent if place.exists() else beside
    return beside


def study_file(study: str) -> str:
    """The path of a study file: what was given, unless only the package has one of that name."""
    if not Path(study).exists() and study in (shipped := shipped_studies()):
        return str(shipped[study])
    return study
