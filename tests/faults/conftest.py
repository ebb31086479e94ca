"""The study that nothing disturbs, run once."""

from collections.abc import Iterator

import pytest

from tests.faults.disturbed import Losses, losses, started
from tests.sinks.servers import MlflowServer


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Losses of the study's trials, as they must come out of every disturbed run too."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = started(folder)
    assert study.end() == 0, study.output
    return losses(folder)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, free_port: int) -> Iterator[MlflowServer]:
    """An MLflow server of its own, with a new database."""
    folder = tmp_path_factory.mktemp("server")
    with MlflowServer(folder, f"sqlite:///{folder}/mlflow.db", free_port) as running:
        yield running
