"""A loss may be at or below zero, as a density's is: what is asked for does not depend on that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord
from scaling.report.document import write_report
from scaling.report.summary import summarize
from scaling.spec.evaluation import Target
from tests.analysis.synthetic import study

LOSSES = ("validation_loss", "test_loss", "train_loss")


def lowered(by: float, *, has_target: bool) -> StudyRecord:
    record = study()
    target = Target(at_most=1.0 - by) if has_target else None

    def moved(measured: Measurement) -> Measurement:
        values = {name: getattr(measured, name) for name in LOSSES}
        return replace(measured, **{n: v if v is None else v - by for n, v in values.items()})

    trials = tuple(
        replace(trial, measurements=tuple(map(moved, trial.measurements)))
        for trial in record.trials
    )
    spec = record.spec.model_copy(update={"target": target})
    return StudyRecord(spec, trials, record.environment)


@pytest.mark.parametrize("has_target", [True, False])
def test_answers_are_those_of_losses_above_zero(has_target: bool, tmp_path: Path) -> None:
    above = summarize(analyse(sweep_of(lowered(0.0, has_target=has_target))))
    below = write_report(lowered(3.0, has_target=has_target), tmp_path)

    def answers(summary: dict[str, Any]) -> list[float]:
        law, critical = summary["lr_scaling"], summary["critical_batch_size"]["steps_examples"]
        rates = [cell["best_peak_lr"] for cell in summary["cells"]]
        return [law["exponent"], *law["interval"], critical["value"], *critical["interval"], *rates]

    assert (
        below["recommendation"]["global_batch_size"]
        == (above["recommendation"]["global_batch_size"])
    )
    assert answers(below) == pytest.approx(answers(above), rel=0.02)
    gaps = [[cell["generalization_gap"] for cell in summary["cells"]] for summary in (above, below)]
    assert gaps[1] == pytest.approx(gaps[0], abs=1e-9)
