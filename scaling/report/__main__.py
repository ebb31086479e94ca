"""Rebuild the report of a study from MLflow, or make one of a table from elsewhere."""

import argparse
from collections.abc import Sequence
from typing import Any, get_args

from scaling.files.shown_url import credential_problem
from scaling.process import exit_with, lasting_output
from scaling.report.words.recipe_form import Form
from scaling.spec.phases import Limits

_PROGRAM = "python -m scaling.report"


def main(arguments: Sequence[str] | None = None, program: str = _PROGRAM) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; those of this process where left out.
        program: The program's name, for messages.

    Returns:
        0, or 2 when the study or the table cannot be read or the report cannot be written.
    """
    parser = _parser(program)
    options = parser.parse_args(arguments)
    if [options.name, options.from_csv, options.compare].count(None) != 2:
        parser.error("give the NAME of a study, or --from-csv FILE, or --compare A B")
    for_a_table = (
        options.where, options.nuisance, options.cell, options.maximize, options.keep_early,
    )  # fmt: skip
    if options.from_csv is None and any(for_a_table):
        parser.error(
            "--where, --nuisance, --cell, --keep-early and --maximize belong to --from-csv"
        )
    if options.from_csv is None and (options.scale or options.predict):
        parser.error("--scale and --predict belong to --from-csv")
    if options.name is not None and options.rename:
        parser.error("--rename belongs to --from-csv and --compare")
    if options.form and (options.name is None or options.output):
        parser.error("--as belongs to the NAME of a study, and writes no report")
    if options.study_id and options.name is None:
        parser.error("--study-id belongs to the NAME of a study")
    given = {name: getattr(options, name) for name in Limits.model_fields}
    limits = {name: value for name, value in given.items() if value is not None}
    if limits and options.compare:
        parser.error("limits of the next run belong to the NAME of a study and to --from-csv")
    if problem := credential_problem(options.output or ""):
        parser.error(f"--output {problem}")
    from scaling.report.run import write_or_print

    return write_or_print(options, limits)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Rebuild a study's report from MLflow, or analyse a sweep run elsewhere.",
    )
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    parser.add_argument("name", nargs="?", help="the study, as named in its file")
    parser.add_argument(
        "--tracking-uri", help="MLflow store [MLFLOW_TRACKING_URI, else ./mlflow.db]"
    )
    parser.add_argument(
        "--study-id", metavar="ID", help="which of several studies of that name [the last started]"
    )
    parser.add_argument(
        "--compare", metavar=("A", "B"), nargs=2,
        help="two studies by name, or paths of reports' folders or tables",
    )  # fmt: skip
    parser.add_argument("--from-csv", metavar="FILE", help="a table with one row per trial")
    parser.add_argument(
        "--rename", metavar="THEIRS=OURS", type=_renaming, **several,
        help="read the table's column THEIRS as OURS",
    )  # fmt: skip
    parser.add_argument(
        "--where", metavar="COLUMN=VALUE", type=_condition, **several,
        help="only rows with this value",
    )  # fmt: skip
    limits = parser.add_argument_group(
        "limits of the next run",
        "They win over the study's own. Without --output a study's report stays as it is, and what "
        "to run is printed.",
    )
    limits.add_argument("--num-workers", type=int, metavar="N", help="data-parallel workers")
    limits.add_argument("--deadline-seconds", type=float, metavar="S", help="of training, at most")
    limits.add_argument("--cost-ceiling", type=float, metavar="C", help="of the run, at most")
    limits.add_argument(
        "--price-per-worker-hour", type=float, metavar="P", help="what one worker costs an hour"
    )
    searched = "a further column that the sweep searched"
    parser.add_argument("--nuisance", metavar="COLUMN", help=searched, **several)
    beside = "a further column to compare, beside the batch size"
    parser.add_argument("--cell", metavar="COLUMN", help=beside, **several)
    parser.add_argument(
        "--maximize", metavar="COLUMN",
        help="a score to make large, as an accuracy, in place of validation_loss",
    )  # fmt: skip
    parser.add_argument(
        "--keep-early", action="store_true",
        help="count the last loss of runs that ended before others of their cell, as by patience",
    )  # fmt: skip
    ladder = parser.add_argument_group("runs of several sizes")
    ladder.add_argument(
        "--scale", metavar="COLUMN", **several,
        help="one or two columns that are the size of a run, as parameters and tokens",
    )  # fmt: skip
    ladder.add_argument(
        "--predict", metavar="NAME=VALUE,…", action="append", default=[],
        help="a size to predict the batch and the rate for, as N=1.07e9,D=2.0e10; repeatable",
    )  # fmt: skip
    ladder.add_argument(
        "--tokens-per-example", metavar="K", help="tokens in one unit of the batch column"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the report [reports/NAME or A_vs_B]"
    )
    parser.add_argument(
        "--as", dest="form", choices=get_args(Form),
        help="print the recommended recipe for this use, ready to paste, and nothing else",
    )  # fmt: skip
    return parser


def _renaming(text: str) -> tuple[str, str]:
    """Their column may hold an equals sign; ours never does."""
    theirs, equals, ours = text.rpartition("=")
    if not (theirs and equals and ours):
        raise argparse.ArgumentTypeError(f"{text!r} is not THEIRS=OURS")
    return theirs, ours


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE")
    return column, value


if __name__ == "__main__":
    with lasting_output():
        status = main()
    exit_with(status)
