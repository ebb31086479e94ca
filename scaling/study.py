"""Run the study that a YAML file describes: python -m scaling.study STUDY.yaml.

Exit status: 0 when every trial ended as done, stopped or diverged; 1 when some trial failed; 2
for a bad study file or a refused start; 130 after Ctrl-C.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.issues import StudyFileError
from scaling.spec import NoisyQuadratic, StudySpec
from scaling.study_file import read_study

if TYPE_CHECKING:
    from scaling.records import StudyRecord
    from scaling.runner.state import StudyState
    from scaling.space import Facts
    from scaling.tasks.task import Task
    from scaling.tracking import StudyTracker

DONE, SOME_FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    # A shell that starts a job in the background has it ignore SIGINT; ours ends cleanly on it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Libraries that would draw their own progress bars over ours.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        spec = read_study(options.study, options.set)
    except StudyFileError as error:
        return _refuse(str(error))
    from scaling.tasks.sources import DataError

    try:
        if options.plan:
            from scaling.plan import print_plan

            print_plan(spec)
            return DONE
        return _run(spec, options)
    except DataError as error:
        return _refuse(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scaling.study", description="Run the study that a YAML file describes."
    )
    parser.add_argument("study", type=Path, metavar="STUDY.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="dotted.key=value",
        help="change one value of the study file; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true",
        help="print cells, trials, batch arithmetic and steps; start nothing",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on with what exists")
    parser.add_argument("--address", help="a Ray cluster; this machine alone where left out")
    parser.add_argument("--output", type=Path, help="folder of the report [reports/NAME]")
    return parser


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return REFUSED


def _run(spec: StudySpec, options: argparse.Namespace) -> int:
    from scaling.runner.cluster import ClusterError
    from scaling.runner.state import StateError, StudyState, require_startable
    from scaling.tasks.sources import require_source
    from scaling.tracking import TrackingError

    if not isinstance(spec.workload, NoisyQuadratic):
        require_source(spec.workload)
    command = _command(options)
    output: Path = options.output or Path("reports") / spec.name
    try:
        require_startable(spec, resume=options.resume, command=command)
        print(f"study {spec.name}: {spec.question}", flush=True)
        task = _prepared_task(spec)
        state = StudyState.open(spec, data_sha256=task.content_hash)
        try:
            study, summary = _train_and_report(spec, task, state, options.address, output)
        except (ClusterError, TrackingError):
            state.discard_if_new()
            raise
    except (StateError, ClusterError, TrackingError) as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print(f"\ninterrupted; what has ended is kept. To go on: {command} --resume", flush=True)
        return INTERRUPTED
    _print_end(study, summary, output)
    num_failed = sum(trial.status == "failed" for trial in study.trials)
    return SOME_FAILED if num_failed else DONE


def _command(options: argparse.Namespace) -> str:
    """The command line that started this study, without --resume."""
    words = ["python", "-m", "scaling.study", str(options.study)]
    for change in options.set:
        words += ["--set", change]
    if options.address:
        words += ["--address", options.address]
    if options.output:
        words += ["--output", str(options.output)]
    return shlex.join(words)


def _prepared_task(spec: StudySpec) -> "Task":
    """The data, read and encoded; data or a model that cannot be had are said here."""
    from scaling.tasks.task import prepare_task, require_trainable

    task = prepare_task(spec.workload, spec.evaluation)
    require_trainable(task, spec.seed)
    return task


def _train_and_report(
    spec: StudySpec, task: "Task", state: "StudyState", address: str | None, output: Path
) -> "tuple[StudyRecord, dict[str, Any]]":
    """Everything from the first trial to the report; returns the study and its summary."""
    from scaling.environment import describe_environment
    from scaling.report.document import write_report
    from scaling.tracking import StudyTracker, load_study

    environment = describe_environment() | _describe_data(task) | {"started": _now()}
    tracker = _train(spec, task, state, address, environment)
    # What is not in MLflow did not happen: the report is made from what MLflow has.
    tracker.close()
    study = load_study(spec.name, study_id=state.study_id)
    summary = write_report(study, output)
    tracker = StudyTracker(spec, study.environment, study_id=state.study_id, spool=state.folder)
    tracker.study_ended(summary["answer"], output, "done")
    tracker.close()
    return study, summary


def _train(
    spec: StudySpec,
    task: "Task",
    state: "StudyState",
    address: str | None,
    environment: dict[str, Any],
) -> "StudyTracker":
    """Run the study's trials; returns the tracker that they were written with."""
    from rich.console import Console

    from scaling.progress import ProgressView
    from scaling.runner.cluster import connect, disconnect
    from scaling.runner.phases import StudyRun
    from scaling.tracking import StudyTracker, TrackingError

    log_file = state.folder / "ray.log"
    print(f"state in {os.path.relpath(state.folder)}, Ray's own log in {os.path.relpath(log_file)}")
    with ThreadPoolExecutor(1) as opener, ExitStack() as stack:
        # Each takes seconds that the other need not wait for.
        opening = opener.submit(
            StudyTracker, spec, environment, study_id=state.study_id, spool=state.folder
        )
        stack.callback(disconnect)
        try:
            connect(address, log_file)
            view = stack.enter_context(ProgressView(spec, Console()))
            run = StudyRun(spec, _facts(task), state, [opening.result()], view)
            study = run.run(environment)
        except BaseException as error:
            # Recorded as far as it came, whatever the reason; the reason goes on to the caller.
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            try:
                opening.result().study_ended("", None, status)
                opening.result().close()
            except TrackingError as unwritten:
                print(unwritten, file=sys.stderr)
            raise
    tracker = opening.result()
    tracker.study_ended("", None, "done", {**study.environment, "ended": _now()})
    return tracker


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _facts(task: "Task") -> "Facts":
    from scaling.space import Facts

    return Facts(task.num_train, task.targets_per_example)


def _describe_data(task: "Task") -> dict[str, Any]:
    described: dict[str, Any] = {
        "data_sha256": task.content_hash,
        "targets_per_example": task.targets_per_example,
        "num_rows_dropped_as_duplicates": task.num_dropped,
    }
    if task.num_train is not None:
        described["num_train"] = task.num_train
    return described | {f"num_evaluated_{s}": task.num_evaluated(s) for s in task.splits}


def _print_end(study: "StudyRecord", summary: dict[str, Any], output: Path) -> None:
    from scaling.tracking import resolve_tracking_uri

    print()
    print(summary["answer"])
    failed = [trial for trial in study.trials if trial.status == "failed"]
    for trial in failed:
        print(f"failed: {trial.trial_id}: {trial.error}", file=sys.stderr)
    page = output / "report.html"
    print()
    print(f"report:  {page}  (open it in a browser: file://{page.absolute()})")
    print(f"runs:    mlflow ui --backend-store-uri {resolve_tracking_uri()}")


if __name__ == "__main__":
    sys.exit(main())
