"""The pages that a reader follows, and what is in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HISTORY = ("decisions", "generated", "log.md")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.relative_to(ROOT / "docs").parts[0] not in _HISTORY
    ),
]
"""Every page but those that say what once was, and long tables."""


def name_of(page: Path) -> str:
    """A page as the repository names it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages; "" is a block that names none."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", text, re.M | re.S)
    return [
        re.sub(rf"^{indent}", "", body, flags=re.M)
        for indent, language, body in found
        if language in languages
    ]
