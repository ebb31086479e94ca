"""What this machine must have for Ray to start, seen before it is asked to.

Ray itself says it minutes later and in other words, or waits for ever.
"""

import errno
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scaling.spec.resources import Resources

MAX_SOCKET_PATH_BYTES = 107  # of a Unix socket on Linux, without the zero at its end
MIN_FREE_BYTES = 64 * 2**20  # Ray's logs, sockets and small files
MIN_FREE_FILES = 1000
MIN_OPEN_FILES = 512
SESSION_PATTERN = "scaling-ray-????????"  # as tempfile.mkdtemp names a folder
_LISTENS_SECONDS = 2.0
_SHARED_MEMORY = Path("/dev/shm")


class StartError(RuntimeError):
    """The study cannot start on this machine or cluster; says what is wrong and what to do."""


class ClusterError(RuntimeError):
    """The cluster cannot run this study; the message says what it has and what is needed."""


def starts_here(address: str | None) -> bool:
    """Whether Ray starts on this machine, and does not join a cluster that runs already."""
    if (address or os.environ.get("RAY_ADDRESS") or "local") != "local":
        return False
    file = running_cluster()
    return address == "local" or not (_is_ours(file) and _is_alive(file))


def running_cluster() -> Path:
    """What `ray start` leaves while it runs, and where Ray looks for an address."""
    return system_folder()[1] / "ray" / "ray_current_cluster"


def _is_ours(file: Path) -> bool:
    """Whether a file is this user's, and its folder too: another could send us anywhere."""
    try:
        owners = {part.lstat().st_uid for part in (file, file.parent)}
    except OSError:
        return False
    return owners == {os.getuid()}


def _is_alive(file: Path) -> bool:
    """Whether something listens where the file says; a cluster that was killed leaves the file."""
    try:
        host, _, port = file.read_text(encoding="utf-8").strip().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_SECONDS):
            return True
    except (ConnectionRefusedError, ValueError):
        return False
    except OSError:
        return True  # slow to answer; joining it says what is wrong


def system_folder() -> tuple[str, Path]:
    """The folder that a session of Ray is made in, and where its name comes from."""
    for variable in ("RAY_TMPDIR", "TMPDIR"):
        if variable in os.environ:
            return f"{variable}={os.environ[variable]}", Path(os.environ[variable])
    return "/tmp", Path("/tmp")


def require_startable_machine() -> None:
    """Check what a Ray that starts on this machine needs of it.

    Raises:
        StartError: If the temporary folder or /dev/shm cannot be used or is full,
            or too few files may be open at once.
    """
    _require_temporary_folder()
    _require_shared_memory()
    _require_open_files()


def num_workers_on(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """How many workers some machines have room for.

    Args:
        nodes: The numbers of `CPU` and `GPU` of each.
        resources: What a study asks for.

    Raises:
        StartError: If that is not enough for one trial.
    """
    fitting = sum(workers_on(node, resources) for node in nodes)
    needed = 1 if resources.num_workers == "auto" else resources.num_workers
    if fitting < needed:
        cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
        raise StartError(
            f"resources: one trial needs {needed} workers of {resources.cpus_per_worker:g} CPUs "
            f"and {resources.num_gpus:g} GPUs; available: {cpus:g} CPUs and {gpus:g} GPUs "
            f"on {len(nodes)} machine{'s' * (len(nodes) != 1)}; "
            "lower num_workers, cpus_per_worker or gpus_per_worker" + _shares(resources)
        )
    return fitting


def _shares(resources: Resources) -> str:
    """What gpus_per_worker below 1 means, for who has not chosen it: auto gives each worker one."""
    if resources.num_gpus != 1:
        return ""
    return " (0.5: two workers share a GPU; 0: none has one)"


def workers_on(node: Mapping[str, float], resources: Resources) -> int:
    """How many workers a node with these resources has room for.

    A worker with a share of a GPU has it on one GPU: two workers of 0.6 do not fit on 1.2.
    """
    limits = [_times(node.get("CPU", 0), resources.cpus_per_worker)]
    gpus, num_gpus = resources.num_gpus, int(node.get("GPU", 0))
    if 0 < gpus < 1:
        limits.append(num_gpus * _times(1, gpus))
    elif gpus:
        limits.append(num_gpus // int(gpus))
    return min(limits)


def _times(whole: float, part: float) -> int:
    """How often a part goes into a whole, the error of floats aside: 0.1 goes into 0.3 thrice."""
    return int(whole / part + 1e-9)


def _require_temporary_folder() -> None:
    where, folder = system_folder()
    remedy = "set TMPDIR to a short path of a folder on this machine that you may write"
    what = f"temporary folder {where}"
    if not folder.is_absolute():
        raise StartError(f"{what}: is not an absolute path; {remedy}")
    _require_folder(folder, what, remedy)
    # As Ray names the longest of its sockets.
    name = f"session_0000-00-00_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    too_long = len(os.fsencode(folder / SESSION_PATTERN / "ray" / name)) - MAX_SOCKET_PATH_BYTES
    if too_long > 0:
        problem = f"its path is {too_long} bytes too long for Ray's sockets"
        raise StartError(f"{what}: {problem}; {remedy}")
    _require_space(folder, what, f"free some space, or {remedy}")


def _require_shared_memory() -> None:
    """Ray and sums over workers do without where it is small or full, not where it is closed."""
    if not (_SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)):
        problem = "cannot be written" if _SHARED_MEMORY.is_dir() else "is not there"
        raise StartError(f"shared memory {_SHARED_MEMORY}: {problem}; mount a tmpfs there")


def _require_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MIN_OPEN_FILES:
        raise StartError(
            f"only {hard} files may be open at once, and Ray needs {MIN_OPEN_FILES}; "
            "raise the limit (ulimit -n 4096)"
        )
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, hard))


def _require_folder(folder: Path, what: str, remedy: str) -> None:
    """Check that it is a folder in which a file can be made."""
    try:
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise StartError(f"{what}: {problem}; {remedy}")
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        remedy = "free some space, or " * (error.errno in (errno.ENOSPC, errno.EDQUOT)) + remedy
        raise StartError(f"{what}: {problem}; {remedy}") from error


def _require_space(folder: Path, what: str, remedy: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        problem = f"{free / 2**20:.0f} MiB are free, and Ray needs {MIN_FREE_BYTES / 2**20:.0f}"
        raise StartError(f"{what}: {problem}; {remedy}")
    files = os.statvfs(folder)
    if files.f_files > 0 and files.f_favail < MIN_FREE_FILES:
        raise StartError(f"{what}: only {files.f_favail} more files fit in it; {remedy}")
