"""A new sampler or strategy is told apart by its list; a match without it is a type error."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scaling

PACKAGE = Path(scaling.__file__).parent
PYRIGHT = Path(sys.executable).with_name("pyright")
CASES = [
    ("spec/phases.py", 'AdaptiveName = Literal["tpe"]', 'AdaptiveName = Literal["tpe", "gp"]',
     "search/optuna.py"),
    ("spec/phases.py", 'DesignName = Literal["qmc",', 'DesignName = Literal["halton", "qmc",',
     "space/designs.py"),
    ("spec/resources.py", 'Strategy = Literal["ddp",', 'Strategy = Literal["pp", "ddp",',
     "training/build.py"),
]  # fmt: skip
"""A file, what it says, what is said in its place, and the file that does not know it."""


def with_a_name_more(case: tuple[str, str, str, str], folder: Path) -> Path:
    """A copy of the package in which a file says something else."""
    edited, before, after, _ = case
    copy = folder / "scaling"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.js"))
    text = (copy / edited).read_text(encoding="utf-8")
    assert text.count(before) == 1
    (copy / edited).write_text(text.replace(before, after), encoding="utf-8")
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_a_kind_that_nothing_handles_is_found(
    case: tuple[str, str, str, str], tmp_path: Path
) -> None:
    copy, found_in = with_a_name_more(case, tmp_path), case[3]
    checked = subprocess.run(
        [PYRIGHT, "--pythonpath", sys.executable, copy / found_in],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert checked.returncode == 1
    assert "assert_never" in checked.stdout or '"Never"' in checked.stdout
    assert found_in in checked.stdout


@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case[2])
def test_a_sampler_is_of_the_kind_whose_name_it_is(
    case: tuple[str, str, str, str], tmp_path: Path
) -> None:
    with_a_name_more(case, tmp_path)
    code = (
        "from scaling.spec.phases import Search\n"
        "for name in ('gp', 'halton', 'tpe', 'qmc', 'surface'):\n"
        "    search = Search.model_construct(sampler=name)\n"
        "    print(name, search.design, search.adaptive)\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    kinds = asked.stdout.splitlines()
    assert kinds[2:] == ["tpe None tpe", "qmc qmc None", "surface None None"]
    assert ("gp None gp" if "gp" in case[2] else "halton halton None") in kinds
