"""Rebuild the report of a study from MLflow, or make one of a table from elsewhere.

python -m scaling.report NAME [--study-id ID] [--tracking-uri URI] [--output DIR]
python -m scaling.report NAME --as yaml|torch|hf|lightning
python -m scaling.report --from-csv FILE [--rename theirs=ours]… [--where column=value]…
    [--nuisance column]… [--cell column]… [--maximize column]
    [--scale column]… [--predict name=value,…]… [--tokens-per-example K]
python -m scaling.report --compare A B [--tracking-uri URI] [--output DIR]

Either takes limits for the recommendation: [--num-workers N] [--deadline-seconds S]
[--cost-ceiling C --price-per-worker-hour P], which win over the study's own. With limits and
without --output, a study's report stays as it is, and what to run is printed.
"""

import argparse
import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import Sweep, sweep_of
from scaling.files.names import file_name
from scaling.files.own import ForeignFolderError
from scaling.files.shown_url import credential_problem, without_credentials
from scaling.process import exit_with, lasting_output
from scaling.records.study import StudyRecord
from scaling.report.document import write_sweep_report
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.importance import importance_of
from scaling.report.ladder_options import ladder_question, with_ladder
from scaling.report.page.printable import printable
from scaling.report.page.setting import Setting, setting_of
from scaling.report.summary import summarize
from scaling.report.words.numbers import between, counted, number
from scaling.report.words.recipe_code import Form, NoCodeError, recommended_code
from scaling.spec.phases import Limits

_PROGRAM = "python -m scaling.report"
_NEXT_RUN = (
    "global_batch_size", "peak_lr", "warmup_steps", "clip_norm", "num_workers", "expected_steps",
    "expected_examples", "expected_seconds", "expected_cost", "expected_loss",
)  # fmt: skip


class LimitsError(ValueError):
    """The limits asked for make no sense, in one line for the user."""


_ERRORS = (TableError, LimitsError, NoCodeError, LookupError, ForeignFolderError, OSError)
"""What is said to the user in one line."""


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
    for_a_table = (options.where, options.nuisance, options.cell, options.maximize)
    if options.from_csv is None and any(for_a_table):
        parser.error("--where, --nuisance, --cell and --maximize belong to --from-csv")
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
    if problem := credential_problem(options.output or ""):
        parser.error(f"--output {problem}")
    try:
        if options.compare:
            output, summary = _compared(options)
        elif options.from_csv:
            output, summary = _from_csv(options, limits)
        else:
            if options.form:
                sweep = _limited(sweep_of(_loaded(options)), limits)
                print(recommended_code(analyse(sweep), options.form), end="")
                return 0
            output, summary = _from_mlflow(options, limits)
    except (
        TableError,
        LimitsError,
        NoCodeError,
        LookupError,
        ForeignFolderError,
        OSError,
    ) as error:
        if isinstance(error, KeyError | IndexError):
            raise  # no answer to the user but a mistake here
        print(f"error: {without_credentials(str(error))}", file=sys.stderr)
        return 2
    if output is None:
        _print_next_run(summary["recommendation"])
    else:
        print(summary["answer"])
        print(f"report: {(output / 'report.html').resolve()}")
    return 0


def _print_next_run(recommendation: Mapping[str, Any]) -> None:
    """What to run within the limits that were asked for, in words, numbers and YAML."""
    print(recommendation["reason"])
    for name in _NEXT_RUN:
        value = recommendation[name]
        if value is not None:
            interval = recommendation.get(f"{name}_interval")
            shown = number(value) if name.startswith("expected_") else value
            print(f"  {name}: {shown}" + (f" {between(interval)}" if interval else ""))
    if recommendation["recipe"]:
        print(f"\n{recommendation['recipe'].rstrip()}\n")
    print("No report was written; --output DIR writes one with these limits.")


def _limited(sweep: Sweep, given: Mapping[str, Any]) -> Sweep:
    """Raises LimitsError."""
    values = {**sweep.limits.model_dump(), **given}
    try:
        return replace(sweep, limits=Limits.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(f"--{part}".replace("_", "-") for part in first["loc"])
        value = f" (got {first['input']!r})" if name else ""
        raise LimitsError(f"{name or 'limits'}: {first['msg']}{value}") from error


def _from_csv(
    options: argparse.Namespace, limits: Mapping[str, Any]
) -> tuple[Path, dict[str, Any]]:
    path = Path(options.from_csv)
    question = ladder_question(options.scale, options.predict, options.tokens_per_example)
    with _rows_kept():
        table = read_table(
            path, rename=options.rename, where=options.where,
            nuisance=options.nuisance, axes=options.cell, scale=options.scale,
            maximize=options.maximize,
        )  # fmt: skip
        sweep = _limited(with_ladder(table.sweep, question, path.name), limits)
        output = Path(options.output or Path("reports") / file_name(sweep.name))
        notes = [f"Every trial is a row of {path.name}; what was fixed is not known."]
        notes += [f"Only rows with {column} = {value}." for column, value in options.where]
        notes += [f"{ours} is the table's column “{theirs}”." for theirs, ours in options.rename]
        notes += table.notes
        setting = Setting(notes=tuple(map(printable, notes)))
        return output, write_sweep_report(sweep, output, setting)


@contextmanager
def _rows_kept() -> Iterator[None]:
    """Cyclic garbage stays meanwhile.

    The rows of a table, up to a million, live to the end; to look through them for cycles over
    and over takes an eighth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _compared(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    from scaling.report.comparison.two_studies import write_comparison

    a, b = options.compare
    return write_comparison(
        (a, b),
        Path(options.output) if options.output else None,
        tracking_uri=options.tracking_uri,
        rename=options.rename,
    )


def _loaded(options: argparse.Namespace) -> StudyRecord:
    """The study of a name, from MLflow.

    Raises:
        LookupError: If there is none, or the store cannot be read.
    """
    from scaling.sinks import TrackingError, load_study

    try:
        return load_study(options.name, options.tracking_uri, study_id=options.study_id)
    except TrackingError as error:
        raise LookupError(str(error)) from error


def _from_mlflow(
    options: argparse.Namespace, limits: Mapping[str, Any]
) -> tuple[Path | None, dict[str, Any]]:
    """The folder is None where a question about limits left the report as it was."""
    from scaling.sinks import namesakes

    study = _loaded(options)
    known = namesakes(options.name, options.tracking_uri)
    if len(known) > 1:
        chosen = options.study_id or f"{known[0].study_id}, which was started last"
        print(f"MLflow has {len(known)} studies named {options.name}; this is {chosen}.")
        for one in known:
            trials = counted(one.num_trials, "trial")
            print(f"  --study-id {one.study_id}  started {one.started}  {trials}  {one.folder}")
    sweep = _limited(sweep_of(study), limits)
    if limits and options.output is None:
        return None, summarize(analyse(sweep))
    output = Path(options.output or Path("reports") / file_name(study.spec.name))
    return output, write_sweep_report(sweep, output, setting_of(study), importance_of(study, sweep))


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Rebuild a study's report from MLflow, or analyse a sweep run elsewhere.",
    )
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
    parser.add_argument("--from-csv", metavar="FILE", help="a table with one row a trial")
    parser.add_argument(
        "--rename", metavar="THEIRS=OURS", type=_renaming, nargs="+", action="extend", default=[],
        help="read the table's column THEIRS as OURS",
    )  # fmt: skip
    parser.add_argument(
        "--where", metavar="COLUMN=VALUE", type=_condition, nargs="+", action="extend", default=[],
        help="only rows with this value",
    )  # fmt: skip
    limits = parser.add_argument_group("limits of the next run")
    limits.add_argument("--num-workers", type=int, metavar="N", help="data-parallel workers")
    limits.add_argument("--deadline-seconds", type=float, metavar="S", help="of training, at most")
    limits.add_argument("--cost-ceiling", type=float, metavar="C", help="of the run, at most")
    limits.add_argument(
        "--price-per-worker-hour", type=float, metavar="P", help="what one worker costs an hour"
    )
    parser.add_argument(
        "--nuisance", metavar="COLUMN", nargs="+", action="extend", default=[],
        help="a further column that the sweep searched",
    )  # fmt: skip
    parser.add_argument(
        "--cell", metavar="COLUMN", nargs="+", action="extend", default=[],
        help="a further column to compare, beside the batch size",
    )  # fmt: skip
    parser.add_argument(
        "--maximize", metavar="COLUMN",
        help="a score to make large, as an accuracy, in place of validation_loss",
    )  # fmt: skip
    ladder = parser.add_argument_group("runs of several sizes")
    ladder.add_argument(
        "--scale", metavar="COLUMN", nargs="+", action="extend", default=[],
        help="one or two columns that are the size of a run, as parameters and tokens",
    )  # fmt: skip
    ladder.add_argument(
        "--predict",
        metavar="NAME=VALUE,…",
        action="append",
        default=[],
        help="a size to predict the batch and the rate for, as N=1.07e9,D=2.0e10; repeatable",
    )
    ladder.add_argument(
        "--tokens-per-example", metavar="K", help="tokens in one unit of the batch column"
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the report [reports/NAME]")
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
