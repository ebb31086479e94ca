"""What a run of each cell takes, one row a cell and number of workers."""

from scaling.analysis.cell_results import CellResult
from scaling.analysis.next_run.goodput import Option
from scaling.analysis.next_run.recommendation import (
    BestWithinLimits,
    LowestCell,
    Reason,
    Recommendation,
)
from scaling.report.tables.table import Table
from scaling.report.words.numbers import DASH, cell_name, whole, with_interval

KINDS: tuple[str, ...] = ("recommended", "tied with it", "Pareto-optimal", "dominated")


def options_table(recommendation: Recommendation) -> Table:
    """One row a cell and number of workers of which a time was measured."""
    timed = [o for o in recommendation.candidates if o.seconds.value is not None]
    return Table.of_words(_words(option, recommendation) for option in timed)


def _words(option: Option, recommendation: Recommendation) -> dict[str, str]:
    chance = DASH if option.chance is None else f"{option.chance:.2f}"
    kind = kind_of(option, recommendation)
    return {
        "cell": cell_name(option.cell),
        "workers": whole(option.num_workers),
        "steps": with_interval(option.steps),
        "examples": with_interval(option.examples),
        "seconds": ("at best " if option.carried_over else "") + with_interval(option.seconds),
        "cost": with_interval(option.cost),
        "held-out loss": with_interval(option.loss),
        "chance within the limits": chance,
        "time–examples trade-off": DASH if option.examples.value is None else kind,
    }


def kind_of(option: Option, recommendation: Recommendation) -> str:
    """Which of `KINDS` an option is, by its seconds and examples."""
    if option == recommendation.option:
        return KINDS[0]
    if any(option.cell is cell for cell in _tied_in_time(recommendation.reason)):
        return KINDS[1]  # noise alone decides whether it is dominated
    return KINDS[2] if option in recommendation.front else KINDS[3]


def _tied_in_time(reason: Reason) -> tuple[CellResult, ...]:
    if isinstance(reason, LowestCell) and reason.criterion == "seconds_to_target":
        return reason.tied
    return reason.tied if isinstance(reason, BestWithinLimits) and reason.has_target else ()
