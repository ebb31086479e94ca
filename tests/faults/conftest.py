"""The study that nothing disturbs, run once."""

import pytest

from tests.faults.disturbed import Losses, losses, started


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Losses of the study's trials, as they must come out of every disturbed run too."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = started(folder)
    assert study.end() == 0, study.output
    return losses(folder)
