"""Run the study that a YAML file describes: python -m scaling.study STUDY.yaml.

Exit status: 0 when every trial ended as done, stopped or diverged; 1 when some trial failed; 2
for a bad study file or a refused start; 130 after Ctrl-C, 143 after SIGTERM, 129 after a hang-up.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes long to import is imported when signals are heeded already.
from scaling.files.user_path import user_path
from scaling.process import exit_with, interruptible, lasting_output

if TYPE_CHECKING:
    from scaling.records.study import StudyRecord

DONE, SOME_FAILED, REFUSED = 0, 1, 2
_PROGRAM = ("python", "-m", "scaling.study")


def main(arguments: Sequence[str] | None = None, program: Sequence[str] = _PROGRAM) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; those of this process where left out.
        program: The program's name, for messages that say how a study goes on.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_output(), interruptible() as signals:
        try:
            return _main(_parser(program).parse_args(words), program)
        except BaseException as error:
            status = signals.status_after(error)
            if status is None:
                raise
            again = shlex.join([*program, *words])
            if "--resume" not in words:
                again += " --resume"
            kept = f"; what has ended is kept. To go on: {again}"
            print(f"\ninterrupted{'' if '--plan' in words else kept}", flush=True)
            return status


def _main(options: argparse.Namespace, program: Sequence[str]) -> int:
    from scaling.files.shown_url import credential_problem, without_credentials
    from scaling.spec.issues import StudyFileError
    from scaling.spec.read import read_study

    if problem := credential_problem(options.output or ""):
        return _ended(REFUSED, without_credentials(f"--output: {problem}"))
    try:
        spec = read_study(options.study, options.set)
    except StudyFileError as error:
        return _ended(REFUSED, without_credentials(str(error)))
    from scaling.driver.run import RefusedError, StoppedError, prepared, print_plan, run
    from scaling.plan.start import Start

    output = user_path(options.output) if options.output else Path("reports") / spec.name
    command = _command(options, program)
    start = Start(spec, command, output, options.resume, options.address, options.plan)
    try:
        tasks = prepared(start)
        if options.plan:
            print_plan(start, tasks)
            return DONE
        study, summary = run(start, tasks)
    except RefusedError as error:
        return _ended(REFUSED, str(error))
    except StoppedError as error:
        return _ended(SOME_FAILED, str(error))
    _print_end(study, summary, output)
    num_failed = sum(trial.status == "failed" for trial in study.trials)
    return SOME_FAILED if num_failed else DONE


def _parser(program: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=shlex.join(program), description="Run the study that a YAML file describes."
    )
    parser.add_argument("study", type=user_path, metavar="STUDY.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="dotted.key=value",
        help="change one value of the study file; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true",
        help="print trials, batches, steps, data, memory and time, and start nothing; refused "
        "where a run would be; with --resume, what is left to run",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted study, or extend it"
    )
    parser.add_argument("--address", help="a Ray cluster; this machine alone where left out")
    parser.add_argument("--output", help="folder of the report [reports/NAME]")
    return parser


def _ended(status: int, message: str) -> int:
    print(message, file=sys.stderr)
    return status


def _command(options: argparse.Namespace, program: Sequence[str]) -> str:
    """The command line that started this study, without --resume."""
    words = [*program, str(options.study)]
    for change in options.set:
        words += ["--set", change]
    if options.address:
        words += ["--address", options.address]
    if options.output:
        words += ["--output", options.output]
    return shlex.join(words)


def _print_end(study: "StudyRecord", summary: dict[str, Any], output: Path) -> None:
    from scaling.files.names import MODELS
    from scaling.files.shown_url import mlflow_uri_words
    from scaling.sinks import resolve_tracking_uri

    print()
    print(summary["answer"])
    failed = [trial for trial in study.trials if trial.status == "failed"]
    for trial in failed:
        print(f"failed: {trial.trial_id}: {trial.error}", file=sys.stderr)
    page = output / "report.html"
    print()
    print(f"report:  {page}  (open it in a browser: file://{page.absolute()})")
    uri = mlflow_uri_words(resolve_tracking_uri())
    confirm = study.spec.confirm
    if confirm is not None and confirm.keep_models:
        print(f"models:  {study.spec.storage_url or study.spec.storage_path}/{MODELS}")
    print(f"runs:    mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    exit_with(main())
