"""MLflow, written by one thread and read back whole: what is not in MLflow did not happen.

A study is one parent run, a trial is one child run. The child's params, tags and metrics are for
people and for MLflow's own views; its tag `record` and its metric histories hold the same
`TrialRecord` exactly, and the parent's artifacts hold the spec and the environment, so that
`load_study` needs nothing but the store.

What is to be written waits in a file (`spool`) until the store has taken it, so that neither a
trial nor the process's life depends on the store. This is the only package that imports mlflow
(2-4 s, so inside the functions that use it).
"""

from scaling.sinks.missing import missing_from
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.reachable import require_reachable_store
from scaling.sinks.mlflow.store import TrackingError, UnsentError, resolve_tracking_uri
from scaling.sinks.mlflow.tracker import StudyTracker, require_store

__all__ = [
    "StudyTracker",
    "TrackingError",
    "UnsentError",
    "load_study",
    "missing_from",
    "require_reachable_store",
    "require_store",
    "resolve_tracking_uri",
]
