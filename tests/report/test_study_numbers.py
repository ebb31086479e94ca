"""The numbers by which MLflow compares studies."""

import pytest

from scaling.report.study_numbers import study_numbers
from scaling.report.summary import summarize
from tests.analysis.synthetic import study
from tests.report.kinds import findings_of, of


def test_numbers_are_those_of_the_summary_with_their_intervals() -> None:
    summary = summarize(of(study()))

    numbers = study_numbers(summary)

    fit, law = summary["critical_batch_size"]["steps_examples"], summary["lr_scaling"]
    assert numbers["critical_batch_size"] == fit["value"]
    assert [numbers["critical_batch_size_low"], numbers["critical_batch_size_high"]] == (
        fit["interval"]
    )
    assert numbers["lr_exponent"] == law["exponent"]
    for cell in summary["cells"]:
        batch = cell["global_batch_size"]
        for name in ("best_peak_lr", "generalization_gap"):
            low, high = cell[f"{name}_interval"]
            assert numbers[f"{name}/{batch}"] == cell[name]
            assert numbers[f"{name}/{batch}_low"] == low
            assert numbers[f"{name}/{batch}_high"] == high
    assert len(numbers) == 3 * (2 + 2 * len(summary["cells"]))


@pytest.mark.parametrize("kind", ["nothing", "one trial", "two clip norms", "joint search"])
def test_what_was_not_determined_is_left_out(kind: str) -> None:
    summary = summarize(findings_of(kind))

    numbers = study_numbers(summary)

    assert all(isinstance(number, float) for number in numbers.values())
    is_known = summary["lr_scaling"]["exponent"] is not None
    assert ("lr_exponent" in numbers) == is_known
    if kind == "two clip norms":
        assert "best_peak_lr/64/clip_norm null" in numbers
        assert "best_peak_lr/64/clip_norm 1.0_high" in numbers
