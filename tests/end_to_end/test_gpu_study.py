"""A study trains where it is told to, a GPU that its workers share among them."""

from pathlib import Path
from typing import Any

import pytest

from scaling.records.trial import TrialRecord
from tests.commands import run
from tests.end_to_end.studies import PRONUNCIATION, write_study


@pytest.mark.ray
@pytest.mark.parametrize(
    ("resources", "has_gpu"),
    [
        pytest.param({"gpus_per_worker": 0}, False, marks=pytest.mark.slow),
        pytest.param({}, True, marks=pytest.mark.gpu),
        pytest.param({"num_workers": 2, "gpus_per_worker": 0.5}, True, marks=pytest.mark.gpu),
        pytest.param({"executor": "per_trial"}, True, marks=pytest.mark.gpu),
    ],
    ids=["cpu", "gpu", "shared gpu", "gpu of one trial"],
)
def test_a_study_trains_where_it_is_told_to(
    resources: dict[str, Any], has_gpu: bool, tmp_path: Path
) -> None:
    study = {n: v for n, v in PRONUNCIATION.items() if n not in ("transfer", "confirm", "target")}
    study |= {"resources": {"num_workers": 1, "max_slots": 1, **resources}}
    study |= {"search": {"sampler": "qmc", "trials_per_cell": 2}}
    ran = run(tmp_path, write_study(tmp_path, study).name)
    assert ran.status == 0, ran.stderr
    lines = (tmp_path / "runs/pronunciation/trials.jsonl").read_text(encoding="utf-8").splitlines()
    records = [TrialRecord.from_json(line) for line in lines]
    assert len(records) == 4
    for record in records:
        assert record.status in ("done", "diverged"), record.error
        assert (record.measurements[-1].peak_memory_bytes is not None) == has_gpu
