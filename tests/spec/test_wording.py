"""How every issue is worded, as tests/data/errors.txt has it.

`python -m tests.spec.test_wording > tests/data/errors.txt` writes that file anew.
"""

import json
import os
import tempfile
from pathlib import Path

from tests.spec.contradictions import TOGETHER
from tests.spec.malformed_fields import STRUCTURE
from tests.spec.malformed_files import TEXTS
from tests.spec.studies import DROP, issues_of, issues_of_text

SNAPSHOT = Path(__file__).parents[1] / "data" / "errors.txt"


def wording(folder: Path) -> str:
    """The changes of each case and the lines that are said of them."""
    blocks: list[str] = []
    for study, changes, _, _ in STRUCTURE + TOGETHER:
        shown = {path: "(left out)" if value is DROP else value for path, value in changes.items()}
        written = json.dumps(shown, ensure_ascii=False)[:300]
        issues = issues_of(folder, study, changes)
        blocks.append("\n  ".join([f"{study['name']} with {written}", *map(str, issues)]))
    for kind, (content, _, _) in TEXTS.items():
        issues = issues_of_text(folder, content)
        blocks.append("\n  ".join([f"a file: {kind}", *map(str, issues)]))
    text = "\n".join(blocks).replace(str(folder) + os.sep, "")
    return text.replace(str(Path.cwd()), "(working directory)") + "\n"


def test_wording(tmp_path: Path) -> None:
    assert wording(tmp_path).splitlines() == SNAPSHOT.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(wording(Path(folder)), end="")
