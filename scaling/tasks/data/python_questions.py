"""Questions about Python's standard library that a span of its source answers."""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from scaling.tasks.data.rows import Row

MAX_CONTEXT_CHARACTERS = 1200
MAX_ANSWER_CHARACTERS = 60


def python_questions() -> Iterator[Row]:
    """What is an argument's default, and what does a function return?

    Asked of the functions in the modules of the standard library of the Python that runs, so they
    change with its version; packages are left out, since reading them takes seconds. A function
    that returns in several places is not asked what it returns. A row's text is the function's
    source; questions of a module belong together.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.glob("*.py")):
        yield from questions_of(path.read_bytes(), path.name)


def questions_of(source: bytes, module: str) -> Iterator[Row]:
    """The questions about one module's functions; none for what is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return
    lines = source.splitlines(keepends=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_function(node, lines, module)


def _of_function(
    function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[bytes], module: str
) -> Iterator[Row]:
    context = _between(lines, _start(function), _end(function))
    if context is None or len(context) > MAX_CONTEXT_CHARACTERS:
        return
    for text, node in _asked(function):
        before = _between(lines, _start(function), _start(node))
        answer = _between(lines, _start(node), _end(node))
        if before is None or not answer or len(answer) > MAX_ANSWER_CHARACTERS:
            continue
        yield Row(text=context, prompt=text, answers=((len(before), answer),), group=module)


def _asked(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Questions about a function and the expressions that answer them."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = list(
        zip(positional[len(positional) - len(given.defaults) :], given.defaults, strict=True)
    )
    keyword_only = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    defaults += [(argument, default) for argument, default in keyword_only if default is not None]
    for argument, default in defaults:
        yield f"what is the default of {argument.arg} in {function.name}?", default
    returned = [node.value for node in _own_nodes(function) if isinstance(node, ast.Return)]
    if len(returned) == 1 and returned[0] is not None:
        yield f"what does {function.name} return?", returned[0]


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What is inside a function and not inside another function in it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            yield from _own_nodes(child)


def _start(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno - 1, node.col_offset


def _end(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return (node.end_lineno or node.lineno) - 1, node.end_col_offset or 0


def _between(lines: list[bytes], start: tuple[int, int], end: tuple[int, int]) -> str | None:
    """The source between two places; None where it is not UTF-8.

    Columns count bytes. Slicing lines is forty times as fast as `ast.get_source_segment`, which
    splits the whole source again for each node.
    """
    (first, start_column), (last, end_column) = start, end
    if first == last:
        piece = lines[first][start_column:end_column]
    else:
        piece = b"".join(
            [lines[first][start_column:], *lines[first + 1 : last], lines[last][:end_column]]
        )
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
