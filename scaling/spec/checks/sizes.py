"""How large a study may be: refused before anything is listed, drawn or allocated."""

# pyright: strict

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from scaling.spec.issues import NO_VALUE, Issue
from scaling.spec.ladder import NUM_CHECKED
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec

MAX_CELLS: Final = 10_000
"""More cells than any study could run."""
MAX_TRIALS: Final = 100_000
"""In all phases together; each is a run in MLflow and a row of the report."""


def cell_issues(spec: StudySpec) -> Iterator[Issue]:
    """More cells than a study has."""
    count = num_cells(spec)
    if count > MAX_CELLS:
        yield Issue("scientific", f"makes {count} cells", NO_VALUE, f"at most {MAX_CELLS}")


def num_cells(spec: StudySpec) -> int:
    """Combinations of the scientific values, at every size of a ladder."""
    if spec.sizes:
        return sum(map(num_cells, spec.sizes))
    return math.prod(len(values) for values in spec.scientific_values().values())


def num_trials(spec: StudySpec) -> dict[Phase, int]:
    """Trials of each phase, at most: all cells have a best recipe, and no search ends early."""
    counts: dict[Phase, int] = {"search": spec.search.num_trials_of(num_cells(spec))}
    if spec.transfer is not None:
        transfer = spec.transfer
        counts["transfer"] = len(transfer.rules) * (num_cells(spec) - 1) * transfer.num_seeds
    if spec.confirm is not None:
        counts["confirm"] = (1 if spec.ladder else num_cells(spec)) * spec.confirm.num_seeds
        if spec.confirms_target:
            counts["confirm_target"] = counts["confirm"]
    if spec.ladder is not None and spec.ladder.check is not None:
        counts["check"] = NUM_CHECKED * spec.ladder.check.num_seeds
    if spec.branch is not None:
        branch = spec.branch
        counts["branch"] = len(branch.at_examples) * len(branch.multiples) * branch.num_seeds
    return counts


_GIVEN_BY: Final[Mapping[Phase, str]] = {
    "transfer": "transfer.num_seeds",
    "confirm": "confirm.num_seeds",
    "confirm_target": "confirm.num_seeds",
    "check": "ladder.check",
    "branch": "branch.num_seeds",
}


def trial_issues(spec: StudySpec) -> Iterator[Issue]:
    """More trials than a study has, in the field of the phases that have the most."""
    searched = f"search.{'num_trials' if spec.search.is_joint else 'trials_per_cell'}"
    fields = {"search": searched, **_GIVEN_BY}
    by_field = Counter[str]()
    for phase, count in num_trials(spec).items():
        by_field[fields[phase]] += count
    if by_field.total() <= MAX_TRIALS or num_cells(spec) > MAX_CELLS:
        return
    [(path, most)] = by_field.most_common(1)
    section, _, field = path.partition(".")
    value: int = getattr(getattr(spec, section), field)
    share = f"{most:,} of the study's {by_field.total():,} trials"
    yield Issue(path, f"makes {share}, and a study has at most {MAX_TRIALS:,}", value)


def size_issues(spec: StudySpec) -> Iterator[Issue]:
    """A workload that takes more memory than a worker has, by its own sizes."""
    return spec.workload.too_large()
