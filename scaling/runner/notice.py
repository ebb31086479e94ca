"""A worker's process is asked to end, as on a machine that is taken back: it saves first.

Ray's own answer to SIGTERM is to end at once, with what was trained since the last checkpoint.
"""

import signal
import threading

_ASKED = threading.Event()


def listen() -> None:
    """From here on SIGTERM is noted and ends nothing; for the main thread of a worker.

    That thread answers Ray every tenth of a second, and so gets to run a handler soon.
    """
    signal.signal(signal.SIGTERM, lambda *_: _ASKED.set())


def wait() -> None:
    """Return when this process is asked to end."""
    _ASKED.wait()
