"""The package as who downloads it has it: a wheel in an environment of its own."""

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.commands import environment

ROOT = Path(__file__).parents[2]
BUILT_FROM = ("scaling", "studies", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it; its libraries are those of the tests.

    Attributes:
        folder: Of the environment.
        wheel: What was installed.
    """

    folder: Path
    wheel: Path

    def call(
        self, *words: str, folder: Path, is_shell: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in a folder, and wait for it."""
        variables = {name: v for name, v in environment().items() if name != "PYTHONPATH"}
        variables["RAY_ADDRESS"] = "local"  # whatever else runs on this machine
        variables["PATH"] = f"{self.folder / 'bin'}:{variables['PATH']}"
        ended = subprocess.run(
            words[0] if is_shell else words, shell=is_shell, cwd=folder, env=variables,
            capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
        return ended


def checked(*words: str | Path, folder: Path) -> str:
    """What a command that must succeed prints."""
    ended = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def copy_of_sources(folder: Path) -> Path:
    """The files that a wheel is built from, without git and whatever else lies in a checkout."""
    folder.mkdir()
    for name in BUILT_FROM:
        checked("cp", "-r", ROOT / name, folder, folder=folder)
    return folder


def built(source: Path, output: Path) -> Path:
    """The wheel of a copy of the sources; nothing is downloaded."""
    checked(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output, ".",
        folder=source,
    )  # fmt: skip
    [wheel] = output.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Installed:
    """A new environment with the wheel, beside the libraries that the tests have."""
    checked(sys.executable, "-m", "venv", "--without-pip", folder, folder=wheel.parent)
    python = folder / "bin" / "python"
    checked(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
        "--no-index", wheel, folder=wheel.parent,
    )  # fmt: skip
    [site] = folder.glob("lib/python*/site-packages")
    # A path in a .pth file comes after the environment's own, and .pth files there are not read:
    # a checkout that is installed for development there is not seen.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return Installed(folder, wheel)
