"""Real stores: a sqlite file, and servers on sqlite and PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling.spec.study import StudySpec
from tests.sinks.servers import MlflowServer, running_postgres
from tests.sinks.told import client


@pytest.fixture(scope="session")
def spec() -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "lr_vs_batch",
            "question": "How must the peak learning rate move with the batch?",
            "workload": {"task": "noisy_quadratic"},
            "scientific": {"global_batch_size": [16, 64]},
            "nuisance": {
                "peak_lr": {"log_uniform": [1e-4, 3e-2]},
                "clip_norm": {"choice": [None, 1.0]},
            },
            "fixed": {"schedule": "constant", "weight_average_half_life_examples": None},
            "budget": {"examples": 40000, "min_steps": 150},
            "evaluation": {"every_steps": 10},
            "target": {"at_most": 0.7},
            "search": {"trials_per_cell": 3},
        }
    )


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema and nothing in it, whose making takes seconds."""
    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, schema: Path) -> str:
    shutil.copy(schema, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A study's own folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path: Path, uri: str, free_port: int) -> Iterator[MlflowServer]:
    with MlflowServer(tmp_path, uri, free_port) as running:
        yield running


@pytest.fixture
def postgres_server(free_port: int) -> Iterator[MlflowServer]:
    """An MLflow server whose store is a PostgreSQL of its own."""
    with (
        running_postgres() as (folder, address),
        MlflowServer(folder / "mlflow", address, free_port) as running,
    ):
        yield running
