"""What the words of a report mean."""

from scaling.analysis.findings import Findings
from scaling.analysis.trial_rows import Sweep
from scaling.report.words.measurements import explained
from scaling.spec.phases import TO_TARGET


def terms(findings: Findings) -> list[tuple[str, str]]:
    """(term, meaning) of everything that the report of these findings speaks of."""
    picked = _picked(findings.sweep)
    known = [(picked if names == _RECIPES else (names, meaning)) for names, meaning in CONCEPTS]
    return [*known, *explained(findings)]


def _picked(sweep: Sweep) -> tuple[str, str]:
    """The recipes that numbers are of, by what the search goes by."""
    if sweep.objective in TO_TARGET:
        what = "examples" if sweep.objective == "examples_to_target" else "steps"
        return "recipe for the target", (
            f"The one that takes the fewest {what} to the target. The search goes by these {what}, "
            "and losses and gaps are of the recipe that it picked."
        )
    if sweep.tuned_for.is_loss:
        return _RECIPES, _LOSS_AND_TARGET
    return "recipe for the target", (
        "It takes the fewest steps to the target; its steps, examples and seconds are shown. "
        f"Losses, metrics and gaps are of the recipe with the best {sweep.tuned_for.label} at the "
        "end. Their rates differ: a higher rate often reaches an intermediate target earlier and "
        "ends worse."
    )


_RECIPES = "recipe for the loss, recipe for the target"
_LOSS_AND_TARGET = (
    "The first has the lowest loss at the end; "
    "its losses and gap are shown. The second takes the fewest steps to the target; its steps, "
    "examples and seconds are shown. Their rates differ: a higher rate often reaches an "
    "intermediate target earlier and ends worse."
)


CONCEPTS = (
    ("global batch size", "Examples that one optimizer step averages over, all workers together."),
    ("cell", "One value of what the study compares, usually a batch size. The surface decides how "
     "many trials each cell gets; other samplers give all cells the same number."),
    ("search, transfer, confirm", "Search finds each cell's best recipe. Transfer carries the base "
     "batch's recipe to the others by a rule. Confirm repeats the best recipes with new seeds, "
     "confirm_target those for the target."),
    ("diverged, censored", "A diverged trial blew up. A censored one ended normally and never "
     "reached the target. Neither is turned into a number: of a seed that nearly reached it, the "
     "steps that it would have taken count in the mean of its recipe."),
    ("peak_lr", "Learning rate after warmup. The best one is the minimum of an asymmetric "
     "parabola in log rate; the asymmetry is shared by all cells. Where no such parabola has "
     "an interval, it is the minimum of the surface. Where neither has a minimum inside the rates "
     "tried, it is the best trial's."),
    (_RECIPES, _LOSS_AND_TARGET),
    ("surface", "A Gaussian process that models the loss over the batch size and the searched "
     "hyperparameters, fitted to the trials of all cells."),
    ("exponent", "The p of best rate ∝ batch^p. It is fitted to the losses of all batch sizes "
     "whose best rate lies inside those tried, or read from the surface over all batch sizes."),
    ("surge", "A law in which the best rate rises as √batch, peaks at a batch B_n, and falls "
     "beyond it."),
    ("gap at equal progress", "validation_loss − train_loss, interpolated between evaluations, at "
     "the most steps, the most examples and the lowest train_loss that every replicate reaches."),
    ("slope, regime", "−d log steps / d log batch of the fit. With α fitted it is "
     "α r / (1 + r), where r is (critical / batch)^α. "
     "Perfect scaling: above 0.9 with its whole interval, so that doubling the batch nearly halves "
     "the steps. Maximal data parallelism: below 0.1, larger batches buy nothing. Between: "
     "diminishing returns. Undecided: the interval spans a bound."),
    ("due to fewer updates, the rest", "A larger batch's validation loss at its end minus the "
     "reference batch's is the sum of two parts. Fewer updates: what the reference loses by "
     "stopping after as few steps. The rest: the difference after equal steps. Each batch "
     "has its own recipe, so the rest holds that as well."),
    ("critical batch size", "Where a run takes twice the fewest steps and twice the fewest "
     "examples: beyond it, larger batches mostly cost examples. 20% overhead is another "
     "definition and another number: the batch that spends 20% more examples than a reference."),
    ("branched training", "At points of a run its batch is multiplied, and its rate with it. The "
     "critical batch there is the largest whose loss, after as many examples, is within the "
     "tolerance of the unchanged batch's. The interval runs from the largest that clearly is to "
     "the smallest that clearly is not."),
    ("baseline", "Guessing by how often a class, tag, token or answer position occurs in the "
     "training split, whatever the input (each counted once more). It is evaluated on the same "
     "examples as the trials; a recipe beats it with a loss that is lower by more than both "
     "losses' 90% sampling error."),
    ("regret", "Loss with a carried recipe minus loss with the recipe tuned at that batch."),
    ("time–examples trade-off", "Each cell's recipe by its seconds and its examples. It is "
     "dominated where another recipe takes less of both, and Pareto-optimal otherwise. One whose "
     "seconds the data do not tell from the recommended one's is tied with it."),
    ("at best", "Seconds on another number of workers than the study's are those of a batch with "
     "as many examples per worker; the communication among more workers is not counted."),
    ("chance within the limits", "That one more run ends within the deadline and the cost, by the "
     "spread of its seconds over seeds (Student's t)."),
    ("importance", "Share of the objective's variance over the search space that one nuisance "
     "hyperparameter explains alone (functional ANOVA, Hutter et al. 2014, by Optuna). It "
     "depends on the ranges searched, and does not say what to set."),
    ("nuisance hyperparameter", "One that is searched inside each cell so that cells are compared "
     "at their best, such as the learning rate."),
    ("trial, seed", "A trial is one training run. A seed decides its initial weights and the order "
     "of its data; runs of one recipe with several seeds show how much chance moves a number."),
    ("recipe", "Everything that determines a training run but its seed."),
    ("warmup_steps, clip_norm", "Steps over which the rate rises to peak_lr; the largest norm that "
     "a gradient keeps."),
    ("rule", "How a recipe is carried to another batch: none keeps the rate, sqrt and linear "
     "multiply it by a power of the batch's growth, adam_sde moves Adam's other settings too."),
    ("90% interval", "Student's t over seeds, joined with the evaluation samples' error for "
     "losses and gaps; a profile interval for fits. The steps–examples fit's joins seed noise and "
     "residuals, or uses the residuals alone where they are larger. Each interval is pointwise: "
     "one in ten misses. A mean without replicates has none. Methods and their measured "
     "coverage: docs/statistics.md."),
    ("undertuned", "The best rate may lie beyond those tried, or the best result was still "
     "improving with more trials: twice the trials would probably gain more than 1% of the loss. "
     "Where the surface chose the trials, the second is that its expected regret exceeds the limit "
     "at which the search stops."),
)  # fmt: skip
"""All but what is measured, which the table of measurements explains."""
