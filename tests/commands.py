"""Commands of the package, each in a process of its own."""

import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling.process import exit_with
from tests.forked import SERVER

_MAIN = {"scaling.study": "scaling.study", "scaling.report": "scaling.report.__main__"}


@dataclass(frozen=True)
class Finished:
    """A command that ended: its folder, exit status and output."""

    folder: Path
    status: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """The test's environment without what would send runs elsewhere."""
    hidden = {"MLFLOW_TRACKING_URI", "RAY_ADDRESS"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def run(
    folder: Path,
    *arguments: str,
    module: str = "scaling.study",
    variables: Mapping[str, str] | None = None,
) -> Finished:
    """Run `python -m MODULE …` in a folder, with environment variables, and wait for it."""
    outputs = [folder / "stdout.txt", folder / "stderr.txt"]
    given = environment() | dict(variables or {})
    process = SERVER.Process(target=_run, args=(folder, module, arguments, given, outputs))
    process.start()
    process.join(600)
    assert process.exitcode is not None, f"{module} does not end"
    said = [output.read_text(encoding="utf-8") for output in outputs]
    for output in outputs:
        output.unlink()
    return Finished(folder, process.exitcode, *said)


def _run(
    folder: Path,
    module: str,
    arguments: tuple[str, ...],
    variables: dict[str, str],
    outputs: list[Path],
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for descriptor, output in enumerate(outputs, start=1):
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = [module, *arguments]
    exit_with(importlib.import_module(_MAIN[module]).main(list(arguments)))
