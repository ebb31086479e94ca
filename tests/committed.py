"""Reports as the repository has them; `make study` writes the default one anew where it lies."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def committed(path: str) -> str:
    """A file's text as it is committed or staged; as it lies there, outside a repository."""
    found = subprocess.run(["git", "show", f":{path}"], cwd=ROOT, capture_output=True, check=False)
    return found.stdout.decode() if not found.returncode else (ROOT / path).read_text("utf-8")
