"""Every command of the pages is one that its program takes, options and all."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
import typer

from scaling.cli.app import app
from scaling.report.__main__ import _parser as report_parser
from scaling.spec.changes import changes
from scaling.spec.read import read_study
from scaling.spec.shipped import shipped_studies
from scaling.study import _parser as study_parser
from tests.docs.pages import PAGES, ROOT, blocks, name_of

OTHERS = {"aws", "chmod", "export", "pip", "sed"}
"""Programs that are no part of this and not installed with it."""
INLINE = re.compile(r"`((?:scaling|make|python -m scaling\.\w+|python benchmarks/\S+) [^`]+)`")


def commands(page: Path) -> Iterator[str]:
    """Every line to type; what a program prints is left out."""
    for block in [*blocks(page, "sh"), *blocks(page, "console")]:
        lines = block.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        yield from (part for line in lines for part in re.split(r" && |; (?=scaling )", line))
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from INLINE.findall(text)


EVERY = [(page, line) for page in PAGES for line in commands(page) if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_says_what_it_is(page: Path) -> None:
    assert blocks(page, "") == []


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{name_of(p)}: {c}" for p, c in EVERY])
def test_a_command_is_one(page: Path, line: str) -> None:
    match shlex.split(line, comments=True):
        case ["scaling", name]:
            assert name in typer.main.get_command(app).commands
        case ["scaling", "report", *rest]:
            report_parser("scaling report").parse_args(rest)
        case ["scaling", *rest]:
            parsed(typer.main.get_command(app), "scaling", rest)
            require_study(rest)
        case ["python", "-m", "scaling.report", *rest]:
            report_parser("python").parse_args(rest)
        case ["python", "-m", "scaling.study", *rest]:
            study_parser(["python"]).parse_args(rest)
        case ["python", "-m", "pytest", *rest]:
            assert all((ROOT / w).exists() for w in rest if w.startswith("tests"))
        case ["python", script, *rest]:
            text = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in rest if word.startswith("--"))
        case ["make", *rest]:
            goals = re.findall(
                r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M
            )
            assert {word for word in rest if "=" not in word} <= set(goals)
        case ["mlflow", *rest]:
            from mlflow.cli import cli as mlflow

            parsed(mlflow, "mlflow", rest)
        case ["ray", *rest]:
            from ray.scripts.scripts import cli as ray

            parsed(ray, "ray", rest)
        case [program, *_]:
            assert program in OTHERS or program.startswith(".venv/")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_study_takes_every_resume_of_a_page_one_after_the_other(page: Path) -> None:
    last = {}
    for line in commands(page):
        match shlex.split(line, comments=True):
            case ["scaling", "resume", name, *rest] if file := shipped_studies().get(name):
                before = last.get(name, read_study(file))
                last[name] = read_study(file, [b for a, b in pairwise(rest) if a == "--set"])
                refused = [str(one) for one in changes(before, last[name]) if one.refusal]
                assert refused == [], line
            case _:
                pass


def parsed(command: click.Command, name: str, words: list[str]) -> None:
    """Raises what click says of words that a command does not take; runs nothing."""
    context = command.make_context(name, list(words))
    if isinstance(command, click.Group):
        given = [*context._protected_args, *context.args]
        found, inner, rest = command.resolve_command(context, given)
        assert inner is not None
        parsed(inner, str(found), rest)


def require_study(words: list[str]) -> None:
    """A study that comes with the package takes what a line changes in it."""
    if words[0] in ("run", "plan", "resume") and (file := shipped_studies().get(words[1])):
        read_study(file, [b for a, b in pairwise(words) if a == "--set"])
