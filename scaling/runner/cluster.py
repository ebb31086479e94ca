"""The Ray cluster that a study runs on: connecting, and how many trials fit at once."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from scaling.files.shown_error import first_line
from scaling.process import reclaim_signals
from scaling.runner.joining import JOIN_SECONDS, join_problem, no_cluster
from scaling.runner.own_ray import UMASK, PrivateSession, private_files, protect_token
from scaling.runner.preflight import StartError, running_cluster, starts_here

_LOG = logging.getLogger(__name__)
# Its programs, and the scripts that it has Python run.
_RAYS_OWN = str(Path(ray.__file__).parent) + os.sep

# Ray Train's controller polls its workers every two seconds; a pool starts sooner with less.
WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # By itself Ray shows a worker that has no GPU all of its machine's, and code that takes one
    # where torch finds it would compute beside tensors of the CPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a study file's relative paths hold on the workers too
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
# torch's names for how it takes a GPU's memory; what the user says stays.
_ALLOCATOR = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"}
# Tune writes a CSV and a TensorBoard file a trial, and handles Ctrl-C on its own; we do both.
_DRIVER_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}

START_ATTEMPTS = 3
_FINAL = (ConnectionError, ValueError, FileNotFoundError, PermissionError)
START_SECONDS = 40.0  # of a machine that does nothing else
STOP_SECONDS = 30.0
GIVE_UP_SECONDS = 3.0
_POLL_SECONDS = 0.02


class Patience:
    """A time limit that a busy machine stretches: by its load for each CPU, three times at most.

    What takes ten seconds on a machine of its own takes half a minute where others share it, and
    is no hang.
    """

    def __init__(self, seconds: float) -> None:
        self._left, self._began = seconds, time.monotonic()
        self._seen = self._began

    @property
    def is_over(self) -> bool:
        """Whether the time is up; to be asked every few seconds at least."""
        before, self._seen = self._seen, time.monotonic()
        busy = os.getloadavg()[0] / (os.cpu_count() or 1)
        self._left -= (self._seen - before) / min(max(1.0, busy), 3.0)
        return self._left <= 0

    @property
    def waited(self) -> float:
        """Seconds since it began, by the clock."""
        return time.monotonic() - self._began


class _Connection:
    """Ray in a thread of its own, where a start or an end that hangs can be given up.

    Linux ends what a thread has started when the thread ends, so it lives as long as the cluster.
    Ray's signal handlers, for the main thread only, are not installed either.
    """

    def __init__(self, address: str | None, session: PrivateSession | None) -> None:
        self._address, self._session = address, session
        self.is_started_here = session is not None
        self._answered, self._leave = threading.Event(), threading.Event()
        self._is_given_up = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)
        self._thread.start()

    def answers_soon(self) -> bool:
        """Wait a little; returns whether Ray has started or failed to."""
        is_answered = self._answered.wait(_POLL_SECONDS)
        reclaim_signals()  # Ray's code in C++ takes SIGTERM, prints a stack and aborts
        return is_answered

    def give_up(self) -> None:
        """End all processes that Ray has started here, whatever state they are in."""
        self._is_given_up = True
        end_ray_processes()

    def close(self) -> None:
        """Leave the cluster, and end what was started here."""
        self._leave.set()
        if not self._answered.is_set():
            self.give_up()
        patience = Patience(STOP_SECONDS if self._answered.is_set() else GIVE_UP_SECONDS)
        while self._thread.is_alive() and not patience.is_over:
            self._thread.join(_POLL_SECONDS)
            reclaim_signals()  # and sets it free
        if self._thread.is_alive():
            self.give_up()
        if self._session is not None:
            self._session.remove()

    def _run(self) -> None:
        # Closing a terminal hangs up on every process in it. Ours then ends Ray's in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        for attempt in range(1, START_ATTEMPTS + 1 if self.is_started_here else 2):
            try:
                self._start()
                self.error = None
                break
            except Exception as error:  # noqa: BLE001  # what Ray raises on a slow machine, too
                self.error = error
                _shut_down()
                end_ray_processes()
                # What speaks of the address, or of a file, will say the same again.
                if self._is_given_up or self._leave.is_set() or isinstance(error, _FINAL):
                    break
                _LOG.warning("attempt %d to start Ray failed: %s", attempt, first_line(error))
        self._answered.set()
        if self.error is None:
            self._leave.wait()
            _shut_down()

    def _start(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self._session is None:
            variables = WORKER_ENVIRONMENT
            ray.init(address=self._address, runtime_env={"env_vars": variables}, **options)
            return
        with private_files() as umask:
            variables = WORKER_ENVIRONMENT | self._session.variables | {UMASK: umask}
            ray.init(
                address="local",
                _temp_dir=str(self._session.folder / "ray"),
                runtime_env={"env_vars": variables},
                **options,
            )
        if os.environ.get("RAY_AUTH_MODE") != "token":
            # Older than 2.59, and imported before `prepare_environment` was called.
            raise PermissionError(
                "Ray starts without token authentication; set RAY_AUTH_MODE=token"
            )


_connection: _Connection | None = None


def connect(address: str | None, log_file: Path) -> None:
    """Start Ray on this machine, or join the cluster at `address` (or RAY_ADDRESS).

    What Ray itself logs goes to `log_file`.

    Raises:
        StartError: If this process uses Ray already, there is no cluster at the address, or none
            starts here in time.
    """
    global _connection
    if _connection is not None:
        raise StartError("this process runs a study already; wait for its end")
    if ray.is_initialized():
        raise StartError("this process uses Ray already; call ray.shutdown() first")
    if not _ALLOCATOR & os.environ.keys():
        # Batches of many lengths leave gaps between segments of fixed size. torch 2.9 warns of this
        # name, and takes no segments that expand by the other one (pytorch/pytorch#183387).
        WORKER_ENVIRONMENT["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    os.environ.update(WORKER_ENVIRONMENT | _DRIVER_ENVIRONMENT)
    _keep_secrets_out_of_runtime_environments()
    _log_to_file(log_file)
    session = PrivateSession.make() if starts_here(address) else None
    if session is None:
        protect_token()
    else:
        os.environ.update(session.variables)
    error_output, logged = _error_output_to(log_file), log_file.stat().st_size
    is_late = False
    try:
        _connection = _Connection(address, session)
        patience = Patience(START_SECONDS if session else JOIN_SECONDS)
        while not (is_late or _connection.answers_soon()):
            is_late = patience.is_over
        if is_late:
            late = not_started(patience.waited, os.getloadavg()[0], os.cpu_count() or 1)
            raise StartError(late if session else no_cluster(_where(address)))
        error = _connection.error
        if error is not None and not _connection.is_started_here:
            native = log_file.read_bytes()[logged:].decode(errors="replace")
            raise StartError(join_problem(error, _where(address), native)) from error
        if error is not None:
            raise StartError(f"Ray did not start on this machine: {first_line(error)}") from error
    except BaseException:
        disconnect()
        raise
    finally:
        if is_late:  # its thread goes on for a while, and what Ray writes there to the log
            sys.stderr = os.fdopen(error_output, "w")
        else:
            os.dup2(error_output, 2)
            os.close(error_output)


def _keep_secrets_out_of_runtime_environments() -> None:
    """Let Tune not give its actors AWS's keys by a runtime environment, which Ray logs in clear.

    The processes of a node have what the node has in its environment, and Tune's actors need
    none. There is no option for it: Tune reads this set when it makes its first actor.
    """
    keys = {name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    ENV_VARS_TO_PROPAGATE.difference_update(keys)


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    global _connection
    if _connection is not None:
        _connection.close()
        _connection = None


def end_ray_processes() -> None:
    """Kill those of this process's children that belong to Ray, and all that they have started."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(word.startswith(_RAYS_OWN) for word in child.cmdline()):
                for process in [*child.children(recursive=True), child]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()


def not_started(waited: float, load: float, cpus: int) -> str:
    """That Ray was given up, and what to do: a busy machine is the usual cause."""
    text = f"Ray did not start on this machine within {waited:.0f} s"
    if load <= cpus:
        return f"{text}; nothing was kept, so start the study again"
    return (
        f"{text}, with {load:.0f} processes at work on {cpus} CPUs; nothing was kept, so start the "
        "study again when fewer run"
    )


def _where(address: str | None) -> str:
    """The cluster that is joined, in words."""
    return address or os.environ.get("RAY_ADDRESS") or f"the address in {running_cluster()}"


def _shut_down() -> None:
    """Leave Ray, with garbage collection off.

    Ray ends the whole process, with status 1, where another thread lets go of one of its objects
    while it shuts down. Garbage collection does that in whichever thread it comes over.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _error_output_to(log_file: Path) -> int:
    """Send what Ray's code in C++ writes to descriptor 2 to a file; a copy of what it was."""
    before = os.dup(2)
    with log_file.open("ab") as log:
        os.dup2(log.fileno(), 2)
    return before


def _log_to_file(log_file: Path) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # ray.init gives the logger "ray" a handler of its own, so its children are named too.
    for name in ("ray", "ray._private", "ray.train", "ray.tune", "ray.data", "optuna"):
        logger = logging.getLogger(name)
        for before in logger.handlers:
            before.close()
        logger.handlers = [handler]
        logger.propagate = False


def is_joined() -> bool:
    """Whether this process is on a cluster that was there before."""
    return _connection is not None and not _connection.is_started_here
