"""Study files that come with the package."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2] / "studies"


def shipped_studies() -> Mapping[str, Path]:
    """By name: those of this checkout, or those that the wheel has installed."""
    found = (
        sorted(_CHECKOUT.glob("*.yaml")) if (_CHECKOUT.parent / "pyproject.toml").exists() else []
    )
    return {path.stem: path for path in found or _installed()}


def _installed() -> list[Path]:
    try:
        package = distribution("scaling")
    except PackageNotFoundError:
        return []
    files = [file for file in package.files or () if file.match("share/scaling/studies/*.yaml")]
    return sorted(Path(str(package.locate_file(file))).resolve() for file in files)


def study_file(study: str) -> str:
    """The path of a study file: what was given, unless only the package has one of that name."""
    if not Path(study).exists() and study in (shipped := shipped_studies()):
        return str(shipped[study])
    return study
