"""Whether the machines of a cluster see the storage that the driver's machine writes to."""

import platform

import fsspec

from scaling.files.shown_url import without_credentials
from scaling.files.url_errors import as_os_error


def mark(folder: str, name: str) -> str:
    """Leave a mark in a folder or URL for workers to look for; returns this machine's name.

    Raises:
        OSError: If it cannot be written.
    """
    with as_os_error(folder):
        fs, path = fsspec.core.url_to_fs(folder)
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(_mark(path, name), b"")
    return platform.node()


def unmark(folder: str, name: str) -> None:
    """Take it away.

    Raises:
        OSError: If it cannot be removed.
    """
    with as_os_error(folder):
        fs, path = fsspec.core.url_to_fs(folder)
        if fs.exists(_mark(path, name)):
            fs.rm_file(_mark(path, name))


def why_not_shared(folder: str, name: str, host: str) -> str | None:
    """Why checkpoints written here would be lost to the driver's machine; None where they are not.

    Args:
        folder: Folder or URL of the study's checkpoints.
        name: Of the mark.
        host: Name of the driver's machine.
    """
    fs, path = fsspec.core.url_to_fs(folder)
    if fs.exists(_mark(path, name)):
        return None
    return (
        f"storage: {without_credentials(folder)} of {host} is not what {platform.node()} has "
        "under that name; name a folder that all machines share, or a URL such as "
        "s3://BUCKET/runs/NAME"
    )


def _mark(path: str, name: str) -> str:
    return f"{path}/.{name}"
