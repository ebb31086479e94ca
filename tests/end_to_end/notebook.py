"""Notebooks without Jupyter: cells run one after another, and what they say is their output.

`python -m tests.end_to_end.notebook docs/first_study.ipynb` runs one and writes its outputs.
"""

import ast
import io
import json
import sys
from base64 import b64encode
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import altair as alt


def read(path: Path) -> dict[str, Any]:
    """A notebook, as its file has it."""
    return json.loads(path.read_text(encoding="utf-8"))


def executed(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run all code cells in one namespace; the outputs of each, as a notebook keeps them."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [_outputs("".join(cell["source"]), names, n) for n, cell in enumerate(cells, start=1)]


def _outputs(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        code = None if last is None else ast.unparse(last)
        value = None if code is None else eval(compile(code, f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(text)})
    if value is not None:
        outputs.append(
            {
                "output_type": "execute_result", "execution_count": number, "metadata": {},
                "data": _shown(value),
            }
        )  # fmt: skip
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """What a notebook shows of a value."""
    if isinstance(value, alt.TopLevelMixin):
        drawn = io.BytesIO()
        value.save(drawn, format="png")  # what every viewer shows
        return {"image/png": b64encode(drawn.getvalue()).decode()}
    shown: dict[str, Any] = {"text/plain": _lines(repr(value))}
    if hasattr(value, "_repr_html_"):
        shown["text/html"] = _lines(value._repr_html_())
    return shown


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook = read(path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, executed(notebook), strict=True), start=1):
        cell |= {"execution_count": number, "outputs": outputs}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
