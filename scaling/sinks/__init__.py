"""Places that are told of a study's runs; the study's own folder is what counts.

`open_sinks` has the list of them. MLflow is always one: a study is one parent run, a trial is one
child run. The child's params, tags and metrics are for people and for MLflow's own views; its tag
`record` and its metric histories hold the same `TrialRecord` exactly, and the parent's artifacts
hold the spec and the environment, so that `load_study` needs nothing but the store. What is to be
written waits in a file (`spool`) until the store has taken it, so that neither a trial nor the
process's life depends on the store.

This is the only package that imports mlflow (2-4 s, so inside the functions that use it).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scaling.records.trial import TrialRecord
from scaling.sinks.base import Sink, StudyEnd, StudyStart, TrackingError, UnsentError
from scaling.sinks.mlflow.reachable import require_reachable_store
from scaling.sinks.mlflow.store import resolve_tracking_uri

__all__ = [
    "Sink",
    "StudyEnd",
    "StudyStart",
    "TrackingError",
    "UnsentError",
    "open_sinks",
    "require_reachable_store",
    "resolve_tracking_uri",
    "study_ended",
]

if TYPE_CHECKING:
    from scaling.sinks.mlflow.sink import MlflowSink

OTHERS: tuple[Callable[[StudyStart], Sink], ...] = ()
"""Who is told besides MLflow."""


def open_sinks(start: StudyStart, ended: Sequence[TrialRecord]) -> "tuple[MlflowSink, list[Sink]]":
    """Open every place that is told of a study.

    Args:
        start: The study.
        ended: Its trials that ended before, of which a place may not know yet.

    Returns:
        MLflow, and all of them, MLflow included.

    Raises:
        TrackingError: If one cannot take the study.
        OSError: If one cannot be written.
    """
    from scaling.sinks.mlflow.sink import MlflowSink

    others = [open_one(start) for open_one in OTHERS]
    mlflow = MlflowSink(start)  # last: where another cannot take the study, it leaves no run
    sinks: list[Sink] = [mlflow, *others]
    for record in ended:
        for sink in sinks:
            sink.trial_ended(record)
    return mlflow, sinks


def study_ended(sinks: Sequence[Sink], end: StudyEnd) -> list[str]:
    """Tell every place that a study ended (see `Sink.study_ended`).

    Returns:
        Why a place has not taken everything, one line for each that has not.
    """
    problems: list[str] = []
    for sink in sinks:
        try:
            sink.study_ended(end)
        except (TrackingError, OSError) as error:
            problems.append(str(error))
    return problems
