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
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What takes long to import is imported when signals are heeded already.
from scaling.process import exit_with, interruptible, lasting_output

if TYPE_CHECKING:
    from scaling.command.start_checks import Start
    from scaling.records.study import StudyRecord
    from scaling.runner.state import StudyState
    from scaling.sinks import StudyTracker
    from scaling.space.layout import Facts
    from scaling.spec.study import StudySpec
    from scaling.tasks.task import Task

DONE, SOME_FAILED, REFUSED = 0, 1, 2
# How long the store is waited for; what it has not taken by then waits on disk.
CLOSE_SECONDS, INTERRUPTED_CLOSE_SECONDS = 120.0, 10.0


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
    from scaling.tasks.hub import use_cache_where_unreachable

    use_cache_where_unreachable(spec.workload)
    from scaling.command.start_checks import REFUSALS, Start, require_place, require_task

    output = _path(options.output) if options.output else Path("reports") / spec.name
    start = Start(spec, _command(options), output, options.resume, options.address, options.plan)
    try:
        require_place(start)
        if not options.plan:
            print(f"study {spec.name}: {spec.question}", flush=True)
        task = require_task(spec, resume=options.resume)
    except REFUSALS as error:
        return _refuse(str(error))
    if options.plan:
        _print_plan(start, task)
        return DONE
    return _run(start, task)


def _print_plan(start: "Start", task: "Task") -> None:
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
    parser.add_argument("--resume", action="store_true", help="go on with what exists")
    parser.add_argument("--address", help="a Ray cluster; this machine alone where left out")
    parser.add_argument("--output", help="folder of the report [reports/NAME]")
    return parser


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  # which raises where there is no such ~USER


def _refuse(message: str) -> int:
    from scaling.files.shown_url import without_credentials

    print(without_credentials(message), file=sys.stderr)
    return REFUSED


def _run(start: "Start", task: "Task") -> int:
    from scaling.command.start_checks import start_notes
    from scaling.files.own import ForeignFolderError
    from scaling.runner.own_ray import prepare_environment
    from scaling.runner.preflight import StartError
    from scaling.runner.state import StateError, StudyState
    from scaling.sinks import TrackingError
    from scaling.tasks.content import files_of

    spec, command, output = start.spec, start.command, start.output
    for note in start_notes(spec, task):
        print(f"  {note}", flush=True)
    try:
        files = files_of(spec.workload)
        state = StudyState.open(spec, data_sha256=task.content_hash, files=files)
    except StateError as error:
        return _refuse(str(error))
    prepare_environment(start.address)
    from scaling.runner.cluster import ClusterError

    try:
        with state.mirrored():
            study, summary, is_recorded = _train_and_report(
                spec, task, state, start.address, output
            )
    except (StartError, ClusterError, TrackingError, ForeignFolderError, OSError) as error:
        has_begun = state.has_begun
        with suppress(OSError):  # where the reason is the storage itself
            state.discard_if_new()
        message = _unwritable(error, state) if isinstance(error, OSError) else str(error)
        is_refused = isinstance(error, StartError | TrackingError) or not has_begun
        return _refuse(message) if is_refused else _stop(message, command)
    _print_end(study, summary, output)
    if not is_recorded:
        return _stop("not everything is in MLflow yet", command)
    num_failed = sum(trial.status == "failed" for trial in study.trials)
    return SOME_FAILED if num_failed else DONE


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
    spec: "StudySpec", task: "Task", state: "StudyState", address: str | None, output: Path
) -> "tuple[StudyRecord, dict[str, Any], bool]":
    """Everything from the first trial to the report.

    Returns:
        The study, its summary, and whether MLflow has all of it.
    """
    from scaling.command.environment import describe_environment
    from scaling.report.document import write_report
    from scaling.sinks import StudyTracker, TrackingError, UnsentError, load_study, missing_from

    environment = describe_environment() | _describe_data(task) | {"started": _now()}
    tracker, study = _train(spec, task, state, address, environment)
    # What is not in MLflow did not happen: the report is made from what MLflow has.
    try:
        tracker.close()
        recorded = load_study(spec.name, study_id=state.study_id)
        if missing := missing_from(recorded, study.trials):
            raise UnsentError(f"MLflow lacks {len(missing)} trials, {missing[0]} for one")
        summary = write_report(recorded, output)
        tracker = StudyTracker(
            spec, recorded.environment, study_id=state.study_id, spool=state.folder
        )
        try:
            tracker.study_ended(summary["answer"], output, "done")
            tracker.close()
        except KeyboardInterrupt:  # it is done; what is not sent waits on disk
            tracker.close(INTERRUPTED_CLOSE_SECONDS)
            raise
    except TrackingError as error:
        # MLflow is away. The report is made from the study's own records meanwhile.
        print(error, file=sys.stderr)
        return study, write_report(study, output), False
    return recorded, summary, True


def _train(
    spec: "StudySpec",
    task: "Task",
    state: "StudyState",
    address: str | None,
    environment: dict[str, Any],
) -> "tuple[StudyTracker, StudyRecord]":
    """Run the study's trials; returns the tracker that they were written with, and the study."""
    from dataclasses import replace

    from rich.console import Console

    from scaling.command.progress import ProgressView
    from scaling.runner.cluster import ClusterError, connect, disconnect
    from scaling.runner.phases import StudyRun
    from scaling.runner.preflight import StartError
    from scaling.sinks import StudyTracker, TrackingError, require_store

    log_file = state.folder / "ray.log"
    print(f"state in {os.path.relpath(state.folder)}, Ray's own log in {os.path.relpath(log_file)}")
    with ExitStack() as stack:
        # Before Ray, for whose start this process writes files that are its user's alone.
        require_store(spec.name)
        stack.callback(disconnect)
        connect(address, log_file)
        # Not before Ray is up: a start that is refused leaves no run behind.
        tracker = StudyTracker(spec, environment, study_id=state.study_id, spool=state.folder)
        try:
            view = stack.enter_context(ProgressView(spec, Console()))
            study = StudyRun(spec, _facts(spec, task), state, [tracker], view).run(environment)
        except BaseException as error:
            # Recorded as far as it came, whatever the reason; the reason goes on to the caller.
            try:
                is_refused = isinstance(error, StartError | ClusterError | OSError)
                if is_refused and state.is_new and not state.has_begun:
                    tracker.discard()
                else:
                    is_asked = isinstance(error, KeyboardInterrupt)
                    tracker.study_ended("", None, "interrupted" if is_asked else "failed")
                    tracker.close(INTERRUPTED_CLOSE_SECONDS if is_asked else CLOSE_SECONDS)
            except (TrackingError, OSError) as unwritten:
                print(unwritten, file=sys.stderr)
            raise
    study = replace(study, environment={**study.environment, "ended": _now()})
    tracker.study_ended("", None, "done", study.environment)
    return tracker, study


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _facts(spec: "StudySpec", task: "Task") -> "Facts":
    from scaling.space.layout import Facts
    from scaling.training.memory.estimate import study_micro_batch_size

    bound = study_micro_batch_size(task, spec.workload, spec.resources)
    return Facts(task.num_train, task.tokens_per_example, largest_micro_batch_size=bound)


def _describe_data(task: "Task") -> dict[str, Any]:
    from scaling.records.metrics import to_plain
    from scaling.tasks.baselines import describe_baseline

    described: dict[str, Any] = {
        "data_sha256": task.content_hash,
        "targets_per_example": task.targets_per_example,
        "tokens_per_example": task.tokens_per_example,
        "num_rows_dropped_as_duplicates": task.num_dropped,
        "metrics": to_plain(task.described_metrics),
    }
    if task.num_train is not None:
        described["num_train"] = task.num_train
    described |= {f"num_evaluated_{s}": task.num_evaluated(s) for s in task.splits}
    return described | describe_baseline(task)


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
