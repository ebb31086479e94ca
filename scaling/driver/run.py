"""A study from its checks to its report: what a command line and the Python API both do.

Nothing heavy is loaded before it is needed, so that a refusal takes a second.
"""

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scaling.files.shown_path import shown_path
from scaling.files.shown_url import without_credentials
from scaling.plan.start import REFUSALS, Start, has_ended, require_places
from scaling.records.study import StudyRecord

if TYPE_CHECKING:
    from rich.console import Console

    from scaling.runner.state import StudyState
    from scaling.sinks import Sink
    from scaling.sinks.base import StudyStatus
    from scaling.space.layout import Facts
    from scaling.tasks.task import AnyTask


class RefusedError(Exception):
    """A study does not start; the text says why, to the user."""


class StoppedError(Exception):
    """A study ended before its time; the text says why, and how it goes on."""


def prepared(start: Start) -> "tuple[AnyTask, ...] | None":
    """Check a study's places, machine, data and model; nothing is started.

    Returns:
        The task that its trials train or look up, of a ladder one a size; None where all trials
        have ended.

    Raises:
        RefusedError: If the study cannot start as it is asked to.
    """
    # Libraries that would draw their own progress bars over ours.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        require_places(start)
        if has_ended(start) and not start.is_plan:
            return None
        from scaling.plan.start_checks import require_machine, require_tasks
        from scaling.tasks.hub import use_cache_where_unreachable

        use_cache_where_unreachable(start.spec.workload)
        require_machine(start)
        if not start.is_plan:
            print(f"study {start.spec.name}: {start.spec.question}", flush=True)
        return require_tasks(start.spec, resume=start.resume)
    except REFUSALS as error:
        raise RefusedError(without_credentials(str(error))) from error


def print_plan(
    start: Start, tasks: "tuple[AnyTask, ...] | None", console: "Console | None" = None
) -> None:
    """Print what a study would do, or what is left of one that goes on."""
    from scaling.console import plain_console
    from scaling.runner.state import looked_at

    assert tasks is not None
    console = console or plain_console()
    with looked_at(start.spec) as recorded:
        if recorded is None:
            from scaling.plan.study_plan import print_plan

            print_plan(start, tasks, console)
        else:
            from scaling.plan.resume_plan import print_resume_plan

            print_resume_plan(start.spec, recorded, tasks, console)


def run(start: Start, tasks: "tuple[AnyTask, ...] | None") -> tuple[StudyRecord, dict[str, Any]]:
    """Run a study from where it is to its report.

    Args:
        start: How it is asked to start.
        tasks: From `prepared`; None where all of its trials have ended.

    Returns:
        The study with its trials, of which some may have failed, and the report's summary.

    Raises:
        RefusedError: If it does not start.
        StoppedError: If it ended before its time, or MLflow has not taken everything.
    """
    from scaling.runner.own_ray import prepare_environment
    from scaling.runner.state_folder import StateError

    try:
        state = _opened(start, tasks)
    except StateError as error:
        raise RefusedError(without_credentials(str(error))) from error
    prepare_environment(start.address)
    with closing(state.lock):
        return _run_opened(start, tasks, state)


def _run_opened(
    start: Start, tasks: "tuple[AnyTask, ...] | None", state: "StudyState"
) -> tuple[StudyRecord, dict[str, Any]]:
    from scaling.runner.preflight import ClusterError, StartError
    from scaling.sinks import TrackingError

    try:
        with state.mirrored():
            study, summary, unsent = _train_and_report(start, tasks, state)
    except Exception as error:  # whatever it is, a study that has not begun leaves no state
        has_begun = state.has_begun
        with suppress(OSError):  # where the reason is the storage itself
            state.discard_if_new()
        if not isinstance(error, (*REFUSALS, ClusterError, OSError)):
            raise
        message = _unwritable(error, start, state) if isinstance(error, OSError) else str(error)
        is_refused = isinstance(error, StartError | TrackingError) or not has_begun
        if is_refused:
            raise RefusedError(without_credentials(message)) from error
        raise _stopped(message, start.command) from error
    if unsent:
        raise _stopped("\n".join([*unsent, "not everything is in MLflow yet"]), start.command)
    return study, summary


def _opened(start: Start, tasks: "tuple[AnyTask, ...] | None") -> "StudyState":
    from scaling.runner.state import StudyState

    if tasks is None:
        print(f"study {start.spec.name}: {start.spec.question}\nall of its trials have ended")
        return StudyState.reopen(start.spec)
    from scaling.plan.start_checks import start_notes
    from scaling.tasks.content import content_of, data_hash
    from scaling.tasks.own.code import code_of

    for note in start_notes(start.spec, tasks[0]):
        print(f"  {note}", flush=True)
    workload = start.spec.workload
    content = content_of(workload, data_hash(task.content_hash for task in tasks))
    return StudyState.open(start.spec, content, code_of(workload))


def _stopped(message: str, command: str) -> StoppedError:
    from scaling.runner.state import resuming

    message = without_credentials(message)
    return StoppedError(f"{message}\nwhat has ended is kept. To go on: {resuming(command)}")


def _unwritable(error: OSError, start: Start, state: "StudyState") -> str:
    """One line for a disk that is full, a folder that may not be written, and the like."""
    if error.filename == str(start.output):
        return f"--output: cannot write {start.output}: {error.strerror or error}"
    where = error.filename or shown_path(state.folder)
    what = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EACCES: "make it writable for you",
        errno.EPERM: "make it writable for you",
        errno.EROFS: "mount it for writing, or choose another storage",
    }.get(error.errno or 0, "choose another storage, or repair this one")
    return f"storage: cannot write {where}: {error.strerror or error}; {what}"


def _train_and_report(
    start: Start, tasks: "tuple[AnyTask, ...] | None", state: "StudyState"
) -> tuple[StudyRecord, dict[str, Any], list[str]]:
    """Everything from the first trial to the report, which is made of the study's own records.

    Returns:
        The study, its summary, and why a place that is told of it has not taken everything.
    """
    from scaling.records.load import load_folder, read_environment, write_environment
    from scaling.report.document import write_report
    from scaling.report.study_numbers import study_numbers
    from scaling.sinks import StudyEnd, StudyStart, open_sinks, study_ended

    spec, folder = start.spec, state.folder
    environment = read_environment(folder)
    facts: Facts | None = None
    if tasks is not None:
        from scaling.driver.environment import describe
        from scaling.measures.device import GPU_FACTS
        from scaling.plan.facts import facts_of

        facts = facts_of(start.with_gpus(), tasks)
        kept = {name: environment[name] for name in GPU_FACTS if name in environment}
        environment = describe(tasks) | kept | {"started": environment.get("started", _now())}
        if facts.predicted:
            environment["predicted_scales"] = [dict(scale) for scale in facts.predicted]
        write_environment(folder, environment)
    ended = list(state.recorded.records().values())
    mlflow, sinks = open_sinks(StudyStart(spec, state.study_id, folder, environment), ended)
    try:
        if facts is not None and tasks is not None:
            environment |= {**_train(start, facts, tasks, state, sinks), "ended": _now()}
            environment["num_trials_ended"] = len(state.recorded.records())
            write_environment(folder, environment)
        study = load_folder(folder, spec, mlflow.trial_urls())
        summary = write_report(study, start.output)
    except BaseException as error:
        # Told as far as it came, whatever the reason; the reason goes on to the caller.
        status: StudyStatus = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if isinstance(error, Exception) and state.is_new and not state.has_begun:
            status = "refused"
        for problem in study_ended(sinks, StudyEnd(status)):
            print(problem, file=sys.stderr)
        raise
    found = study_numbers(summary)
    end = StudyEnd("done", summary["answer"], start.output, study.environment, found)
    return study, summary, study_ended(sinks, end)


def _train(
    start: Start,
    facts: "Facts",
    tasks: "tuple[AnyTask, ...]",
    state: "StudyState",
    sinks: "Sequence[Sink]",
) -> dict[str, Any]:
    """Run the trials that have not ended; returns what belongs into the study's environment."""
    from rich.console import Console

    from scaling.driver.live_page import NAME, LivePage
    from scaling.driver.progress import ProgressView
    from scaling.runner.cluster import connect, disconnect
    from scaling.runner.phases import StudyRun
    from scaling.runner.state import resuming

    log_file = state.folder / "ray.log"
    print(f"state in {shown_path(state.folder)}, Ray's own log in {shown_path(log_file)}")
    print(f"curves so far: {shown_path(state.folder / NAME)} (a page that reloads itself)")
    with ExitStack() as stack:
        connect(start.address, log_file)
        stack.callback(disconnect)
        before = state.recorded.records()
        page = stack.enter_context(LivePage(start.spec, state.folder, facts.metrics, before))
        console = Console(markup=False, highlight=False)
        view = stack.enter_context(ProgressView(start.spec, console, facts.metrics, page))
        go_on = resuming(start.command)
        return StudyRun(start.spec, facts, tasks, state, sinks, view, go_on).run()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
