"""How often the 90% intervals of a report cover a planted truth, and how wide they are.

    python benchmarks/interval_coverage.py [--studies 200] [--only NAME] [--write FILE]

Every study is drawn, analysed and summarized as a real one is (rows, `analyse`, `summarize`),
then its summary is read. Seeds follow from the case's name and the study's number. An interval
that is missing ("not enough data") counts as such, not as covering. The last line is JSON.
"""

import argparse
import json
import math
import statistics
import zlib
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import numpy as np
import planted_bends
import planted_rates
import planted_targets
from coverage_case import Case, Flag, Reading
from rich.console import Console
from rich.table import Table

from scaling.analysis.findings import analyse
from scaling.report.summary import summarize

START, END = "<!-- coverage: start -->", "<!-- coverage: end -->"


@dataclass(frozen=True)
class Line:
    """What came out for one quantity of one case.

    Attributes:
        covered: Share of the intervals that contain the truth; None for a flag.
        width: Median of high − low, of log rates and batches the ratio high / low.
        absent: Share of studies without an interval.
        raised: Share of flags that were raised; None for an interval.
    """

    case: str
    quantity: str
    count: int
    covered: float | None = None
    width: float | None = None
    absent: float | None = None
    raised: float | None = None


def all_cases() -> list[Case]:
    """Every case there is."""
    return [*planted_rates.cases(), *planted_targets.cases(), *planted_bends.cases()]


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=200, help="of each case")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--write", type=Path, help="a file with the table's two markers")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    names = [case.name for case in all_cases() if options.only in case.name]
    if not names:
        parser.error(f"no case's name contains {options.only!r}")
    with ProcessPoolExecutor(options.processes) as pool:
        groups = pool.map(lines_of, names, [options.studies] * len(names))
        lines = [line for group in groups for line in group]
    Console(width=120).print(_table(lines))
    if options.write:
        write_between_markers(options.write, _markdown(lines, options.studies))
    print(json.dumps(_as_json(lines), allow_nan=False))


def lines_of(name: str, num_studies: int) -> list[Line]:
    """One case, by its name, since a process cannot be sent a function inside a function."""
    case = next(case for case in all_cases() if case.name == name)
    found: dict[str, list[Reading | Flag]] = defaultdict(list)
    for number in range(num_studies):
        for reading in readings_of(case, number):
            found[reading.quantity].append(reading)
    return list(starmap(lambda quantity, all_: _line(name, quantity, all_), found.items()))


def readings_of(case: Case, number: int) -> list[Reading | Flag]:
    """What the summary of one study says."""
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), number])
    return case.read(summarize(analyse(case.sweep(rng, number))), number)


def _line(case: str, quantity: str, found: list[Reading | Flag]) -> Line:
    raised = [entry.raised for entry in found if isinstance(entry, Flag)]
    if raised:
        return Line(case, quantity, len(raised), raised=sum(raised) / len(raised))
    readings = [entry for entry in found if isinstance(entry, Reading)]
    known = [(r.interval, r.truth) for r in readings if r.interval is not None]
    absent = 1 - len(known) / len(readings)
    if not known:
        return Line(case, quantity, len(readings), absent=absent)
    covered = sum(
        (low is None or low <= truth) and (high is None or truth <= high)
        for (low, high), truth in known
    ) / len(known)  # fmt: skip
    is_ratio = any(word in quantity for word in ("_lr", "batch", "steps"))
    widths = [
        math.inf if low is None or high is None else high / low if is_ratio else high - low
        for (low, high), _ in known
    ]
    width = statistics.median(widths)
    return Line(
        case, quantity, len(readings), covered, width if math.isfinite(width) else None, absent
    )


def _words(line: Line) -> tuple[str, ...]:
    if line.raised is not None:
        return line.case, line.quantity, f"{line.count}", "–", "–", "–", f"{line.raised:.1%}"
    covered = "–" if line.covered is None else f"{line.covered:.1%}"
    width = "–" if line.width is None else f"{line.width:.3g}"
    return line.case, line.quantity, f"{line.count}", covered, width, f"{line.absent:.1%}", "–"


COLUMNS = ("case", "quantity", "intervals", "covered", "median width", "no interval", "raised")


def _table(lines: list[Line]) -> Table:
    table = Table(*COLUMNS, title="90% intervals and flags on planted studies")
    for line in lines:
        table.add_row(*_words(line))
    return table


def _markdown(lines: list[Line], num_studies: int) -> str:
    head = f"{num_studies} studies a case. Widths of rates and batches are high / low.\n\n"
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_words, lines)]
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_between_markers(path: Path, text: str) -> None:
    """Replace what a file says between the two markers.

    Raises:
        ValueError: If the file lacks a marker.
    """
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{path}: lacks {START} … {END}")
    path.write_text(f"{before}{START}\n{text}\n{END}{after}", encoding="utf-8")


def _as_json(lines: list[Line]) -> dict[str, dict[str, float | None]]:
    return {
        f"{line.case}: {line.quantity}": {
            "covered_share": line.covered,
            "median_width": line.width,
            "absent_share": line.absent,
            "raised_share": line.raised,
        }
        for line in lines
    }


if __name__ == "__main__":
    main()
