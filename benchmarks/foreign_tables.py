"""Result tables of other tools through `python -m scaling.report --from-csv`: read or refused?

Each table has a planted answer. It must be read rightly, or be refused with the option that leads
on; with that option it must then be read rightly. Nothing may be read wrongly without a word.

python benchmarks/foreign_tables.py [--only WORDS] [--output DIR]
"""

import argparse
import contextlib
import io
import json
import math
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from planted_exports import exports
from planted_sheets import plain_tables
from planted_tables import Answer, Planted, Refusal

from scaling.report.__main__ import main as report

Outcome = Literal["read rightly", "refused with the way on", "wrong"]
_GRID_STEP = 1.45
"""Ratio up to which a best rate counts as found; rates are a factor of 2 apart."""


def tables() -> list[Planted]:
    """All of them."""
    return [*exports(), *plain_tables()]


def outcome_of(planted: Planted, folder: Path) -> tuple[Outcome, list[str]]:
    """What came of a table, with each of its sets of options, and what was wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / planted.file
    path.write_bytes(planted.content)
    problems: list[str] = []
    for number, (options, expected) in enumerate(planted.tries):
        output = folder / f"report-{number}"
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                status = report(["--from-csv", str(path), *options, "--output", str(output)])
            except SystemExit as error:  # argparse
                status = int(str(error.code or 0))
            except Exception as error:  # noqa: BLE001  # a crash is what is looked for
                status, _ = 1, print(f"CRASH {error!r}", file=said)
        found = _problems(expected, status, said.getvalue(), output)
        problems += [f"{' '.join(options) or '(no options)'}: {problem}" for problem in found]
    if problems:
        return "wrong", problems
    is_read = isinstance(planted.tries[0][1], Answer)
    return ("read rightly" if is_read else "refused with the way on"), []


def _problems(expected: Answer | Refusal, status: int, said: str, output: Path) -> list[str]:
    if isinstance(expected, Refusal):
        if status != 2:
            return [f"not refused: {said.strip()[:300]}"]
        missing = [
            f"does not say {words!r}: {said}" for words in expected.says if words not in said
        ]
        return missing + [f"says {words!r}: {said}" for words in expected.says_not if words in said]
    if status != 0:
        return [f"refused: {said.strip()[:600]}"]
    summary = json.loads((output / "summary.json").read_text())
    shown = (output / "report.md").read_text()
    return [
        *_misread(expected, summary),
        *(f"does not say {words!r}" for words in expected.says if words not in shown),
        *(f"says {words!r}" for words in expected.says_not if words in shown),
    ]


def _misread(expected: Answer, summary: dict[str, Any]) -> list[str]:
    cells = {cell["global_batch_size"]: cell for cell in summary["cells"]}
    problems: list[str] = []

    def check(name: str, found: float | None, planted: float, within: float) -> None:
        if found is None or abs(found - planted) > within:
            problems.append(f"{name} is {found}, planted {planted:.5g}")

    for batch, rate in expected.cells.items():
        found = cells.get(batch, {}).get("best_peak_lr")
        check(f"log best rate at {batch}", found and math.log(found), math.log(rate),
              math.log(_GRID_STEP))  # fmt: skip
    for batch, loss in expected.losses.items():
        check(f"loss at {batch}", cells.get(batch, {}).get("validation_loss"), loss, 0.03)
    for name, values in expected.metrics.items():
        for batch, value in values.items():
            found = cells.get(batch, {}).get("metrics", {}).get(name, {}).get("value")
            check(f"{name} at {batch}", found, value, 0.01 * max(1.0, value))
    recommended = summary["recommendation"]["global_batch_size"]
    if expected.batch == -1:  # sampled: within a factor of 2
        if recommended is None or not 64 <= recommended <= 256:
            problems.append(f"recommends {recommended}")
    elif expected.batch is not None and recommended != expected.batch:
        problems.append(f"recommends {recommended}, planted {expected.batch}")
    if expected.critical is not None:
        value = summary["critical_batch_size"]["steps_examples"]["value"]
        check("critical batch", value, expected.critical, 0.05 * expected.critical)
    if expected.num_trials is not None and summary["num_trials"] != expected.num_trials:
        problems.append(f"has {summary['num_trials']} trials, planted {expected.num_trials}")
    for key, value in expected.known.items():
        found = _at(summary, key)
        if value == "bounded":
            if not found or None in found:
                problems.append(f"{key} is {found}")
        elif found != value:
            problems.append(f"{key} is {found}, planted {value}")
    return problems


def _at(summary: Any, key: str) -> Any:
    for part in key.split("."):
        try:
            summary = summary[int(part)] if part.isdigit() else summary[part]
        except LookupError:
            return "missing"
    return summary


def main() -> None:
    """Read all tables and print what came of each; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="WORDS", help="tables with these in the name")
    parser.add_argument("--output", metavar="DIR", help="keep tables and reports there")
    options = parser.parse_args()
    counts: Counter[Outcome] = Counter()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number, planted in enumerate(t for t in tables() if options.only in t.name):
            folder = Path(options.output or scratch) / f"{number:02d}"
            outcome, problems = outcome_of(planted, folder)
            counts[outcome] += 1
            print(f"{planted.name:48} {outcome}", flush=True)
            for problem in problems:
                print(f"    {problem.strip()}", flush=True)
    figures = {
        "num_tables": sum(counts.values()),
        "num_read_rightly": counts["read rightly"],
        "num_refused_with_the_way_on": counts["refused with the way on"],
        "num_wrong": counts["wrong"],
        "wall_seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
