"""Run the study that a YAML file describes: python -m scaling.study STUDY.yaml.

Exit status: 0 when every trial ended as done, stopped or diverged; 1 when some trial failed; 2
for a bad study file or a refused start; 130 after Ctrl-C, 143 after SIGTERM, 129 after a hang-up.
"""

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes long to import is imported when signals are heeded already.
from scaling.process import exit_with, interruptible, lasting_output

if TYPE_CHECKING:
    from scaling.command.start import Start
    from scaling.records.study import StudyRecord
    from scaling.runner.state import StudyState
    from scaling.sinks import Sink
    from scaling.tasks.task import AnyTask

DONE, SOME_FAILED, REFUSED = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with lasting_output(), interruptible() as signals:
        try:
            return _main(_parser().parse_args(words))
        except BaseException as error:
            status = signals.status_after(error)
            if status is None:
                raise
            again = shlex.join(["python", "-m", "scaling.study", *words])
            if "--resume" not in words:
                again += " --resume"
            kept = f"; what has ended is kept. To go on: {again}"
            print(f"\ninterrupted{'' if '--plan' in words else kept}", flush=True)
            return status


def _main(options: argparse.Namespace) -> int:
    from scaling.files.shown_url import credential_problem
    from scaling.spec.issues import StudyFileError
    from scaling.spec.read import read_study

    # Libraries that would draw their own progress bars over ours.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if problem := credential_problem(options.output or ""):
        return _refuse(f"--output: {problem}")
    try:
        spec = read_study(options.study, options.set)
    except StudyFileError as error:
        return _refuse(str(error))
    from scaling.command.start import REFUSALS, Start, has_ended, require_places

    output = _path(options.output) if options.output else Path("reports") / spec.name
    start = Start(spec, _command(options), output, options.resume, options.address, options.plan)
    try:
        require_places(start)
        if has_ended(start) and not options.plan:
            return _run(start, None)
        from scaling.command.start_checks import require_machine, require_task
        from scaling.tasks.hub import use_cache_where_unreachable

        use_cache_where_unreachable(spec.workload)
        require_machine(start)
        if not options.plan:
            print(f"study {spec.name}: {spec.question}", flush=True)
        task = require_task(spec, resume=options.resume)
    except REFUSALS as error:
        return _refuse(str(error))
    if options.plan:
        _print_plan(start, task)
        return DONE
    return _run(start, task)


def _print_plan(start: "Start", task: "AnyTask") -> None:
    """Print what a study would do, or what is left of one that goes on."""
    from scaling.command.plan import print_plan
    from scaling.command.resume_plan import print_resume_plan
    from scaling.runner.state import looked_at

    with looked_at(start.spec) as recorded:
        if recorded is None:
            print_plan(start.spec, start=start, task=task)
        else:
            print_resume_plan(start.spec, recorded, task)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scaling.study", description="Run the study that a YAML file describes."
    )
    parser.add_argument("study", type=_path, metavar="STUDY.yaml")
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


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  # which raises where there is no such ~USER


def _refuse(message: str) -> int:
    from scaling.files.shown_url import without_credentials

    print(without_credentials(message), file=sys.stderr)
    return REFUSED


def _run(start: "Start", task: "AnyTask | None") -> int:
    """Run a study from where it is to its report; without a task all of its trials have ended."""
    from scaling.runner.own_ray import prepare_environment
    from scaling.runner.state import StateError

    try:
        state = _opened(start, task)
    except StateError as error:
        return _refuse(str(error))
    prepare_environment(start.address)
    with closing(state.lock):
        return _run_opened(start, task, state)


def _run_opened(start: "Start", task: "AnyTask | None", state: "StudyState") -> int:
    from scaling.files.own import ForeignFolderError
    from scaling.runner.preflight import ClusterError, StartError
    from scaling.sinks import TrackingError

    try:
        with state.mirrored():
            study, summary, unsent = _train_and_report(start, task, state)
    except (StartError, ClusterError, TrackingError, ForeignFolderError, OSError) as error:
        has_begun = state.has_begun
        with suppress(OSError):  # where the reason is the storage itself
            state.discard_if_new()
        message = _unwritable(error, state) if isinstance(error, OSError) else str(error)
        is_refused = isinstance(error, StartError | TrackingError) or not has_begun
        return _refuse(message) if is_refused else _stop(message, start.command)
    _print_end(study, summary, start.output)
    if unsent:
        return _stop("\n".join([*unsent, "not everything is in MLflow yet"]), start.command)
    num_failed = sum(trial.status == "failed" for trial in study.trials)
    return SOME_FAILED if num_failed else DONE


def _opened(start: "Start", task: "AnyTask | None") -> "StudyState":
    from scaling.runner.state import StudyState

    if task is None:
        print(f"study {start.spec.name}: {start.spec.question}\nall of its trials have ended")
        return StudyState.reopen(start.spec)
    from scaling.command.start_checks import start_notes
    from scaling.tasks.content import files_of
    from scaling.tasks.own.code import code_of

    for note in start_notes(start.spec, task):
        print(f"  {note}", flush=True)
    workload = start.spec.workload
    return StudyState.open(
        start.spec, data_sha256=task.content_hash, files=files_of(workload), code=code_of(workload)
    )


def _stop(message: str, command: str) -> int:
    """The study ends before its time: why, and how it goes on."""
    from scaling.files.shown_url import without_credentials

    message = without_credentials(message)
    print(f"{message}\nwhat has ended is kept. To go on: {command} --resume", file=sys.stderr)
    return SOME_FAILED


def _unwritable(error: OSError, state: "StudyState") -> str:
    """One line for a disk that is full, a folder that may not be written, and the like."""
    where = error.filename or os.path.relpath(state.folder)
    what = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "give yourself the right to write there",
        errno.EPERM: "give yourself the right to write there",
        errno.EROFS: "mount it for writing, or choose another storage",
    }.get(error.errno or 0, "choose another storage, or mend this one")
    return f"storage: cannot write {where}: {error.strerror or error}; {what}"


def _command(options: argparse.Namespace) -> str:
    """The command line that started this study, without --resume."""
    words = ["python", "-m", "scaling.study", str(options.study)]
    for change in options.set:
        words += ["--set", change]
    if options.address:
        words += ["--address", options.address]
    if options.output:
        words += ["--output", options.output]
    return shlex.join(words)


def _train_and_report(
    start: "Start", task: "AnyTask | None", state: "StudyState"
) -> "tuple[StudyRecord, dict[str, Any], list[str]]":
    """Everything from the first trial to the report, which is made of the study's own records.

    Returns:
        The study, its summary, and why a place that is told of it has not taken everything.
    """
    from scaling.records.ledger import read_records
    from scaling.records.load import load_folder, read_environment, write_environment
    from scaling.report.document import write_report
    from scaling.runner.preflight import ClusterError, StartError
    from scaling.sinks import StudyStart, open_sinks, study_ended

    spec, folder = start.spec, state.folder
    environment = read_environment(folder)
    if task is not None:
        from scaling.command.environment import describe

        environment = describe(task) | {"started": environment.get("started", _now())}
        write_environment(folder, environment)
    ended = list(read_records(folder / "trials.jsonl").values())
    mlflow, sinks = open_sinks(StudyStart(spec, state.study_id, folder, environment), ended)
    try:
        if task is not None:
            environment |= {**_train(start, task, state, sinks), "ended": _now()}
            environment["num_trials_ended"] = len(read_records(folder / "trials.jsonl"))
            write_environment(folder, environment)
        study = load_folder(folder, spec, mlflow.trial_urls())
        summary = write_report(study, start.output)
    except BaseException as error:
        # Told as far as it came, whatever the reason; the reason goes on to the caller.
        is_refused = isinstance(error, StartError | ClusterError | OSError)
        if is_refused and state.is_new and not state.has_begun:
            problems = study_ended(sinks, "refused")
        else:
            is_asked = isinstance(error, KeyboardInterrupt)
            problems = study_ended(sinks, "interrupted" if is_asked else "failed")
        for problem in problems:
            print(problem, file=sys.stderr)
        raise
    unsent = study_ended(sinks, "done", summary["answer"], start.output, study.environment)
    return study, summary, unsent


def _train(
    start: "Start", task: "AnyTask", state: "StudyState", sinks: "Sequence[Sink]"
) -> dict[str, Any]:
    """Run the trials that have not ended; returns what belongs into the study's environment."""
    from rich.console import Console

    from scaling.command.plan import facts_of
    from scaling.command.progress import ProgressView
    from scaling.runner.cluster import connect, disconnect
    from scaling.runner.phases import StudyRun

    log_file = state.folder / "ray.log"
    print(f"state in {os.path.relpath(state.folder)}, Ray's own log in {os.path.relpath(log_file)}")
    with ExitStack() as stack:
        stack.callback(disconnect)
        connect(start.address, log_file)
        view = stack.enter_context(ProgressView(start.spec, Console()))
        run = StudyRun(start.spec, facts_of(start.spec, task), state, sinks, view)
        return {"rules_refused": run.run()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _print_end(study: "StudyRecord", summary: dict[str, Any], output: Path) -> None:
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
    print(f"runs:    mlflow ui --backend-store-uri {uri}")


if __name__ == "__main__":
    exit_with(main())
