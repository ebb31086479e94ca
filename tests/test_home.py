"""A ~ in a path is the home folder from Python, as it is from a shell."""

import shutil
from pathlib import Path

import pytest

import scaling

STUDY = Path(__file__).parent / "data" / "lr_vs_batch.yaml"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(STUDY, tmp_path / "study.yaml")
    (tmp_path / "nothing").mkdir()
    study = scaling.Study.read("~/study.yaml")
    assert study.spec == scaling.Study.read(STUDY).spec
    assert study._output("~/reports") == tmp_path / "reports"
    with pytest.raises(LookupError, match=f"{tmp_path}/nothing: holds neither"):
        scaling.load("~/nothing")
