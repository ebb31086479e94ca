"""Ray that a study starts for itself: on loopback, with a token, in a folder of its user alone.

Imports no Ray, since some of this must be in the environment before Ray is imported.
"""

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RENDEZVOUS_FOLDER = "SCALING_RENDEZVOUS_FOLDER"
"""Environment variable: where worker groups of this machine meet, in files."""
UMASK = "SCALING_UMASK"
"""Environment variable: the user's umask, in octal, for what workers write into the storage."""

# Ray's longest socket is this much longer than its folder, and a path of 107 characters the
# longest that a socket can have: /session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store
_SOCKET_PATH_CHARACTERS = len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
MAX_SOCKET_PATH = 107


class FolderError(OSError):
    """No folder on this machine can hold Ray's session; the message says why."""


def starts_here(address: str | None) -> bool:
    """Whether a study with this `--address` starts Ray itself, and joins no cluster."""
    return (address or os.environ.get("RAY_ADDRESS") or "local") == "local"


def keep_to_loopback(address: str | None) -> None:
    """Let Ray listen on 127.0.0.1 alone, where it is started here; call before importing it.

    The variable is Ray's own, made for systems on which it supports no clusters; without clusters
    a node's address is 127.0.0.1, which every process of Ray then listens on.
    """
    if starts_here(address):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def private_folder() -> Path:
    """A new folder that only this user can enter, short enough for Ray's sockets.

    Raises:
        FolderError: If there is none: the temporary folder cannot be written, say.
    """
    parent = Path(tempfile.gettempdir()).absolute()
    if _room_for_sockets(parent) < 0:
        parent = Path("/tmp")  # mkdtemp makes it private
    try:
        folder = Path(tempfile.mkdtemp(prefix="scaling-", dir=parent))
    except OSError as error:
        raise FolderError(error.errno, f"{parent}: {error.strerror}", str(parent)) from error
    for part in ("ray", "rendezvous"):
        (folder / part).mkdir(mode=0o700)
    return folder


def _room_for_sockets(parent: Path) -> int:
    return MAX_SOCKET_PATH - len(str(parent / "scaling-12345678/ray")) - _SOCKET_PATH_CHARACTERS


def session_environment(folder: Path) -> dict[str, str]:
    """What every process of a session in this folder needs to know, the driver included.

    Makes the session's token, in a file that only this user can read; Ray 2.55 to 2.58 ask for
    none unless told, and later ones write theirs readable for everybody.
    """
    token = folder / "auth_token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        RENDEZVOUS_FOLDER: str(folder / "rendezvous"),
        # Where the workers of a group listen for each other.
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }


@contextmanager
def private_umask() -> Iterator[str]:
    """What is written inside the block, by processes started there too, is this user's alone.

    Yields:
        The user's own umask, in octal.
    """
    users = os.umask(0o077)
    try:
        yield f"{users:o}"
    finally:
        os.umask(users)


def restore_umask() -> None:
    """Write with the user's own umask again, in a process that Ray has started."""
    if UMASK in os.environ:
        os.umask(int(os.environ[UMASK], 8))


def remove_folder(folder: Path) -> None:
    """Remove a private folder and what Ray left there."""
    shutil.rmtree(folder, ignore_errors=True)


def protect_token() -> None:
    """Let nobody else read the token by which this user joins clusters, where there is one.

    `ray get-auth-token --generate` writes it readable for every user of the machine.
    """
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = Path(given) if given else Path.home() / ".ray" / "auth_token"
    try:
        status = token.lstat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_mode & 0o077:
        token.chmod(0o600)
