"""Notices that the Ray cluster is gone, while there is still time to say so.

Ray itself ends the process in native code a minute after its control store has died, and half a
minute after the driver's node has.
"""

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any

import ray
import ray.exceptions

from scaling.runner.preflight import ClusterError

CHECK_SECONDS = 1.0
LOST_AFTER_SECONDS = 5.0  # of refusing connections
LEAVE_SECONDS = 15.0
_INTERRUPT = signal.SIGUSR1
LOST = "the Ray cluster is lost: its control store or this node does not answer"


class ClusterWatch:
    """Asks every second whether the control store and the driver's node answer.

    A context manager: when they do not, what runs inside it in the main thread is interrupted and
    leaves with ClusterError. A signal that is the user's is not used for that, so that Ctrl-C is
    heard afterwards too. What runs in another thread cannot be interrupted.

    Args:
        resume_command: What goes on with the study; said where the main thread cannot leave.

    Attributes:
        is_lost: Whether the cluster is gone; no call of Ray's would return.
    """

    def __init__(self, resume_command: str) -> None:
        self._resume_command = resume_command
        self.is_lost = False
        self._is_over = threading.Event()
        self._addresses = _addresses()
        self._is_in_main_thread = threading.current_thread() is threading.main_thread()
        self._handler_before: Any = signal.SIG_DFL
        self._thread = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)

    def __enter__(self) -> "ClusterWatch":
        if self._is_in_main_thread:
            self._handler_before = signal.signal(_INTERRUPT, self._interrupt)
        self._thread.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._is_over.set()
        self._thread.join()
        if self._is_in_main_thread:
            signal.signal(_INTERRUPT, self._handler_before)
        ends_by_loss = isinstance(error, KeyboardInterrupt | ray.exceptions.RayError | ClusterError)
        if self.is_lost and ends_by_loss:
            raise ClusterError(LOST) from error

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler: a KeyboardInterrupt, since libraries catch whatever else is raised."""
        del number, frame
        if not self._is_over.is_set():
            raise KeyboardInterrupt(LOST)

    def _watch(self) -> None:
        last_answer = dict.fromkeys(self._addresses, time.monotonic())
        while not self._is_over.wait(CHECK_SECONDS):
            for address in self._addresses:
                if not _refuses(address):
                    last_answer[address] = time.monotonic()
                elif time.monotonic() - last_answer[address] > LOST_AFTER_SECONDS:
                    self.is_lost = True
                    if self._is_in_main_thread:
                        signal.pthread_kill(threading.main_thread().ident or 0, _INTERRUPT)
                    if not self._is_over.wait(LEAVE_SECONDS):
                        _leave(self._resume_command)
                    return


def _leave(resume_command: str) -> None:
    """End this process, whose main thread waits for the lost cluster in native code.

    As after SIGKILL, what has ended is on disk, and Ray's processes here end with this one.
    """
    line = f"{LOST}\nwhat has ended is kept. To go on: {resume_command}\n"
    try:
        os.write(sys.stderr.fileno(), line.encode())
    except (AttributeError, OSError, ValueError):  # a notebook's has none
        os.write(2, line.encode())
    finally:
        os._exit(1)


def _addresses() -> list[tuple[str, int]]:
    """Of the control store, and of the node that this process is on."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    own = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    nodes = [(str(node["NodeManagerAddress"]), int(node["NodeManagerPort"])) for node in own]
    return [(host.strip("[]"), int(port)), *nodes]


def _refuses(address: tuple[str, int]) -> bool:
    """Whether nothing listens there; one that is slow to answer is there."""
    try:
        with socket.create_connection(address, timeout=CHECK_SECONDS):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
