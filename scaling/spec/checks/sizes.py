"""How large a study may be: refused before anything is listed, drawn or allocated."""

# pyright: strict

import math
from collections.abc import Iterator
from typing import Final

from scaling.spec.issues import NO_VALUE, Issue
from scaling.spec.ladder import NUM_CHECKED
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


def trial_issues(spec: StudySpec) -> Iterator[Issue]:
    """More trials than a study has, in the field of the phase that has the most."""
    cells = num_cells(spec)
    search = spec.search
    counted = "num_trials" if search.is_joint else "trials_per_cell"
    by_field = {f"search.{counted}": search.num_trials_of(cells)}
    if (transfer := spec.transfer) is not None:
        by_field["transfer.num_seeds"] = cells * len(transfer.rules) * transfer.num_seeds
    if spec.confirm is not None:
        recipes = (1 if spec.sizes else cells) * (1 + spec.confirms_target)
        by_field["confirm.num_seeds"] = recipes * spec.confirm.num_seeds
    if (ladder := spec.ladder) is not None and ladder.check is not None:
        by_field["ladder.check"] = NUM_CHECKED * ladder.check.num_seeds
    if (branch := spec.branch) is not None:
        num_branches = len(branch.at_examples) * len(branch.multiples)
        by_field["branch.num_seeds"] = num_branches * branch.num_seeds
    total = sum(by_field.values())
    if total <= MAX_TRIALS or cells > MAX_CELLS:
        return
    path, most = max(by_field.items(), key=lambda item: item[1])
    section, _, field = path.partition(".")
    value: int = getattr(getattr(spec, section), field)
    yield Issue(
        path,
        f"makes {most:,} of the study's {total:,} trials, and a study has at most {MAX_TRIALS:,}",
        value,
    )


def size_issues(spec: StudySpec) -> Iterator[Issue]:
    """A workload that takes more memory than a worker has, by its own sizes."""
    return spec.workload.too_large()
