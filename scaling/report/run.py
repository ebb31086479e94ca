"""Reports that a command line asks for: of a study in MLflow, of a table, or of two studies."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import Sweep, sweep_of
from scaling.files.names import file_name
from scaling.files.own import ForeignFolderError
from scaling.files.shown_url import without_credentials
from scaling.files.user_path import user_path
from scaling.process import without_garbage_collection
from scaling.records.study import StudyRecord
from scaling.report.document import write_sweep_report
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.importance import importance_of
from scaling.report.ladder_options import ladder_question, with_ladder
from scaling.report.page.printable import printable
from scaling.report.page.setting import Setting, setting_of
from scaling.report.summary import summarize
from scaling.report.words.numbers import between, counted, number
from scaling.report.words.recipe_code import NoCodeError, recommended_code
from scaling.sinks import TrackingError
from scaling.spec.phases import Limits

_NEXT_RUN = (
    "global_batch_size", "peak_lr", "warmup_steps", "clip_norm", "num_workers", "expected_steps",
    "expected_examples", "expected_seconds", "expected_cost", "expected_loss",
)  # fmt: skip


class LimitsError(ValueError):
    """The limits asked for make no sense, in one line for the user."""


_REFUSALS = (TableError, LimitsError, NoCodeError, TrackingError, ForeignFolderError)


def write_or_print(options: argparse.Namespace, limits: Mapping[str, Any]) -> int:
    """Write the report that a command line asks for, or print the recipe, and its answer.

    Args:
        options: From the parser of `scaling.report.__main__`.
        limits: Of the recommended run, those that are given.

    Returns:
        0, or 2 when the study or the table cannot be read or the report cannot be written.
    """
    try:
        if options.compare:
            output, summary = _compared(options)
        elif options.from_csv is not None:
            output, summary = _from_csv(options, limits)
        else:
            if options.form:
                sweep = _limited(sweep_of(_loaded(options)), limits)
                print(recommended_code(analyse(sweep), options.form), end="")
                return 0
            output, summary = _from_mlflow(options, limits)
    except (*_REFUSALS, LookupError, OSError) as error:
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
    path = user_path(options.from_csv)
    question = ladder_question(options.scale, options.predict, options.tokens_per_example)
    with without_garbage_collection():  # a million rows live to the end
        table = read_table(
            path, rename=options.rename, where=options.where,
            nuisance=options.nuisance, axes=options.cell, scale=options.scale,
            maximize=options.maximize, keep_early=options.keep_early,
        )  # fmt: skip
        sweep = _limited(with_ladder(table.sweep, question, path.name), limits)
        output = user_path(options.output or Path("reports") / file_name(sweep.name))
        notes = [
            f"Every trial is a row of {path.name}; settings that all runs share are not shown."
        ]
        notes += [f"Only rows with {column} = {value}." for column, value in options.where]
        notes += [f"{ours} is the table's column “{theirs}”." for theirs, ours in options.rename]
        notes += table.notes
        setting = Setting(notes=tuple(map(printable, notes)))
        return output, write_sweep_report(sweep, output, setting)


def _compared(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    from scaling.report.comparison.two_studies import write_comparison

    a, b = options.compare
    return write_comparison(
        (a, b),
        user_path(options.output) if options.output else None,
        tracking_uri=options.tracking_uri,
        rename=options.rename,
    )


def _loaded(options: argparse.Namespace) -> StudyRecord:
    from scaling.sinks.mlflow.load import load_study

    return load_study(options.name, options.tracking_uri, study_id=options.study_id)


def _from_mlflow(
    options: argparse.Namespace, limits: Mapping[str, Any]
) -> tuple[Path | None, dict[str, Any]]:
    """The folder is None where a question about limits left the report as it was."""
    from scaling.sinks.mlflow.load import namesakes

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
    output = user_path(options.output or Path("reports") / file_name(study.spec.name))
    return output, write_sweep_report(sweep, output, setting_of(study), importance_of(study, sweep))
