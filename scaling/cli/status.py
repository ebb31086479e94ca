"""Where every study in a folder stands, and every one that was submitted to a cluster."""

import fcntl
from pathlib import Path

from rich.table import Table

from scaling.console import plain_console
from scaling.records.load import read_environment
from scaling.runner.preflight import ClusterError
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.state_folder import LOCK, StateError
from scaling.spec.checks.sizes import num_trials


def print_status(folder: Path) -> int:
    """Print one line a study; nothing is written, and a study that runs is not disturbed.

    Args:
        folder: Where studies keep their state; a folder in it, or it itself, is a study's.

    Returns:
        The exit status: 2 where there is no study.
    """
    console = plain_console()
    table = Table("study", "stands", "trials", "of at most", "failed", "question", box=None)
    for place in [folder, *sorted(p for p in folder.glob("*") if p.is_dir())]:
        try:
            recorded = RecordedStudy.read(place)
            row = _row(recorded) if recorded is not None else None
        except (StateError, ValueError, OSError) as error:
            row = (place.name, "cannot be read", "", "", "", str(error))
        if row is not None:
            table.add_row(*row)
    if not table.row_count:
        console.print(f"{folder}: no study keeps its state here")
        return 2
    console.print(table)
    return 0


def print_cluster_status(address: str) -> int:
    """Print one line per study that was submitted to a cluster, the newest first.

    Args:
        address: Of the dashboard, as in http://localhost:8265.

    Returns:
        The exit status: 2 where no cluster answers, or it has no study.
    """
    from scaling.runner.submitted_studies import submitted_studies

    console = plain_console()
    try:
        studies = submitted_studies(address)
    except ClusterError as error:
        console.print(str(error))
        return 2
    if not studies:
        console.print(f"{address}: no study was submitted to this cluster")
        return 2
    table = Table("study", "job", "stands", "started", "last line", box=None)
    for study in studies:
        started = f"{study.started:%Y-%m-%d %H:%M}"
        table.add_row(study.name, study.job, study.stands, started, study.last_line)
    console.print(table)
    return 0


def _row(recorded: RecordedStudy) -> tuple[str, ...]:
    folder, spec = recorded.folder, recorded.spec()
    records = recorded.records().values()
    stands = "ended" if "ended" in read_environment(folder) else "interrupted; resume it"
    if is_locked(folder / LOCK):
        stands = "runs"
    num_failed = sum(trial.status == "failed" for trial in records)
    counts = (len(records), sum(num_trials(spec).values()), num_failed)
    return folder.name, stands, *map(str, counts), spec.question


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock of a study's state."""
    try:
        with path.open(encoding="utf-8") as lock:  # shared: others that look are not in the way
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
