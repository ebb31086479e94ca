"""A study's spec as the text that MLflow keeps of it."""

import re

import yaml

from scaling.spec.study import StudySpec


def spec_to_yaml(spec: StudySpec) -> str:
    """The spec as a study file: what the file named, nulls included, and nothing else."""
    given = spec.model_dump(mode="json", exclude_unset=True)
    return yaml.dump(given, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Texts in quotes where a reader of YAML 1.2 could take them for something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_word = re.fullmatch(r"[A-Za-z_][\w .,/()-]*", text, re.ASCII)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else '"')


_Dumper.add_representer(str, _text)
