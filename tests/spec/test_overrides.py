"""`--set dotted.key=value`: what it sets, and what is said of one that sets nothing."""

# one case a line

from pathlib import Path

import pytest

from scaling.spec.issues import StudyFileError
from scaling.spec.read import read_study
from tests.spec.studies import LM, as_yaml


@pytest.fixture
def lm_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(LM), encoding="utf-8")
    return file


def test_overrides_set_single_values_in_order(lm_file: Path) -> None:
    overrides = [
        "seed=1",
        "seed=7",
        "scientific.global_batch_size.0=32",
        "workload.data.num_train=3e3",
        "workload.data.num_train=3_000",
        "fixed.beta2=95e-2",
        "transfer=null",
        "budget={steps: 200}",
        "question=a=b",
        "workload.model.config.rope_theta=1e4",
    ]
    spec = read_study(lm_file, overrides)
    assert spec.seed == 7
    assert spec.scientific.global_batch_size == (32, 64, 256, 1024)
    assert spec.workload.data.num_train == 3000  # pyright: ignore[reportAttributeAccessIssue]
    assert spec.fixed.beta2 == 0.95
    assert spec.transfer is None
    assert spec.budget.steps == 200
    assert spec.question == "a=b"


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("seed", "seed", "must be dotted.key=value"),
        ("=3", '"=3"', "must be dotted.key=value"),
        ("fixed..beta1=3", '"fixed..beta1=3"', "must be dotted.key=value"),
        ("seed.x=3", "seed", "has no x to set"),
        ("scientific.global_batch_size.4=3", "scientific.global_batch_size.4", "allowed: 0 … 3"),
        ("scientific.global_batch_size.x=3", "scientific.global_batch_size.x", "allowed: 0 … 3"),
        ("cell_recipes.0.cell=3", "cell_recipes", "must be a list"),
        ("seed=[", "seed=[", "is not YAML"),
        ("seed=&x 3", "seed=&x 3", "anchors"),
        ("search.trial_per_cell=3", "search.trial_per_cell", "did you mean trials_per_cell?"),
        ("fixd.beta1=0.9", "fixd", "did you mean fixed?"),
        ("seed=one", "seed", 'must be a whole number (got "one"'),
        ("resources.num_workers=3", "scientific.global_batch_size", "allowed: 15 or 18"),
        (".".join("a" * 5000) + "=1", None, "must be dotted.key=value"),
    ],
)
def test_bad_override(lm_file: Path, override: str, path: str | None, message: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        read_study(lm_file, [override])
    assert any(
        message in str(issue) and path in (None, issue.path) for issue in caught.value.issues
    ), str(caught.value)


def test_bad_overrides_are_reported_with_the_rest(lm_file: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        read_study(lm_file, ["nonsense", "seed=-1", "fixed.momentum=0.5"])
    assert [issue.path for issue in caught.value.issues] == ["nonsense", "seed", "fixed.momentum"]
