"""A data set that is a Python script: never run, and said in one line."""

from pathlib import Path

import pytest

from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from tests.analysis.synthetic import spec


def test_a_dataset_script_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    workload = {
        "task": "causal_lm",
        "model": {"architecture": "llama", "hidden_size": 8, "num_hidden_layers": 1,
                  "num_attention_heads": 2},
        "data": {"source": f"hub:{folder}"},
    }  # fmt: skip
    study = spec(workload=workload)
    with pytest.raises(DataError, match="script") as refused:
        prepare_task(study.workload, study.evaluation)
    assert refused.value.path == "workload.data.source"
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
