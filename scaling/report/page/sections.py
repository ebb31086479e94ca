"""The order of the argument: which figures and tables stand in which part of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scaling.analysis.findings import Findings
from scaling.analysis.ladder.runs import not_fitted
from scaling.report.charts.figures import Figure
from scaling.report.tables import (
    ladder_tables,
    measured_tables,
    series_tables,
    study_tables,
    target_tables,
)
from scaling.report.tables.next_run_options import options_table
from scaling.report.tables.table import Table
from scaling.report.words import remarks
from scaling.report.words.ladder import check_words, not_fitted_words
from scaling.report.words.learning_rate import law_words

_START_HERE = frozenset({"ladder", "learning_rate", "target", "loss"})


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        name: Its address in the page; what `Figure.section` refers to.
        note: What a reader must know before its figures; may be empty.
        tables: After the figures, each with a title of its own.
        absent: Figures that the data do not allow, with their reason.
        is_open: Whether a reader starts here; the rest is for who doubts a number.
    """

    name: str
    title: str
    note: str
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    absent: tuple[Figure, ...]
    is_open: bool


def sections(findings: Findings, drawn: Sequence[Figure], urls: Mapping[str, str]) -> list[Section]:
    """The parts that have something to show or to say, in the order of the argument."""
    joint = findings.sweep.is_joint
    made = [
        _section(
            "ladder", "Predictions from runs of several sizes", _not_fitted(findings), drawn,
            _titled(ladder_tables.predictions_table(findings), "Requested sizes"),
            _titled(ladder_tables.path_table(findings), "Best rate at the batch you can run"),
            _titled(
                ladder_tables.back_test_table(findings), "Back-test",
                ladder_tables.BACK_TEST_NOTE,
            ),
            _titled(
                ladder_tables.check_table(findings), "The size kept out of the search",
                "Trained at its prediction, and at twice and half its rate and its batch; "
                "differences are paired by seed. Intervals are pointwise; that a recipe is lower "
                "is said with Holm's correction over all of them.",
                [check_words(findings.check)] if findings.check else [],
            ),
            _titled(ladder_tables.exponents_table(findings), "Exponents at the largest size"),
        ),
        _section(
            "learning_rate", "How the learning rate moves with the batch", "", drawn,
            _titled(
                study_tables.evidence_table(findings), "Exponent of the best learning rate",
                law_words(findings),
            ),
            _titled(
                series_tables.exponents_table(findings),
                "Exponent of the best learning rate, per value of the other axes",
                "Each is fitted to cells that differ only in the batch size.",
            ),
            _titled(
                study_tables.rule_curves_table(findings), "Rules between all batch sizes",
                "Read from the loss surface. The tuned rate of each batch size is carried to every "
                "other one; regret is the loss there above the tuned recipe's. The rate that is "
                "carried is the best one of each drawn surface. Where a rule leaves the rates "
                "tried, its regret is a lower bound. A loss above that of an untrained model "
                "counts as the untrained model's.",
            ),
            _titled(
                study_tables.regret_table(findings), "Measured regret of each rule",
                "From the base batch size, paired by seed.",
            ),
        ),
        _section(
            "target", "Steps and examples to the target", "", drawn,
            _titled(
                target_tables.critical_batch_table(findings), "Critical batch size",
                "The definitions differ, so values that disagree must not be averaged.",
                remarks.critical_notes(findings),
            ),
            _titled(
                series_tables.critical_batches_table(findings),
                "Critical batch size, per value of the other axes",
                "From the steps–examples fit to cells that differ only in the batch size; with α "
                "fitted where the data exclude 1.",
            ),
            _titled(target_tables.regimes_table(findings), "What a larger batch still buys"),
            _titled(target_tables.targets_table(findings), "Steps to several targets"),
            _titled(options_table(findings.recommendation), "Cost of a run of each cell"),
        ),
        _section(
            "loss", "Loss and generalization", "", drawn,
            _titled(
                study_tables.matched_gaps_table(findings), "Gap at equal progress",
                "validation_loss − train_loss per target where every cell is equally far.",
                remarks.differences_words(findings) + remarks.relations_words(findings),
            ),
            _titled(
                measured_tables.task_metrics_table(findings), "Task metrics",
                "On the validation examples at the end of the budget. Means and 90% intervals are "
                "over seeds.",
            ),
            _titled(
                target_tables.loss_parts_table(findings), "What fewer updates cost",
                "validation_loss per target at the end of the budget, paired by seed.",
            ),
        ),
        _section(
            "search", "The search",
            "Exploratory: the search did not give each batch size the same number of trials."
            if joint else "",
            drawn,
            _titled(study_tables.joint_table(findings), "Best trial at each batch size"),
        ),
        _section("curves", "Learning curves", "", drawn),
        _section(
            "runs", "How the trials ran", "", drawn,
            _titled(
                measured_tables.measured_table(findings, "hardware"), "Speed and memory",
                "Over the whole run, from the trials behind the cells' numbers. The 90% intervals "
                "are over seeds alone.",
            ),
            _titled(
                measured_tables.measured_table(findings, "optimization"), "Optimization",
                "Of the same trials, with intervals over their seeds.",
            ),
            _titled(measured_tables.incidents_table(findings, urls), "Incidents"),
        ),
    ]  # fmt: skip
    return [part for part in made if part.figures or part.tables or part.absent]


def _section(
    name: str, title: str, note: str, drawn: Sequence[Figure], *tables: Table | None
) -> Section:
    ours = [figure for figure in drawn if figure.section == name]
    return Section(
        name,
        title,
        note,
        figures=tuple(figure for figure in ours if figure.spec is not None),
        tables=tuple(table for table in tables if table is not None),
        absent=tuple(figure for figure in ours if figure.spec is None),
        is_open=name in _START_HERE,
    )


def _not_fitted(findings: Findings) -> str:
    if findings.ladder is None:
        return ""
    question = findings.ladder.question
    return not_fitted_words(question, not_fitted(findings.sweep, question.scale))


def _titled(
    table: Table | None, title: str, note: str = "", remarks: Sequence[str] = ()
) -> Table | None:
    if table is None or not table.rows:
        return None
    return replace(
        table, title=title, note=note or table.note, remarks=tuple(remarks) or table.remarks
    )
