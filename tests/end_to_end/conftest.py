"""One small study, run once, that many tests read."""

import pytest

from tests.end_to_end.studies import PRONUNCIATION, Finished, run, write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The pronunciation study on two gloo workers, from its file to its report."""
    folder = tmp_path_factory.mktemp("pronunciation")
    write_study(folder, PRONUNCIATION)
    return run(folder, "pronunciation.yaml")
