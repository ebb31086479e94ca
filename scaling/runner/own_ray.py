"""Ray that a study starts for itself: on loopback, with a token, in a folder of its user alone.

Imports no Ray, since some of this must be in the environment before Ray is imported.
"""

import fcntl
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scaling.runner.joining import NUM_ASKED
from scaling.runner.preflight import SESSION_PATTERN, StartError, starts_here, system_folder

RENDEZVOUS_FOLDER = "SCALING_RENDEZVOUS_FOLDER"
"""Environment variable: where worker groups of this machine meet, in files."""
UMASK = "SCALING_UMASK"
"""Environment variable: the user's umask, in octal, for what workers write into the storage."""
ABANDONED_SECONDS = 60.0
_PARTS = ("ray", "rendezvous")


def prepare_environment(address: str | None) -> None:
    """Let a Ray that is started here ask for a token and listen on 127.0.0.1 alone.

    A cluster that is joined is asked once.

    Ray reads both when it is imported, so this comes before. The second variable is made for
    systems on which Ray supports no clusters: without them a node's address is 127.0.0.1, which
    every process of Ray then listens on.
    """
    if starts_here(address):
        if "ray" not in sys.modules:  # else only its own default is seen, see `connect`
            os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    else:
        os.environ.setdefault(NUM_ASKED, "1")


@dataclass(frozen=True)
class PrivateSession:
    """A folder that only this user can enter, for a Ray that is started here.

    Attributes:
        folder: Of mode 0700.
        lock: Held for as long as it is in use.
    """

    folder: Path
    lock: TextIO

    @classmethod
    def make(cls) -> "PrivateSession":
        """A new one, with a token of its own; those that no process uses any more are removed.

        Raises:
            StartError: If the temporary folder cannot be written.
        """
        where, parent = system_folder()
        try:
            _remove_abandoned(parent)
            folder = Path(tempfile.mkdtemp(prefix=SESSION_PATTERN.rstrip("?"), dir=parent))
            for part in _PARTS:
                (folder / part).mkdir(mode=0o700)
            lock = _opened_new(folder / "lock")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with _opened_new(folder / "auth_token") as token:
                token.write(secrets.token_hex(32))
        except OSError as error:
            raise StartError(
                f"temporary folder {where}: cannot be written ({error.strerror})"
            ) from error
        return cls(folder, lock)

    @property
    def variables(self) -> dict[str, str]:
        """What every process of the session has in its environment, the driver included.

        The token is ours, since Ray writes its own readable for every user of the machine.
        """
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        return {
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "auth_token"),
            RENDEZVOUS_FOLDER: str(self.folder / "rendezvous"),
            # Where the workers of a group listen for each other.
            "GLOO_SOCKET_IFNAME": loopback,
            "NCCL_SOCKET_IFNAME": loopback,
        }

    def remove(self) -> None:
        """Remove the folder and what Ray left there; the environment forgets it."""
        for name, value in self.variables.items():
            if os.environ.get(name) == value:
                del os.environ[name]
        for part in _PARTS:  # first: what a kill leaves here has its lock, and goes later
            shutil.rmtree(self.folder / part, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


def _opened_new(path: Path) -> TextIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's sessions whose process was killed: they hold a token, and logs."""
    for folder in parent.glob(SESSION_PATTERN):
        try:
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
            if is_ours and time.time() - status.st_mtime > ABANDONED_SECONDS:
                if not (folder / "lock").exists():  # it was killed before it had one
                    for path in (*(folder / part for part in _PARTS), folder):
                        with suppress(FileNotFoundError):
                            path.rmdir()
                    continue
                with (folder / "lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, being removed by another process, or full without a lock
            continue


@contextmanager
def private_files() -> Iterator[str]:
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
