"""One cluster that many studies run on, and one small study that many tests read."""

from collections.abc import Iterator

import pytest

from tests.commands import Finished, run
from tests.end_to_end.cluster import Cluster, running_cluster
from tests.end_to_end.installed import Installed, built, copy_of_sources, install
from tests.end_to_end.studies import PRONUNCIATION, write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The pronunciation study on two gloo workers, from its file to its report."""
    folder = tmp_path_factory.mktemp("pronunciation")
    write_study(folder, PRONUNCIATION)
    return run(folder, "pronunciation.yaml")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Ray on this machine, started once for all studies that need not start their own."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of these sources, in an environment of its own."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = built(copy_of_sources(folder / "source"), folder / "dist")
    return install(wheel, folder / "environment")
