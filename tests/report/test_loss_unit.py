"""A report gives losses the unit that the task says, everywhere or nowhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.contrasts import compare
from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.driver.environment import describe
from scaling.records.metrics import to_plain
from scaling.records.study import StudyRecord
from scaling.report.comparison.contrast_charts import compare_figures
from scaling.report.document import write_report
from scaling.report.words.headline import headline
from scaling.spec.phases import Limits
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import described
from tests.analysis.synthetic import study
from tests.analysis.test_baseline import with_baseline
from tests.analysis.test_branched import branch_records
from tests.analysis.test_branched import study as branched
from tests.recipes import EVALUATION, part_of_speech, quadratic


def measured_in(unit: str, record: StudyRecord) -> StudyRecord:
    metrics = to_plain(described(prepare_task(quadratic(), EVALUATION)))
    metrics["validation_loss"]["unit"] = unit
    return replace(record, environment={**record.environment, "metrics": metrics})


RECORDS = {
    "whole study": lambda: with_baseline(study(), 0.3),
    "branched": lambda: branched(branch_records(0.01)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("unit", ["", "nats"])
def test_all_that_a_report_says(tmp_path: Path, unit: str, kind: str) -> None:
    record = measured_in(unit, RECORDS[kind]())
    write_report(record, tmp_path / "report")
    files = (p for p in (tmp_path / "report").rglob("*") if p.suffix in (".md", ".json"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    findings = analyse(sweep_of(record))
    limited = replace(sweep_of(record), limits=Limits(deadline_seconds=1.5))
    texts.append(headline(analyse(limited)))
    figures = compare_figures(compare(findings, findings), ("A: a", "B: b"))
    texts += [str(figure.spec) for figure in figures]
    with_unit = [text for text in texts if "nats" in text]
    assert not with_unit if unit == "" else len(with_unit) > 4


def test_a_task_says_the_unit_of_its_loss() -> None:
    own = prepare_task(quadratic(), EVALUATION)
    classes = prepare_task(part_of_speech(), EVALUATION)
    assert (own.loss_unit, classes.loss_unit) == ("", "nats")
    known: Any = describe([own])["metrics"]
    assert known["validation_loss"]["unit"] == ""
    assert "validation_loss" not in own.described_metrics  # it is no metric beside the loss
