"""What a study ran with: versions, hardware, commit, as plain strings and numbers."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling.records.metrics import to_plain
from scaling.tasks.baselines import describe_baseline
from scaling.tasks.content import data_hash
from scaling.tasks.task import TaskData, described

_PACKAGES = ("torch", "ray", "transformers", "datasets", "optuna", "mlflow", "numpy", "scaling")


def describe_environment() -> dict[str, Any]:
    """Versions, processor, memory and commit of the machine that drives the study."""
    return {
        "python": platform.python_version(),
        **{f"version_{name}": _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "num_cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "commit": _commit(),
    }


def _version(name: str) -> str:
    """That of an installed package; a copy of this one may lie on the path alone."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Commit of the checkout that the package is part of, `-dirty` with uncommitted changes.

    None where it is installed, though that may be in a folder of some checkout.
    """
    file = Path(__file__)
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    """What a command of git prints; raises where there is no git, or no repository."""
    found = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return found.stdout.strip()


def describe(tasks: Sequence[TaskData]) -> dict[str, Any]:
    """What is said of a study beside its trials: its environment, its data and its metrics.

    Of a ladder, what is said of data is of its first size.
    """
    task = tasks[0]
    known: dict[str, Any] = {
        **describe_environment(),
        "data_sha256": data_hash(task.content_hash for task in tasks),
        "targets_per_example": task.targets_per_example,
        "tokens_per_example": task.tokens_per_example,
        "num_rows_dropped_as_duplicates": task.num_dropped,
        "metrics": to_plain(described(task)),
    }
    summary = task.data_summary
    if summary is not None and summary.waived:
        known["exactness_waived"] = list(summary.waived)
    if summary is not None and summary.in_report:
        known["training_notes"] = list(summary.in_report)
    if task.num_train is not None:
        known["num_train"] = task.num_train
    known |= {f"num_evaluated_{s}": task.num_evaluated(s) for s in task.splits}
    return known | describe_baseline(task)
