"""Studies whose cells differ in more than the batch size: what each series says along it."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.study_numbers import study_numbers
from scaling.report.summary import summarize
from scaling.report.tables.series_tables import critical_batches_table, exponents_table
from scaling.report.words.headline import first_screen
from tests.analysis.synthetic import BATCHES, Truth, search, spec, study, trial
from tests.recipes import changed

TRUTHS = {
    "adamw": Truth(exponent=0.5, min_steps=40.0, min_examples=4000.0),
    "muon": Truth(exponent=0.0, best_lr=0.02, min_steps=20.0, min_examples=8000.0),
}
AXES = {"optimizer": [*TRUTHS], "global_batch_size": list(BATCHES)}


def of_optimizer(record: TrialRecord, optimizer: str) -> TrialRecord:
    return replace(
        record,
        trial_id=f"{record.trial_id}-{optimizer}",
        cell={"optimizer": optimizer, **record.cell},
        recipe=changed(record.recipe, optimizer=optimizer),
    )


def planted() -> StudyRecord:
    """Both optimizers searched and confirmed at each batch size."""
    records: list[TrialRecord] = []
    for optimizer, truth in TRUTHS.items():
        rng = np.random.default_rng(3)
        runs = search(truth, rng)
        for batch in BATCHES:
            rate = truth.optimum(batch)
            runs += [
                trial(truth, "confirm", batch, rate, number=seed, seed=100 + seed, rng=rng)
                for seed in range(3)
            ]
        records += [of_optimizer(run, optimizer) for run in runs]
    return StudyRecord(spec(scientific=AXES, transfer=None), tuple(records), {}, {})


@pytest.fixture(scope="module")
def findings() -> Findings:
    return analyse(sweep_of(planted()))


def test_each_series_has_its_own_exponent_and_critical_batch(findings: Findings) -> None:
    assert not findings.one_series
    assert [dict(series.others) for series in findings.series] == [
        {"optimizer": "adamw"}, {"optimizer": "muon"}
    ]  # fmt: skip
    for series, truth in zip(findings.series, TRUTHS.values(), strict=True):
        assert [cell.global_batch_size for cell in series.cells] == list(BATCHES)
        low, high = series.lr_scaling.exponent.interval or (np.nan, np.nan)
        assert low <= truth.exponent <= high
        assert high - low < 0.4
        critical = truth.min_examples / truth.min_steps
        assert series.tradeoff.headline.value == pytest.approx(critical, rel=0.15)
        low, high = series.tradeoff.headline.interval or (np.nan, np.nan)
        assert low <= critical <= high


def test_series_are_set_against_the_first_one(findings: Findings) -> None:
    summary = summarize(findings)
    ratio = next(c for c in summary["series_contrasts"] if c["measure"] == "critical_batch_size")
    assert ratio["a"]["cell"] == {"optimizer": "adamw"}
    assert ratio["b"]["cell"] == {"optimizer": "muon"}
    assert ratio["interval"][0] <= 4.0 <= ratio["interval"][1]
    assert ratio["interval"][0] > 1
    exponents = next(c for c in summary["series_contrasts"] if c["measure"] == "lr_exponent")
    assert exponents["interval"][0] <= -0.5 <= exponents["interval"][1]
    assert summary["lr_scaling"]["exponent"] is None
    assert summary["series"][1]["lr_scaling"]["exponent"] == pytest.approx(0.0, abs=0.2)
    assert {path["global_batch_size"] for path in summary["series"][0]["lr_scaling"]["path"]} == {
        *BATCHES
    }


def test_the_first_screen_and_the_tables_name_both(findings: Findings) -> None:
    lines = {line.topic: line.text for line in reversed(first_screen(findings))}
    assert "with optimizer adamw and" in lines["batch"]
    assert lines["batch"].startswith("The critical batch size (steps–examples fit) is ")
    assert lines["rate"].startswith("The best peak learning rate moves as the batch to the power ")
    assert "with optimizer muon" in lines["rate"]
    texts = [line.text for line in first_screen(findings)]
    assert any(
        "times that with optimizer adamw; the data distinguish them." in text for text in texts
    )
    for table in (exponents_table(findings), critical_batches_table(findings)):
        assert table is not None
        assert [row[0] for row in table.rows] == ["optimizer adamw", "optimizer muon"]
    numbers = study_numbers(summarize(findings))
    assert numbers["critical_batch_size/optimizer muon"] == pytest.approx(400, rel=0.15)


def test_a_study_of_batch_sizes_alone_has_no_series_beside_itself() -> None:
    whole = analyse(sweep_of(study()))
    assert whole.one_series
    assert whole.series == ()
    assert summarize(whole)["series"] == []
    assert exponents_table(whole) is None
    assert critical_batches_table(whole) is None
