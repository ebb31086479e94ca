"""From a YAML file to a `StudySpec`, or to everything that is wrong with it at once.

Imports neither torch nor Ray, so that a bad file is refused in a second.
"""

# pyright: strict

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scaling.spec.checks.study import check_study
from scaling.spec.issues import MAX_ISSUES, Issue, StudyFileError, dotted
from scaling.spec.own_training import with_study_folder
from scaling.spec.patches import set_field
from scaling.spec.schema import listed, locate
from scaling.spec.structural_errors import paths_meant, structural_issues
from scaling.spec.study import StudySpec
from scaling.spec.yaml_text import MAX_DEPTH, parse_yaml

MAX_FILE_BYTES: Final = 256_000
"""A hundred times a usual study file, and what can still be refused in a second or two."""
_KEYS: Final = listed(list(StudySpec.model_fields))


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study file.

    Args:
        path: The YAML file.
        overrides: `dotted.key=value` each, applied in order before anything is checked: the
            value is YAML, sections that are missing are made, a list is indexed by number.

    Raises:
        StudyFileError: With every error that can be found at once: of the file, else of its
            fields and of what they must say together.
    """
    raw = parse_yaml(_read_text(path), source=str(path))
    if raw is None:
        raise StudyFileError([Issue(str(path), "is empty")])
    if not isinstance(raw, dict):
        raise StudyFileError([Issue(str(path), "must be a mapping of sections", raw, _KEYS)])
    study = cast("dict[str, Any]", raw)
    issues: list[Issue] = []
    for override in overrides:
        try:
            _override(study, override)
        except StudyFileError as error:
            issues.extend(error.issues)
    return _validated(with_study_folder(study, path.parent), issues)


def study_from_mapping(raw: Mapping[str, Any]) -> StudySpec:
    """The study that a mapping, as read from a file, describes.

    Raises:
        StudyFileError: As `read_study`.
    """
    return _validated(raw, [])


def _validated(raw: Mapping[str, Any], issues: list[Issue]) -> StudySpec:
    try:
        spec = StudySpec.model_validate(raw)
        broken = frozenset[str]()
    except ValidationError as error:
        errors = error.errors(include_url=False)
        issues = issues + list(islice(structural_issues(errors), MAX_ISSUES + 1))
        broken = _broken_sections(errors)
        spec = StudySpec.model_validate(_with_stand_ins(raw, broken))
    if spec.ladder is not None or "ladder" in broken:
        # Sizes are made of the other sections, and checks look at all sizes.
        issues += [] if broken else _size_issues(spec, StudySpec.model_validate)
        if issues:
            raise StudyFileError(issues)
    issues = issues + check_study(spec, broken=broken)
    issues += [] if issues else _size_issues(spec, study_from_mapping)
    if issues:
        raise StudyFileError(issues)
    return spec


def _size_issues(spec: StudySpec, read: Callable[[dict[str, Any]], StudySpec]) -> list[Issue]:
    """What is wrong with the study at single sizes of its ladder, as far as `read` looks."""
    if spec.ladder is None:
        return []
    patches = {f"ladder.sizes.{n}": patch for n, patch in enumerate(spec.ladder.sizes)}
    patches |= {f"ladder.predict.{n}": patch for n, patch in enumerate(spec.ladder.predict)}
    issues: list[Issue] = []
    for path, patch in patches.items():
        found: Iterable[Issue] = ()
        try:
            read(spec.patched(patch))
        except ValidationError as error:
            found = structural_issues(error.errors(include_url=False))
        except StudyFileError as error:
            found = error.issues
        issues += [replace(issue, path=f"{path}.{issue.path}") for issue in found]
    return issues


# --- the file -----------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        if not path.exists():
            beside = path.with_name(f"{path.name}.yaml")
            meant = f"; did you mean {beside}?" if path.name and beside.is_file() else ""
            raise StudyFileError([Issue(str(path), f"there is no such file{meant}")])
        if not path.is_file():
            raise StudyFileError([Issue(str(path), "is not a file")])
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StudyFileError([Issue(str(path), f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise StudyFileError([Issue(str(path), f"is larger than {MAX_FILE_BYTES} bytes")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x})"
        raise StudyFileError([Issue(str(path), message)]) from None
    if "\0" in text:
        message = f"is not text (byte {content.index(0)} is NUL)"
        raise StudyFileError([Issue(str(path), message)])
    return text


# --- overrides ----------------------------------------------------------------------------------


def _override(study: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys) or len(keys) > MAX_DEPTH:
        raise StudyFileError([Issue(dotted([override]), "must be dotted.key=value, as in seed=1")])
    value = parse_yaml(text, source=f"{path.strip()}={text}")
    set_field(study, keys, value)


# --- broken sections ----------------------------------------------------------------------------

_STAND_INS: Final[Mapping[str, Any]] = {
    "name": "stand-in",
    "question": "stand-in",
    "workload": {"task": "noisy_quadratic"},
    "budget": {"steps": 1},
    "evaluation": {"every_steps": 1},
    "search": {"trials_per_cell": 1},
}
"""Values of the required sections where they are broken; no check looks at them."""


def _broken_sections(errors: Sequence[ErrorDetails]) -> frozenset[str]:
    """Sections with errors, and those that an unknown key seems to mean."""
    places = [str(error["loc"][0]) for error in errors if error["loc"]]
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"][:MAX_ISSUES]
    meant = [path.partition(".")[0] for loc in unknown for path in paths_meant(locate(loc))]
    return frozenset(places + meant)


def _with_stand_ins(raw: Mapping[str, Any], broken: frozenset[str]) -> dict[str, Any]:
    """A valid study that has the sections of this one that are not broken."""
    known = StudySpec.model_fields.keys() - broken
    sound = {name: value for name, value in raw.items() if name in known}
    missing = {name: value for name, value in _STAND_INS.items() if name not in sound}
    return sound | missing
