"""Two studies with planted differences."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.conditions import conditions_of
from scaling.analysis.contrasts import Comparison, Contrast, compare
from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.report.__main__ import main
from scaling.report.comparison.contrast_charts import compare_figures
from scaling.report.comparison.sides import Side, differing_fields, read_side
from scaling.report.comparison.two_studies import summary_of, write_comparison
from scaling.report.document import write_report
from scaling.report.foreign_tables.sweep_table import TableError
from scaling.report.words.differences import comparability_notes
from tests.analysis.synthetic import Truth, spec, study
from tests.analysis.test_metric_objective import planted as by_accuracy
from tests.report.kinds import findings_of

DATA = {"data_sha256": "0123", "num_train": 1000, "num_evaluated_test": 100}


def side(record: StudyRecord, **environment: Any) -> Side:
    record = replace(record, environment=DATA | environment)
    return Side(record.spec.name, analyse(sweep_of(record)), record.spec, record.environment)


@cache
def planted() -> Side:
    return side(study())


def compared(a: Side, b: Side) -> Comparison:
    return compare(a.findings, b.findings)


def notes(comparison: Comparison) -> list[str]:
    return comparability_notes(comparison, ("a", "b"))


def of(comparison: Comparison, measure: str) -> list[Contrast]:
    return [c for c in comparison.contrasts if c.measure == measure]


def test_a_study_differs_from_itself_by_nothing() -> None:
    comparison = compared(planted(), planted())
    assert comparison.num_intervals > 10
    assert comparison.num_apart == 0
    for contrast in comparison.contrasts:
        assert contrast.value == (0 if contrast.kind == "difference" else 1)


def test_no_loss_is_compared_where_a_seed_diverged() -> None:
    """A mean over the seeds that are left would flatter the study that lost one."""
    sweep = planted().findings.sweep
    none = {"objective": None, "validation_loss": None, "test_loss": None}
    lost = next(r for r in sweep.rows if (r.phase, r.global_batch_size) == ("confirm", 64))
    rows = tuple(replace(r, status="diverged", **none) if r is lost else r for r in sweep.rows)
    b = replace(planted(), findings=analyse(replace(sweep, rows=rows)))
    comparison = compared(planted(), b)
    (found,) = [c for c in of(comparison, "test_loss") if c.global_batch_size == 64]
    assert (found.b, found.value, found.interval) == (None, None, None)
    assert found.a is not None
    assert (found.diverged, found.apart) == (("B",), False)
    said = "A seed of B diverged at global_batch_size 64: no loss is compared there."
    assert said in notes(comparison)
    entry = next(
        c for c in summary_of(comparison, ("a", "b"), [])["contrasts"]
        if (c["measure"], c["global_batch_size"]) == ("test_loss", 64)
    )  # fmt: skip
    assert set(entry["why"]) == {"b", "value", "interval", "p_value"}
    assert set(entry["why"].values()) == {"a seed of B diverged"}
    json.dumps(entry, allow_nan=False)
    drawn = {figure.name: figure for figure in compare_figures(comparison, ("A: a", "B: b"))}
    assert all(figure.spec is not None for figure in drawn.values())


def test_planted_differences_are_found_and_paired() -> None:
    """Gap 0.2 and 0.3, exponent 0.5 and 0.25, twice the fewest steps."""
    a = planted()
    b = side(study(Truth(gap=0.3, exponent=0.25, min_steps=80.0)))
    comparison = compared(a, b)
    gaps = of(comparison, "generalization_gap")
    assert len(gaps) == 4
    for gap in gaps:
        assert gap.method == "paired"
        assert gap.value == pytest.approx(0.1, abs=1e-9)
        assert gap.holm
    steps = of(comparison, "steps_to_target")
    for step, batch in zip(steps, (16, 64, 256, 1024), strict=True):
        assert step.value == pytest.approx((80 + 4000 / batch) / (40 + 4000 / batch), rel=0.03)
    (exponent,) = of(comparison, "lr_exponent")
    assert exponent.interval is not None
    assert exponent.interval[0] < -0.25 < exponent.interval[1]
    (critical,) = of(comparison, "critical_batch_size")
    assert critical.value == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_other_data_or_other_seeds_are_not_paired() -> None:
    record = study()
    welch = compared(side(record), side(record, data_sha256="4567"))
    assert {c.method for c in of(welch, "test_loss")} == {"welch"}
    assert any("nothing is paired" in note for note in notes(welch))
    fresh = replace(record, trials=tuple(
        replace(t, recipe=replace(t.recipe, seed=t.recipe.seed + 50)) for t in record.trials
    ))  # fmt: skip
    assert {c.method for c in of(compared(side(record), side(fresh)), "test_loss")} == {"welch"}
    fewer = compared(side(record), side(study(num_seeds=1)))
    assert {c.interval for c in of(fewer, "test_loss")} == {None}


def test_welch_by_hand() -> None:
    """(1, 2, 3) and (2, 4, 6): difference 2, error √(5/3), 2.94 degrees of freedom, p 0.22."""
    values = {100: (1.0, 2.0), 101: (2.0, 4.0), 102: (3.0, 6.0)}
    sides: list[Side] = []
    for place in (0, 1):
        made = planted()
        rows = tuple(
            replace(row, test_loss=values[row.seed or 0][place], test_loss_stderr=None)
            if row.phase == "confirm" else row
            for row in made.findings.sweep.rows
        )  # fmt: skip
        unknown = replace(made.findings.sweep, rows=rows, conditions=None)
        sides.append(replace(made, findings=analyse(unknown)))
    contrast = of(compared(*sides), "test_loss")[0]
    assert contrast.method == "welch"
    assert contrast.value == pytest.approx(2)
    assert contrast.interval is not None
    half = 2.3722 * math.sqrt(5 / 3)
    assert contrast.interval == pytest.approx((2 - half, 2 + half), abs=0.01)
    assert contrast.p_value == pytest.approx(0.2210, abs=0.005)


@pytest.mark.slow
def test_nothing_differs_one_time_in_ten_and_holm_holds_it() -> None:
    """Studies of one truth: about a tenth of the paired intervals miss zero."""
    apart, total, families = 0, 0, 0
    for seed in range(12):
        a, b = side(study(seed=seed)), side(study(seed=100 + seed))
        contrasts = of(compared(a, b), "test_loss")
        apart += sum(c.apart for c in contrasts)
        total += len(contrasts)
        families += any(c.holm for c in contrasts)
    assert total == 48
    assert apart <= 14
    assert families <= 5


@pytest.mark.slow
def test_other_tasks_tokenizers_and_targets_are_refused() -> None:
    record = study()
    workload = record.spec.workload.model_dump(mode="json", exclude_unset=True)
    words = {**workload, "data": {**workload["data"], "tokenizer": "subwords"}}
    other = compared(side(record), side(study(workload=words)))
    assert not other.setup.losses
    assert any("tokenizers" in note for note in notes(other))
    assert {c.measure for c in other.contrasts} == {"best_peak_lr", "lr_exponent"}
    lower = compared(side(record), side(study(target={"at_most": 0.9})))
    assert not lower.setup.targets
    assert not of(lower, "steps_to_target")
    assert of(lower, "test_loss")


def test_steps_of_a_model_that_was_at_the_target_before_have_no_ratio() -> None:
    there = Side("there", findings_of("at the target before the first step"))
    comparison = compared(there, planted())
    assert not of(comparison, "steps_to_target")
    assert compare_figures(comparison, ("A: a", "B: b"))


def test_cells_of_two_optimizers_are_series_of_their_own() -> None:
    side_ = Side("two", findings_of("two clip norms"))
    figures = {f.name: f for f in compare_figures(compared(side_, side_), ("A: a", "B: b"))}
    spec = figures["lr_ratio_vs_batch"].spec or {}
    assert {v["series"] for v in spec["layer"][-1]["data"]["values"]} == {
        "clip_norm null", "clip_norm 1.0",
    }  # fmt: skip


def test_what_each_was_tuned_for_is_said() -> None:
    scored = Side("scored", analyse(sweep_of(by_accuracy())))
    said = notes(compared(scored, planted()))
    assert any("A was tuned for accuracy and B for validation loss" in note for note in said)
    assert any("targets are an accuracy of 0.800 and a validation loss" in note for note in said)


def test_each_renaming_is_for_the_tables_that_have_its_column(tmp_path: Path) -> None:
    lines = "\n".join(f"{b},{r},{2 + r}" for b in (32, 64) for r in (1e-3, 2e-3, 4e-3))
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    ours.write_text(f"bs,lr,validation_loss\n{lines}\n")
    theirs.write_text(f"global_batch_size,max_lr,validation_loss\n{lines}\n")
    rename = [("bs", "global_batch_size"), ("lr", "peak_lr"), ("max_lr", "peak_lr")]
    both = (str(ours), str(theirs))
    _, summary = write_comparison(both, tmp_path / "out", rename=rename)
    assert any(note.startswith("A: The batch, and with it") for note in summary["notes"])
    with pytest.raises(TableError, match="no column 'batchsize'"):
        write_comparison(both, tmp_path / "out", rename=[("batchsize", "global_batch_size")])
    with pytest.raises(TableError, match="neither side is one"):
        write_comparison(("one", "two"), tmp_path / "out", rename=rename)


def test_cells_that_only_one_has_are_named() -> None:
    record = study()
    some = replace(
        record,
        trials=tuple(t for t in record.trials if t.recipe.hyperparameters.global_batch_size != 16),
    )
    comparison = compared(side(record), side(some))
    assert comparison.only_a == ("global_batch_size 16",)
    assert len(comparison.shared) == 3


def test_what_differs_between_the_study_files() -> None:
    a, b = side(study()), side(study(budget={"steps": 500}))
    assert differing_fields(a, b) == [("budget.steps", "400", "500")]
    assert spec().budget != b.spec.budget if b.spec else False


@pytest.mark.ci
@pytest.mark.slow
def test_the_command_compares_reports_and_tables(tmp_path: Path) -> None:
    write_report(study(), tmp_path / "first")
    write_report(study(Truth(gap=0.3), name="second"), tmp_path / "second")
    arguments = ["--compare", str(tmp_path / "first"), str(tmp_path / "second")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["studies"] == {"a": "planted", "b": "second"}
    assert summary["num_apart"] > summary["expected_apart_by_chance"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "would miss zero difference by chance" in page
    assert not [word for word in ('src="http', 'href="http') if word in page]
    for name in ("loss_vs_batch", "steps_to_target", "best_lr_vs_batch", "gap_difference_vs_batch"):
        assert (tmp_path / "out" / "figures" / f"{name}.svg").exists()


def test_errors_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["--compare", "one", "one"]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["--compare", "one", "two"]) == 2
    assert "no study 'one'" in capsys.readouterr().err


def test_options_that_a_comparison_does_not_take_have_a_way_on(tmp_path: Path) -> None:
    way = "write the table's report with --from-csv, and compare its folder"
    path = tmp_path / "search.csv"
    rows = [f"32,{rate},{3 - n / 20},{n}\n" for rate, n in ((0.1, 1), (0.2, 4), (0.4, 4))]
    path.write_text("global_batch_size,peak_lr,validation_loss,epoch\n" + "".join(rows))
    notes = read_side(str(path), None).notes
    assert any("--keep-early" in note for note in notes)
    assert way in notes[-1]
    path.write_text("global_batch_size,peak_lr,accuracy\n32,0.1,0.5\n")
    with pytest.raises(TableError, match=f"--maximize accuracy.*{way}"):
        read_side(str(path), None)
    path.write_text("peak_lr,validation_loss\n0.1,0.5\n")
    with pytest.raises(TableError) as error:
        read_side(str(path), None)
    assert way not in str(error.value)
    path = tmp_path / "gpt2--scale-1.csv"
    path.write_text("peak_lr,--where\n0.1,0.5\n")
    with pytest.raises(TableError) as error:
        read_side(str(path), None)
    assert way not in str(error.value)
    lines = "".join(f"32,{rate},2,{model}\n" for model in "ab" for rate in (0.1, 0.2))
    path.write_text(f"global_batch_size,peak_lr,validation_loss,model\n{lines}")
    with pytest.raises(TableError, match=f"--nuisance model.*{way}"):
        read_side(str(path), None)


def files(path: str, sha256: str, **environment: Any) -> Side:
    """A study of texts in a file, with what was recorded of them."""
    workload = study().spec.workload.model_dump(mode="json", exclude_unset=True)
    workload["data"] = {"files": {"train": path}}
    return side(study(workload=workload), data_sha256=sha256, **environment)


@pytest.mark.slow
def test_texts_are_the_same_by_their_hash_and_not_by_their_path() -> None:
    same_path = compared(files("a.csv", "0" * 64), files("a.csv", "1" * 64))
    assert not same_path.setup.losses
    assert any("000000000000 and 111111111111" in note for note in notes(same_path))
    assert not of(same_path, "validation_loss")
    two_formats = compared(files("a.csv", "0" * 64), files("a.jsonl", "0" * 64))
    assert two_formats.setup.losses
    assert two_formats.setup.same_data
    assert {c.method for c in of(two_formats, "test_loss")} == {"paired"}
    cut = compared(
        files("a.csv", "0" * 64, targets_per_example=9.5),
        files("a.csv", "0" * 64, targets_per_example=7.5),
    )
    assert any("9.5 and 7.5 targets" in note for note in notes(cut))


@pytest.mark.slow
def test_folders_of_reports_know_their_data_and_budget(tmp_path: Path) -> None:
    for name, budget, sha256 in (("a", 400, "0"), ("b", 500, "0"), ("c", 400, "1")):
        workload = study().spec.workload.model_dump(mode="json", exclude_unset=True)
        workload["data"] = {"files": {"train": "texts.csv"}}
        record = study(name=name, workload=workload, budget={"steps": budget})
        environment = DATA | {"data_sha256": sha256 * 64}
        write_report(replace(record, environment=environment), tmp_path / name)
    a, b, c = (read_side(str(tmp_path / name), None) for name in "abc")
    assert a.conditions == conditions_of(
        replace(record, environment=DATA | {"data_sha256": "0" * 64})
    )
    longer = compared(a, b)
    assert longer.setup.losses
    assert longer.setup.same_data
    assert any("steps 400 and steps 500" in note for note in notes(longer))
    assert ("budget.steps", "400", "500") in differing_fields(a, b)
    assert not compared(a, c).setup.losses
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    del summary["conditions"]  # as versions before wrote it
    (tmp_path / "a" / "summary.json").write_text(json.dumps(summary))
    old = compared(read_side(str(tmp_path / "a"), None), b)
    assert any("budget of a are not known" in note for note in notes(old))
