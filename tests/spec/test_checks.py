"""Checks of studies that were built in Python, and the schema file."""

import functools
import inspect
import json
import types
from typing import Any

import pytest

from scaling.spec.checks.study import CHECKS, check_study
from scaling.spec.schema import SCHEMA_PATH, schema_text, spec_schema
from scaling.spec.study import StudySpec
from tests.spec.contradictions import TOGETHER
from tests.spec.studies import JOINT, LM, QUADRATIC, Case, case_id, changed


class OnlySections:
    """A study that lets a check see the sections it says it reads, and no other."""

    def __init__(self, spec: StudySpec, sections: frozenset[str]) -> None:
        self._spec = spec
        self._sections = sections

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return self._spec.model_dump(**options)  # for what is looked for in every text

    def __getattr__(self, name: str) -> Any:
        if name in StudySpec.model_fields:
            # Where the ladder is broken no check runs at all.
            declared = name in self._sections or name == "ladder"
            assert declared, f"{name} is read but not declared"
            return getattr(self._spec, name)
        attribute = inspect.getattr_static(StudySpec, name)
        if isinstance(attribute, functools.cached_property):
            return attribute.func(self)
        if isinstance(attribute, property):
            assert attribute.fget is not None
            return attribute.fget(self)
        return types.MethodType(attribute, self)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("study", [LM, QUADRATIC, JOINT], ids=lambda study: study["name"])
def test_checks_read_what_they_declare(check: Any, study: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(study)
    assert list(check(OnlySections(spec, CHECKS[check]))) == []


@pytest.mark.parametrize("case", TOGETHER, ids=case_id)
def test_checks_serve_specs_that_were_built_in_python(case: Case) -> None:
    study, changes, path, code = case
    issues = check_study(StudySpec.model_validate(changed(study, changes)))
    assert (path, code) in {(issue.path, issue.code) for issue in issues}


def test_schema_file_is_up_to_date() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), (
        "scaling/spec/study.schema.json is out of date; write it anew with: python -c "
        "'from scaling.spec.schema import SCHEMA_PATH, schema_text; "
        'SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")\''
    )


def test_schema_describes_fields_and_names_no_python_types() -> None:
    schema = spec_schema()
    assert schema["$defs"]["Fixed"]["properties"]["clip_norm"]["description"]
    assert schema["properties"]["storage"]["title"] == "Storage"
    assert not [word for word in ("Annotated", "FieldInfo", "?P<") if word in json.dumps(schema)]
    for reference in _references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []
