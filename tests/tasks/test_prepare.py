"""A family of tasks is a section of the study file and one module; nothing else names it."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import scaling
from scaling.spec.workloads import FAMILIES, Workload
from scaling.tasks.prepare import prepare_task
from tests.recipes import EVALUATION, quadratic

PACKAGE = Path(scaling.__file__).parent


def test_every_section_of_the_union_is_a_family() -> None:
    assert set(get_args(get_args(Workload)[0])) == set(FAMILIES.values())


@pytest.mark.parametrize("task", FAMILIES)
def test_a_family_has_a_module_of_its_name_that_prepares_it(task: str) -> None:
    hints = get_type_hints(import_module(f"scaling.tasks.{task}").prepare)
    assert hints["workload"] is FAMILIES[task]


def test_the_one_door_leads_to_it() -> None:
    assert type(prepare_task(quadratic(), EVALUATION)).__module__ == "scaling.tasks.noisy_quadratic"


@pytest.mark.parametrize("task", FAMILIES)
def test_nothing_outside_a_family_names_it(task: str) -> None:
    """No check, loop or report asks which family it has: the family says what it can do."""
    own = {PACKAGE / "spec/workloads.py", PACKAGE / f"tasks/{task}.py"}
    names = {FAMILIES[task].__name__, f"{FAMILIES[task].__name__}Task"}
    names.discard("CustomTask")  # what a user's factory returns, and no family's class
    naming = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in own and names & _names_in(path)
    ]
    assert naming == []


@cache
def _names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return used | {alias.name for node in imports for alias in node.names}
