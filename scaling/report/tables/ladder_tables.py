"""The tables of runs of several sizes: predictions, the back-test, exponents."""

from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.report.tables.table import Table
from scaling.report.words.ladder import (
    FORMULAS,
    power_words,
    recipe_words,
    regret_words,
    size_words,
)
from scaling.report.words.numbers import (
    between,
    counted,
    number,
    rate,
    rate_with_bounds,
    with_interval,
)

BACK_TEST_NOTE = (
    "Each size was left out and predicted from those of less compute. Regret is the loss at a "
    "recipe above the least loss of that size, as a share of it, read from the surface through "
    "that size's own runs. A recipe outside what was tried there counts as the nearest one inside."
)


def predictions_table(findings: Findings) -> Table | None:
    """What to run at each size asked for; None where none was."""
    reading = findings.ladder
    if reading is None:
        return None
    rows = [
        {"size": size_words(reading.question, size.scale), **recipe_words(size)}
        for size in reading.predictions
    ]
    return Table.of_words(rows)


def path_table(findings: Findings) -> Table | None:
    """The best rate at powers of two around each predicted batch."""
    reading = findings.ladder
    if reading is None or not reading.predictions:
        return None
    rows = tuple(
        (
            size_words(reading.question, size.scale),
            f"{point.batch:,.0f}",
            rate_with_bounds(point.rate, point.interval),
        )
        for size in reading.predictions
        for point in size.path
    )
    return Table(("size", "global_batch_size", "best peak_lr"), rows)


def back_test_table(findings: Findings) -> Table | None:
    """The largest sizes, each predicted from smaller ones; None where there is no back-test."""
    reading = findings.ladder
    if reading is None or not reading.back_test:
        return None
    rows = [
        {
            "size": size_words(reading.question, size.scale),
            "predicted batch": f"{number(size.batch)} {between(size.batch_interval)}",
            "own": number(size.own_batch),
            "predicted peak_lr": rate_with_bounds(size.rate, size.rate_interval),
            "own peak_lr": rate(size.own_rate),
            "regret": regret_words(size.regret),
            "regret, copied": regret_words(size.regret_copied),
            **{
                f"regret, {words}": regret_words(size.regret_formulas.get(name, ABSENT))
                for name, words in FORMULAS.items()
            },
        }
        for size in reading.back_test
    ]
    return Table.of_words(rows)


def check_table(findings: Findings) -> Table | None:
    """The size kept out of the search, at its prediction and around it; None without a check."""
    if findings.check is None:
        return None
    rows = [
        {
            "recipe": "predicted" if recipe.is_prediction else "beside it",
            "global_batch_size": f"{recipe.global_batch_size:,}",
            "peak_lr": rate(recipe.peak_lr),
            "validation_loss": with_interval(recipe.loss),
            "above the predicted": with_interval(recipe.excess),
            "seeds": counted(recipe.num_seeds, "seed")
            + (f", {recipe.num_diverged} diverged" if recipe.num_diverged else ""),
        }
        for recipe in findings.check.recipes
    ]
    return Table.of_words(rows)


def exponents_table(findings: Findings) -> Table | None:
    """How the best rate and batch move with each number of a size."""
    reading = findings.ladder
    if reading is None:
        return None
    rows = tuple(
        (name, power_words(of_rate), power_words(of_batch))
        for name, (of_rate, of_batch) in reading.exponents.items()
    )
    return Table(("with", "best peak_lr", "best batch"), rows)
