"""A Ray cluster on loopback, each of whose machines is a raylet that can be added and killed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from tests.commands import environment
from tests.forked import SERVER

_VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on loopback alone
    "RAY_raylet_start_wait_time_s": "120",
}


class Machines:
    """The cluster's host process, asked by a pipe.

    Attributes:
        address: For `--address`.
        variables: Environment of who joins.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.address: str = pipe.recv()
        self.variables = _VARIABLES

    def add(self, **resources: float) -> int:
        """A machine with `num_cpus`; returns its number."""
        return self._ask("add", resources)

    def kill(self, number: int) -> None:
        """End a machine as a power cut does."""
        self._ask("kill", number)

    def hold(self, num_cpus: int) -> None:
        """Another job takes so many CPUs."""
        self._ask("hold", num_cpus)

    def free(self) -> None:
        """The other job ends."""
        self._ask("free", None)

    def _ask(self, what: str, argument: Any) -> Any:
        self._pipe.send((what, argument))
        return self._pipe.recv()


@contextmanager
def machines(
    num_cpus: int, *, version: str | None = None, memory: float | None = None
) -> Iterator[Machines]:
    """A head with so many CPUs, to which machines are added; not in the study's folder.

    Where `version` is given, the head says that it is of that version of Ray. Where `memory` is,
    Ray takes it for the head's, in bytes.
    """
    has: dict[str, float] = {"num_cpus": num_cpus} | ({} if memory is None else {"memory": memory})
    ours, theirs = SERVER.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        host = SERVER.Process(target=_host, args=(folder, has, version, environment(), theirs))
        host.start()
        theirs.close()
        try:
            yield Machines(ours)
        finally:
            ours.close()
            host.join(120)


def _host(
    folder: str,
    has: dict[str, float],
    version: str | None,
    given: dict[str, str],
    asked: Connection,
) -> None:
    """Run the cluster, and do what is asked until nobody asks any more."""
    os.environ.clear()
    # Where Ray says that a cluster runs here, for those who give no address.
    os.environ.update(given | _VARIABLES | {"RAY_TMPDIR": folder})
    os.chdir(folder)
    import ray
    from ray.cluster_utils import Cluster

    ray.__version__ = version or ray.__version__
    cluster = Cluster(initialize_head=True, head_node_args=has)
    ray.init(address=cluster.address, log_to_driver=False)
    nodes: list[Any] = []
    held: list[Any] = []

    @ray.remote(num_cpus=1)
    class Other:
        """Another user's job."""

        def is_there(self) -> bool:
            return True

    asked.send(cluster.address)
    with suppress(EOFError):
        while True:
            what, argument = asked.recv()
            answer: Any = None
            if what == "add":
                nodes.append(cluster.add_node(**argument))
                answer = len(nodes) - 1
            elif what == "kill":
                cluster.remove_node(nodes[argument], allow_graceful=False)
            elif what == "hold":
                held += [Other.remote() for _ in range(argument)]
                ray.get([other.is_there.remote() for other in held])
            else:
                for other in held:
                    ray.kill(other)
                held.clear()
            asked.send(answer)
    ray.shutdown()
    cluster.shutdown()
