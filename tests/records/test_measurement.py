"""The table of measurements: what each field says of itself reaches the record and MLflow."""

import dataclasses
from typing import Annotated

import pytest

from scaling.records.measurement import MEASURED, RESULTS, Measurement
from scaling.records.metrics import Metric, from_plain, metrics_of, to_plain
from scaling.sinks.mlflow.trial_run import is_measured, metrics, require_free_names

LUCK = Metric("luck", "How lucky the run was.", unit="steps", is_count=True, by_examples=True)


@pytest.fixture
def longer(monkeypatch: pytest.MonkeyPatch) -> type[Measurement]:
    """The table with one entry more."""
    added = [("luck", Annotated[float | None, LUCK], dataclasses.field(default=None))]
    longer = dataclasses.make_dataclass("Longer", added, bases=(Measurement,), frozen=True)
    for name, metric in metrics_of(longer).items():
        monkeypatch.setitem(MEASURED, name, metric)
    return longer


def test_every_field_but_standard_errors_is_described() -> None:
    names = {field.name for field in dataclasses.fields(Measurement)} - {"metrics"}
    errors = {name for name in names if name.endswith("_stderr")}
    assert MEASURED.keys() == names - errors
    assert {name.removesuffix("_stderr") for name in errors} < MEASURED.keys()


def test_a_description_is_a_label_and_sentences() -> None:
    for metric in (*MEASURED.values(), *RESULTS.values()):
        assert metric.label
        assert metric.help[0].isupper() or metric.help.startswith("tr ")
        assert metric.help.endswith(".")


def test_a_table_goes_through_json_and_what_is_none_is_nothing() -> None:
    assert from_plain(to_plain(MEASURED)) == MEASURED
    assert from_plain({"accuracy": {"label": "accuracy", "unit": "parsec"}}) == {}
    assert from_plain(None) == {}


def test_an_added_field_is_recorded_and_told_to_mlflow(longer: type[Measurement]) -> None:
    measured = longer(step=5, examples=80, tokens=None, seconds=0.5, luck=7)  # pyright: ignore

    again = longer.from_scalars(measured.scalars())
    told = {(entry.key, entry.step): entry.value for entry in metrics(0, measured)}

    assert again == measured
    assert isinstance(again.luck, int)  # pyright: ignore
    assert told["luck", 5] == told["by_examples/luck", 80] == 7
    assert is_measured("luck")


@pytest.mark.parametrize("name", ["lr", "test_loss_stderr", "steps_to_target", "by_examples/x"])
def test_a_task_cannot_name_a_metric_as_another_number(name: str) -> None:
    with pytest.raises(ValueError, match=f"metric name '{name}'"):
        require_free_names([Measurement(1, 2, None, 0.1, metrics={name: 1.0})])
