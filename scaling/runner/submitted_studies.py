"""Studies that `ray job submit` sent to a cluster, asked over its dashboard's port."""

import contextlib
import logging
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from ray.job_submission import JobSubmissionClient

from scaling.files.shown_error import first_line
from scaling.runner.preflight import ClusterError

ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class SubmittedStudy:
    """A job that runs a study.

    Attributes:
        name: Of the study's file.
        job: By which `ray job logs` and `ray job stop` know it.
        stands: Ray's word for its state: pending, running, succeeded, failed or stopped.
        started: When it was submitted.
        last_line: The last that it printed; empty where its log is gone.
    """

    name: str
    job: str
    stands: str
    started: datetime
    last_line: str


def submitted_studies(address: str) -> list[SubmittedStudy]:
    """The studies of a cluster, the newest first.

    Args:
        address: Of the dashboard, as in http://localhost:8265.

    Raises:
        ClusterError: If no cluster answers there, or it asks for another token.
    """
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        _require_answer(address)
        client = JobSubmissionClient(address)
        jobs = client.list_jobs()
    except Exception as error:
        # Ray's client raises several kinds, as the network does.
        raise ClusterError(f"{address}: {_reason(error, address)}") from error
    found: list[SubmittedStudy] = []
    for job in sorted(jobs, key=lambda job: job.start_time or 0, reverse=True):
        name = study_of(job.entrypoint)
        if name is None or job.submission_id is None:
            continue
        said = ""
        with contextlib.suppress(Exception):  # logs go with the machine that wrote them
            said = last_line(client.get_job_logs(job.submission_id))
        started = datetime.fromtimestamp((job.start_time or 0) / 1000, UTC)
        stands = job.status.value.lower()
        found.append(SubmittedStudy(name, job.submission_id, stands, started, said))
    return found


def _require_answer(address: str) -> None:
    """Ask a dashboard for anything, since Ray's client waits for an answer without limit."""
    url = address if "://" in address else f"http://{address}"
    if url.startswith(("http://", "https://")):
        with contextlib.suppress(HTTPError), urlopen(url, timeout=ANSWER_SECONDS):
            pass


def _reason(error: Exception, address: str) -> str:
    said = first_line(error)
    if re.search(r"\b40[13]\b|token", said.replace(address.rstrip("/"), "")):
        return "the cluster asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    if isinstance(error, OSError) or "connect" in said.lower():
        return "nobody answers; ray dashboard CLUSTER.yaml forwards the port"
    return said


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
