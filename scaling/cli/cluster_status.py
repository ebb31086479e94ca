"""Where the studies that were submitted to a Ray cluster stand, asked over its dashboard's port."""

import contextlib
import logging
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

WIDTH = 110  # columns, where the output is no terminal


def print_cluster_status(address: str) -> int:
    """Print one line per study that `ray job submit` sent to a cluster, the newest first.

    Args:
        address: Of the dashboard, as in http://localhost:8265.

    Returns:
        The exit status: 2 where no cluster answers, or it has no study.
    """
    from ray.job_submission import JobSubmissionClient

    console = Console(width=None if Console().is_terminal else WIDTH)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        client = JobSubmissionClient(address)
        jobs = client.list_jobs()
    except Exception as error:  # noqa: BLE001  # Ray's client raises several kinds, as the network does
        return _refused(console, address, str(error).strip().splitlines() or [repr(error)])
    table = Table("study", "job", "stands", "started", "last line", box=None)
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        study = study_of(job.entrypoint)
        if study is None or job.submission_id is None:
            continue
        said = ""
        with contextlib.suppress(Exception):  # logs go with the machine that wrote them
            said = last_line(client.get_job_logs(job.submission_id))
        started = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC)
        table.add_row(
            study, job.submission_id, job.status.value.lower(), f"{started:%Y-%m-%d %H:%M}", said
        )
    if not table.row_count:
        console.print(f"{address}: no study was submitted to this cluster", highlight=False)
        return 2
    console.print(table)
    return 0


def _refused(console: Console, address: str, said: Sequence[str]) -> int:
    reason = said[0]
    if any(word in reason for word in ("401", "403", "token")):
        reason = "the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    elif "connect" in reason.lower():
        reason = "nobody answers; ray dashboard CLUSTER.yaml forwards the port"
    console.print(f"{address}: {reason}", markup=False, highlight=False)
    return 2


def study_of(entrypoint: str) -> str | None:
    """The study that a job's command line runs; None for another command."""
    try:
        words = shlex.split(entrypoint)
    except ValueError:
        return None
    for place, word in enumerate(words[:-1]):
        is_command = Path(word).name == "scaling" and words[place + 1] in ("run", "resume")
        if word == "scaling.study" or is_command:
            later = [w for w in words[place + 1 + is_command :] if not w.startswith("-")]
            files = [w for w in later if w.endswith((".yaml", ".yml"))]
            return next((Path(w).stem for w in (*files, *later)), None)
    return None


def last_line(log: str) -> str:
    """The last line of a log that says something, without a terminal's colors."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in log.splitlines()]
    return next((line for line in reversed(lines) if line), "")
