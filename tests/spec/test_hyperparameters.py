"""The one table of hyperparameters, and all that follows from it."""

import subprocess
import sys
from pathlib import Path

import scaling
from scaling.records.recipe import Hyperparameters
from scaling.spec.hyperparameters import Given, Origin
from scaling.spec.sections import TABLE

ENTRY = """    schedule_free_beta: Annotated[BelowOne, Entry("A new one.", unit="steps")] = 0.5
    label_smoothing: Annotated["""
SCRIPT = """
import json
from pathlib import Path
from scaling.report.words.recipe_yaml import recipe_yaml
from scaling.records.recipe import Hyperparameters
from scaling.records.trial import TrialRecord
from scaling.sinks.mlflow import trial_run
from scaling.space.layout import Facts
from scaling.space.trials import planned_search
from scaling.spec.read import study_from_mapping
from scaling.spec.schema import spec_schema
from scaling.spec.sections import Fixed, Nuisance, Scientific

name = "schedule_free_beta"
for section in (Fixed, Scientific, Nuisance):
    assert section.model_fields[name].description == "A new one.", section
    shown = spec_schema()["$defs"][section.__name__]["properties"][name]
    assert shown["unit"] == "steps"
spec = study_from_mapping({
    "name": "new", "question": "Does it help?", "workload": {"task": "noisy_quadratic"},
    "scientific": {"global_batch_size": [4]}, "fixed": {"peak_lr": 0.1, "optimizer": "sgd"},
    "nuisance": {name: {"choice": [0.25]}}, "budget": {"steps": 3},
    "evaluation": {"every_steps": 1, "num_examples": 8}, "search": {"trials_per_cell": 1},
})
(trial,) = planned_search(spec, Facts(None, None))
record = trial.record()
assert record.recipe.hyperparameters.schedule_free_beta == 0.25
assert TrialRecord.from_json(record.to_json()) == record
assert trial_run.params(record, spec)[name] == "0.25"
assert f"{name}: 0.25" in recipe_yaml(record.recipe, steps=3, num_workers=1)
"""


def test_a_hyperparameter_that_the_table_gains_is_everywhere(tmp_path: Path) -> None:
    """One more entry in a copy of the package, and no other edit."""
    package = Path(scaling.__file__).parent
    for source in (*package.rglob("*.py"), *package.rglob("*.json")):
        copy = tmp_path / "scaling" / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    table = tmp_path / "scaling/spec/hyperparameters.py"
    text = table.read_text(encoding="utf-8")
    assert text.count("    label_smoothing: Annotated[") == 1
    table.write_text(text.replace("    label_smoothing: Annotated[", ENTRY), encoding="utf-8")
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env={}, check=True)


def test_the_table_is_whole() -> None:
    names = [row.name for row in TABLE]
    assert sorted(names) == sorted([*Given.__dataclass_fields__, *Origin.__dataclass_fields__])
    for row in TABLE:
        assert row.entry.help.endswith("."), row.name
        assert row.entry.scaled_by in ("", *Origin.__dataclass_fields__)
    assert set(Given.__dataclass_fields__) < set(Hyperparameters.__dataclass_fields__)
    assert not set(Origin.__dataclass_fields__) & set(Hyperparameters.__dataclass_fields__)
