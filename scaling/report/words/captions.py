"""How to read a figure."""

from scaling.analysis.critical_batch.branched_training import BranchedTraining
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.report.words.absent import no_exponent, no_tradeoff
from scaling.report.words.numbers import (
    between,
    chance,
    counted,
    either,
    first_few,
    fixed,
    number,
    rate,
    with_unit,
)


def behind(findings: Findings) -> str:
    """How many trials and seeds are behind a figure."""
    text = f"{counted(findings.num_search, 'search trial')}, {_seeds(findings)}"
    diverged = findings.count("diverged")
    return f"{text}; {diverged:,} diverged" if diverged else text


def _seeds(findings: Findings) -> str:
    """Seeds a cell; the fewest and the most where cells differ."""
    seeds = [cell.num_seeds for cell in findings.cells]
    if not any(seeds):
        return "no replicate seeds"
    if min(seeds) == max(seeds):
        return f"{counted(max(seeds), 'seed')} per cell"
    return f"{min(seeds)} to {max(seeds)} seeds per cell"


def tuned_name(findings: Findings) -> str:
    """What recipes are tuned for, as a title begins with it."""
    label = findings.sweep.tuned_for.label
    return label[:1].upper() + label[1:]


def chance_of_run(findings: Findings) -> str:
    """How surely the run whose seconds are shown reaches the target; empty where unknown."""
    chosen = findings.recommendation.option
    if chosen is None or chosen.chance_of_target is None:
        return ""
    return f", which reaches the target with a chance of {chance(chosen.chance_of_target, '.0%')}"


def worse_edge(findings: Findings) -> str:
    """The edge of a figure beyond which trials are worse."""
    return "top" if findings.sweep.tuned_for.direction == "minimize" else "bottom"


def not_applicable(findings: Findings) -> str:
    """Where a rule defines no recipe."""
    refused = [f"{r.rule} at {r.global_batch_size:,}" for r in findings.regrets if not r.applicable]
    return f"Outside of their domain: {', '.join(refused)}." if refused else ""


def of_all(findings: Findings, most: int) -> str:
    """How many of the search trials a dense figure draws."""
    total = findings.num_search
    if total <= most:
        return ""
    return (
        f" About {most:,} of {total:,} search trials are drawn: each cell's best and an even "
        "sample of its others."
    )


SERIES_FITS = "Lines: the steps–examples fit of the cells that differ only in the batch size."
SERIES_RATES = (
    "Each cell's best rate with its 90% interval; ends beyond the rates tried are not drawn. "
    "Bands: the loss surface's, along the cells that differ only in the batch size."
)


def lr_caption(findings: Findings) -> str:
    """What the exponent is, in words."""
    exponent = findings.lr_scaling.exponent
    if exponent.value is None:
        return f"No exponent: {no_exponent(findings)}."
    found = f"Fitted exponent {fixed(exponent, 2)}"
    if exponent.interval is None:
        found = f"Fitted exponent {exponent.value:.2f} (no interval)"
    by_size = [
        f"{cell.global_batch_size:,}: {rate(cell.best_peak_lr)}"
        for cell in findings.cells
        if cell.curve
    ]
    rates = ", ".join(first_few(by_size))
    text = f"{found} over {len(findings.lr_scaling.batch_sizes)} batch sizes. Best rates {rates}."
    surge = findings.lr_scaling.surge
    if surge.preferred:
        turn = f"{number(surge.noise_batch.value)} {between(surge.noise_batch.interval)}"
        text += f" Dashed: the surge law, highest at a batch of {turn}; the data prefer it."
    return text


def tradeoff_caption(fit: TradeoffFit) -> str:
    """The fitted curve and its critical batch size, in words."""
    headline, free = fit.headline, fit.free
    if headline.value is None:
        return f"No fit: {no_tradeoff(fit)}."
    curve = f"S = {number(fit.min_steps)} + {number(fit.min_examples)} / B"
    critical = "critical batch size"
    if free.excludes_one:
        curve = (
            f"S = {number(free.min_steps)} · (1 + ({number(headline.value)} / B)^"
            f"{number(free.alpha.value)})"
        )
        critical = "batch at which steps are twice their minimum,"
    return (
        f"Grey: fit of {curve} to {counted(fit.num_trials, 'trial')} at "
        f"{counted(fit.num_batches, 'batch size')}. Orange: the {critical} "
        f"{either(headline)}."
    )


def band_caption(findings: Findings) -> str:
    """What the band in the figure of best rates is; empty without one."""
    if not findings.rate_band:
        return ""
    return " Grey band: the loss surface's best rate with its 90% interval."


def branched_caption(branched: BranchedTraining, loss_unit: str) -> str:
    """How to read the figure."""
    bounds = [p for p in branched.points if p.is_bound]
    text = (
        "The largest batch that ends its window within "
        f"{with_unit(number(branched.tolerance), loss_unit)} of the base batch. Bars run from the "
        "largest batch whose 90% interval is within to the smallest whose interval is not. Without "
        "such batches there is no bar."
    )
    if bounds:
        points = ", ".join(f"{p.examples:,}" for p in bounds)
        text += f" A lower bound at {points}: the largest batch tried is still within."
    return text
