"""Analysis returns facts: what a user reads is written in `scaling.report.words`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import scaling.analysis

FOLDER = Path(scaling.analysis.__file__).parent
SENTENCE = re.compile(r"[a-z]+,? [a-z]+[,:]? [a-z]+")
"""Three words of prose in a row: what a message has and a name has not."""


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER))
)
def test_analysis_writes_no_sentence(path: Path) -> None:
    assert list(prose(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("text", [
    'x = "not enough data: no cell"', 'x = f"steps fall as 1/B up to {largest}"',
    'x = "no branch ended"', 'def f():\n    return f"the best rate is the {edge}est tried"',
])  # fmt: skip
def test_a_sentence_is_seen(text: str) -> None:
    assert list(prose(text))


def prose(source: str) -> Iterator[str]:
    """Its strings that are sentences, but for docstrings, errors and members of a Literal."""
    tree = ast.parse(source)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            names |= {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    yield from (text for text in strings(tree) if text not in names and SENTENCE.search(text))


def strings(node: ast.AST) -> Iterator[str]:
    """Strings below a node; a NUL stands for each value put into one."""
    if isinstance(node, ast.Raise | ast.Assert) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        return
    if isinstance(node, ast.JoinedStr):
        parts = (n.value if isinstance(n, ast.Constant) else "\0" for n in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        if not isinstance(node, ast.JoinedStr) or isinstance(child, ast.FormattedValue):
            yield from strings(child)
