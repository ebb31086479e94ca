"""A sampler or a strategy that a match does not know is an error of the type checker."""

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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[2])
def test_a_kind_that_nothing_handles_is_found(
    case: tuple[str, str, str, str], tmp_path: Path
) -> None:
    edited, before, after, found_in = case
    copy = tmp_path / "scaling"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.js"))
    text = (copy / edited).read_text(encoding="utf-8")
    assert text.count(before) == 1
    (copy / edited).write_text(text.replace(before, after), encoding="utf-8")
    checked = subprocess.run(
        [PYRIGHT, "--pythonpath", sys.executable, copy / found_in],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert checked.returncode == 1
    assert "assert_never" in checked.stdout or '"Never"' in checked.stdout
    assert found_in in checked.stdout
