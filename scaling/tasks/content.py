"""What a study trains on, by content: its data, and the files of trained models and tokenizers."""

import hashlib
from collections.abc import Iterable, Mapping
from difflib import unified_diff
from functools import cache
from pathlib import Path

from scaling.spec.workloads import Workload
from scaling.tasks.extras import pretrained_folder

DATA = "the data"
# What transformers reads of a model's folder; a README may change.
_READ = {".bin", ".jinja", ".json", ".model", ".py", ".safetensors", ".tiktoken", ".txt"}


def data_hash(hashes: Iterable[str]) -> str:
    """Content hash of a study's data, from those of its task, or of all sizes of its ladder."""
    hashes = list(dict.fromkeys(hashes))
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def content_of(workload: Workload, data_sha256: str) -> dict[str, str]:
    """SHA-256 of the data, under `DATA`, and of the files: see `files_of`."""
    return {DATA: data_sha256, **files_of(workload)}


def files_of(workload: Workload) -> dict[str, str]:
    """SHA-256 of each file of the trained model and tokenizer that a workload reads, by path.

    A file's is computed once a process, until its size, number or time of change differ. A name
    on the hub counts as the folder of its cache that it leads to, by its name alone: the commit.
    """
    files: dict[str, str] = {}
    for name in trained_names(workload):
        folder = Path(pretrained_folder(name))
        if folder.is_dir():
            # By the name in the study file: elsewhere a built-in one lies in another folder.
            files |= {str(Path(name, path.name)): _sha256(path) for path in _files(folder)}
        elif (commit := _cached_commit(name)) is not None:
            files[name] = commit
    return files


def trained_names(workload: Workload) -> list[str]:
    """Folders, names on the hub, or built-in names of trained models and tokenizers."""
    model = workload.model and workload.model.pretrained
    tokenizer = workload.data and workload.data.named_tokenizer
    return [name for name in (model, tokenizer) if name is not None]


def what_changed(known: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """In a few words, what is not as a study knew it; None where all is."""
    names = [name for name in known if name != DATA]
    if known.get(DATA) != now.get(DATA):
        before, after = known.get(DATA, ""), now.get(DATA, "")
        return f"{DATA} have changed (SHA-256 {before[:12]}, now {after[:12]})"
    for name in [*names, *(now.keys() - known.keys())]:
        if name not in now:
            # Elsewhere the hub's cache may lack what is loaded with the first trial.
            if Path(name).suffix in _READ:
                return f"{name} is missing"
        elif name not in known:
            if Path(name).suffix in _READ:
                return f"{name} is new"
        elif known[name] != now[name]:
            return f"{name} has changed ({known[name][:12]}, now {now[name][:12]})"
    return None


_MAX_DIFFERENCES = 40


def code_difference(known: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What is not as it was in files of the user's own, as a unified diff; empty where all is."""
    lines = [
        line.rstrip("\n")
        for name in sorted(known.keys() | now.keys())
        for line in unified_diff(
            known.get(name, "").splitlines(), now.get(name, "").splitlines(),
            f"{name} (as the study was started)", f"{name} (now)", n=1, lineterm="",
        )
    ]  # fmt: skip
    more = len(lines) - _MAX_DIFFERENCES
    return "\n".join(lines[:_MAX_DIFFERENCES] + [f"… and {more} lines more"] * (more > 0))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _READ and path.is_file())


def _sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_of(
        path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )  # fmt: skip


@cache
def _sha256_of(path: Path, *identity: int) -> str:  # noqa: ARG001  # another file, another digest
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached_commit(name: str) -> str | None:
    """The commit of a name on the hub that is loaded from this machine's cache; None without."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a folder that is gone
        return None
    return Path(cached).parent.name if isinstance(cached, str) else None
