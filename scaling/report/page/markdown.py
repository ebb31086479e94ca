"""Text from anywhere as Markdown that says just that text."""

import re
from collections.abc import Iterable, Sequence

_NUMBERS = re.compile(r"\[[-−+\d.,e^×∞ ]*\](?![(\[])")
"""An interval, as in [0.1, 0.2]: brackets that no renderer takes for a link."""
_SPECIAL = re.compile(
    r"""(?P<escape>[\\`*~$|\[\]]|(?<=\])\(|(?<![^\W_])_|_(?![^\W_]))  # also the _ at a word's edge
    |(?P<html><(?=[A-Za-z/!?])|<\Z|&(?=\#?\w+;))
    |(?P<address>(?<=:)//|(?i:\bwww(?=\.)|(?<=\w)@(?=\w)))""",
    re.VERBOSE,
)
_BLOCK = re.compile(r">|\[(?=[^\]]*\]:)|\#{1,6}(?=\s|\Z)|[+-](?=\s|\Z)|-+\Z|=+\Z")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


def escaped(text: str) -> str:
    """One line of Markdown that shows a text as it is: no link, image, HTML, list or heading.

    Line breaks become blanks. Numbers in brackets, as intervals are written, stay readable.
    """
    line = " ".join(text.split())
    parts: list[str] = []
    end = 0
    for interval in _NUMBERS.finditer(line):
        parts += [_inline(line[end : interval.start()]), interval[0]]
        end = interval.end()
    return _start("".join([*parts, _inline(line[end:])]))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are texts as they are."""
    lines = [f"| {' | '.join(map(escaped, cells))} |" for cells in (columns, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(columns)}", *lines[1:]])


def fenced(text: str) -> str:
    """A text between fences longer than any run of backticks in it, as YAML."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _inline(text: str) -> str:
    return _SPECIAL.sub(_replacement, text)


def _replacement(found: re.Match[str]) -> str:
    text = found[0]
    if found["html"]:
        return _ENTITIES[text]
    if found["address"]:
        return {"//": r"\//", "@": r"\@"}.get(text, f"{text}\\")
    return f"\\{text}"


def _start(line: str) -> str:
    """A line that begins as a heading, a quote, a list or a rule does is begun otherwise."""
    if _BLOCK.match(line):
        return f"\\{line}"
    return re.sub(r"\A(\d{1,9})([.)])(?=\s|\Z)", r"\1\\\2", line)
