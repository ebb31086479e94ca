"""A study's own numbers, by the names under which MLflow compares studies."""

from collections.abc import Iterator, Mapping
from typing import Any

from scaling.analysis.cell_results import label
from scaling.sinks.mlflow.trial_run import allowed_name

_OF_CELLS = ("best_peak_lr", "generalization_gap")
_MOST_CHARACTERS = 200  # MLflow allows a name 250


def study_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary that compare studies; what is null there is left out.

    `critical_batch_size` (examples, of the steps–examples fit with α = 1) and `lr_exponent`;
    `best_peak_lr/64` and `generalization_gap/64` (nats) for the cell with a batch of 64. Each has
    its 90% interval beside it as `_low` and `_high`. A cell that is more than a batch size has
    its other values in the name, as in `best_peak_lr/64/optimizer adamw`, and cells that differ in
    the batch size alone have `lr_exponent/optimizer adamw`.
    """
    found: dict[str, float] = {}
    for one in (summary, *summary["series"]):
        fit, law = one["critical_batch_size"]["steps_examples"], one["lr_scaling"]
        names = _cell_names({"global_batch_size": None, **one})
        suffix = "/".join(("", *names))[: _MOST_CHARACTERS + 1]
        found |= _number(f"critical_batch_size{suffix}", fit["value"], fit["interval"])
        found |= _number(f"lr_exponent{suffix}", law["exponent"], law["interval"])
    for cell in summary["cells"]:
        suffix = "/".join(_cell_names(cell))[:_MOST_CHARACTERS]
        for name in _OF_CELLS if suffix else ():
            found |= _number(f"{name}/{suffix}", cell[name], cell[f"{name}_interval"])
    return found


def _cell_names(cell: Mapping[str, Any]) -> Iterator[str]:
    if cell["global_batch_size"] is not None:
        yield str(cell["global_batch_size"])
    for name, value in cell.get("cell", {}).items():
        if name != "global_batch_size":
            yield allowed_name(label({name: value}))


def _number(
    name: str, value: float | None, interval: list[float | None] | None
) -> dict[str, float]:
    low, high = interval or (None, None)
    values = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: float(number) for key, number in values.items() if number is not None}
