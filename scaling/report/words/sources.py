"""Which trials the numbers of the cells are from."""

from collections.abc import Sequence

from scaling.analysis.critical_batch.targets import by_recipe
from scaling.analysis.findings import Findings
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.report.words.numbers import joined, number
from scaling.report.words.reasons import baseline_words
from scaling.spec.phases import TO_TARGET


def sources(findings: Findings) -> str:
    """Which trials the numbers of the cells are from, and the least that they have to beat."""
    averaged, baseline = averaged_words(findings.sweep), baseline_words(findings.sweep.baseline)
    return " ".join(filter(None, (_phases(findings), averaged, baseline)))


def averaged_words(sweep: Sweep) -> str:
    """Whose weights the losses are, where they are not the optimizer's own; else empty."""
    halves = half_lives(sweep.rows)
    if not halves:
        return ""
    span = number(halves[0]) if len(halves) == 1 else f"{number(halves[0])} to {number(halves[-1])}"
    recipes = [row.recipe.hyperparameters for row in sweep.rows if row.recipe is not None]
    is_whole = all(recipe.weight_average_half_life_examples is not None for recipe in recipes)
    start = "Losses" if is_whole else "Where a recipe averages its weights, losses"
    return (
        f"{start} and steps to a target are of {'' if is_whole else 'the '}weights averaged along "
        f"the run, with a half-life of {span} examples."
    )


def half_lives(rows: Sequence[TrialRow]) -> list[float]:
    """Half-lives of averaged weights, in examples, in order; empty where none are averaged."""
    found = {
        half_life
        for row in rows
        if row.recipe is not None
        and (half_life := row.recipe.hyperparameters.weight_average_half_life_examples) is not None
    }
    return sorted(found)


def _phases(findings: Findings) -> str:
    sweep = findings.sweep
    if not any(cell.best for cell in findings.cells):
        return "No trial ended with a result, so the cells have no numbers."
    confirmed = [cell for cell in findings.cells if cell.source == "confirm"]
    if confirmed:
        others = [cell for cell in findings.cells if cell.source != "confirm" and cell.best]
        whose = "the" if others else "each cell's"
        text = (
            f"Losses and gaps are means over the confirm replicates of {whose} recipe for the "
            f"{_short(sweep)}, with seeds that the search never saw."
        )
        if others:
            text += (
                f" Those of {joined([cell.label for cell in others], 'and')} have no new seeds: "
                f"they are values of the search.{_biased(sweep)}"
            )
        is_left = any(row.status != "diverged" for cell in confirmed for row in cell.replicates)
        return (text * is_left + _target_sources(findings)).strip()
    grouped = any(len(rows) > 1 for cell in findings.cells for rows in by_recipe(cell.replicates))
    what = "losses" if sweep.tuned_for.is_loss else "results"
    if sweep.objective in TO_TARGET and not any(c.validation_loss.value for c in findings.cells):
        what = "steps"
    text = f"There are no confirm trials: {what} are those of the best recipe of each cell's search"
    text += ", averaged over its seeds" if grouped else ""
    if not any(cell.picked_on(cell.replicates) for cell in findings.cells):
        return text + ". Each cell has one recipe, so none was picked."
    text += f".{_biased(sweep)}"
    if any(cell.curve for cell in findings.cells):
        text += f" Their rate is the {recipe_rate(sweep)}; best peak_lr is read from all trials."
    if sweep.has_target:
        text += " Steps to target are those of that recipe." * sweep.is_joint
    return text + _target_sources(findings)


def _biased(sweep: Sweep) -> str:
    """Which way values are off that a recipe was picked by; empty where it went by the target."""
    if sweep.objective in TO_TARGET:
        return ""
    biased = "They are biased low"
    if not sweep.tuned_for.is_loss:
        biased = f"Their {sweep.tuned_for.label} is biased towards better values"
    return f" {biased} (selected and measured on the same trials)."


def _short(sweep: Sweep) -> str:
    """What the search picks recipes for, as in: the recipe for the loss."""
    if sweep.objective in TO_TARGET:
        return "target"
    return "loss" if sweep.tuned_for.is_loss else sweep.tuned_for.label


def recipe_rate(sweep: Sweep) -> str:
    """What the table of cells calls the rate of the recipe that the search picked."""
    if sweep.objective in TO_TARGET:  # the recipe for the target may be another one
        return "peak_lr of the search's recipe"
    return f"peak_lr for the {_short(sweep)}"


def _target_sources(findings: Findings) -> str:
    """Which recipes the steps to the target are of."""
    trials = [row for cell in findings.cells for row in cell.target.trials]
    if not trials or not findings.sweep.has_target or findings.sweep.is_joint:
        return ""
    if not any(cell.target.num_reached for cell in findings.cells):
        return " None of the cells' trials for the target reached it."
    others = [
        cell.label
        for cell in findings.cells
        if cell.target.peak_lr is not None
        if cell.best is not None and cell.target.peak_lr != cell.best.peak_lr
    ]
    text = " Steps, examples and seconds to the target are those of each cell's "
    if all(row.phase == "search" for row in trials):
        text += "search trials that took the fewest steps."
    else:
        text += (
            "recipe for the target. It is expected to take the fewest steps of those with new "
            "seeds, unless a search trial is surely faster."
        )
    confirmed = [
        cell.label
        for cell in findings.cells
        if any(row.phase == "confirm_target" for row in cell.target.trials)
    ]
    if confirmed:
        text += f" It was confirmed with new seeds at {joined(confirmed, 'and')}."
    if others:
        sweep = findings.sweep
        other = f"recipe for the {_short(sweep)}"
        other = "search's recipe" if sweep.objective in TO_TARGET else other
        text += f" The recipe for the target differs from the {other} at {joined(others, 'and')}."
    return text
