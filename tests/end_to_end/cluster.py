"""One Ray cluster on loopback that many studies join, as `--address` lets them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.commands import Finished, environment, run
from tests.forked import SERVER


@dataclass(frozen=True)
class Cluster:
    """Where a cluster is, and the environment of who may join it."""

    address: str
    variables: Mapping[str, str]

    def run(self, folder: Path, *arguments: str) -> Finished:
        """Run a study in a folder on this cluster and wait for it."""
        return run(folder, *arguments, "--address", self.address, variables=self.variables)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster as a study starts its own; its processes work in a folder."""
    ours, theirs = SERVER.Pipe()
    host = SERVER.Process(target=_host, args=(folder, environment(), theirs))
    host.start()
    theirs.close()
    try:
        yield Cluster(*ours.recv())
    finally:
        ours.close()
        host.join(120)


def _host(folder: Path, given: dict[str, str], asked: Connection) -> None:
    """Start a cluster, tell where it is, and end it when nobody listens any more."""
    import ray

    from scaling.runner.cluster import connect, disconnect
    from scaling.runner.own_ray import prepare_environment

    os.environ.clear()
    os.environ.update(given)
    os.chdir(folder)
    prepare_environment("local")
    connect("local", folder / "ray.log")
    try:
        names = {name for name in os.environ if name not in given}
        variables = {name: os.environ[name] for name in names}
        asked.send((ray.get_runtime_context().gcs_address, variables))
        asked.poll(None)
    finally:
        disconnect()
