"""Whole reports: every file, no number that JSON lacks."""

import html
import json
import re
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import vl_convert

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.files.own import write_report_files
from scaling.records.study import StudyRecord
from scaling.report.charts.figures import figures
from scaling.report.document import write_report
from scaling.report.page.markdown import escaped
from scaling.report.page.setting import setting_of
from scaling.report.tables.study_tables import trials_table
from scaling.report.words.headline import first_screen, headline
from scaling.report.words.numbers import rate
from tests.analysis.synthetic import joint_study, spec, study
from tests.report.kinds import findings_of, joint_by_the_surface

FIGURES = {
    "steps_to_target", "examples_to_target", "steps_examples", "loss_vs_lr", "best_lr_vs_batch",
    "regret_vs_batch", "loss_vs_batch", "generalization_gap", "learning_curves", "time_vs_examples",
    "steps_by_target", "noise_scale_curve", "gap_vs_grad_noise_scale",
    "gap_vs_sharpness", "gap_vs_hessian_top_eigenvalue",
    "loss_and_time", "learning_curves_by_step", "parallel_coordinates", "rules_between_batches",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a planted study, written over an older one with another figure."""
    output = tmp_path_factory.mktemp("planted")
    write_report_files(output, {"figures/of_an_older_report.svg": "<svg/>"})
    write_report(study(), output)
    return output


def test_every_file_is_there_and_nothing_else(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "report.md", "summary.json", "trials.parquet", "figures",
        ".scaling-report.json",
    }  # fmt: skip
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "png")}


def test_the_table_of_trials_says_what_they_were_tuned_for_and_where() -> None:
    table = trials_table(findings_of("score with seeds"), {})
    assert table.columns[-4] == "accuracy"
    assert "leads to its run" not in table.note
    table = trials_table(findings_of("two clip norms"), {})
    assert "clip_norm" in table.columns
    assert {row[table.columns.index("clip_norm")] for row in table.rows} == {"null", "1.0"}


def test_trials_table_has_a_row_a_trial(folder: Path) -> None:
    record = study()
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in record.trials]
    assert rows[0]["weight_decay"] == 0.0
    assert json.loads(rows[0]["cell"]) == {"global_batch_size": 16}
    lost = [row for row in rows if row["status"] == "diverged"]
    assert lost
    assert all(row["validation_loss"] is None for row in lost)


def test_the_page_holds_everything_and_asks_for_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    shown = html.unescape(re.sub(r"<[^>]+>", "", page))
    said = [line.text for line in first_screen(analyse(sweep_of(study())))]
    assert all(shown.count(sentence) == 1 for sentence in said)
    assert " ".join(said) == summary["headline"] == summary["answer"]
    assert "0123abc" in page
    links = json.loads(page.split('id="trials-data">')[1].split("</script>")[0])["links"]
    addresses = [links["start"] + end for end in links["ends"]]
    assert addresses == [f"http://localhost:5000/#/runs/{t.trial_id}" for t in study().trials]
    bundle = files("scaling.report.page").joinpath("vega_bundle.js").read_text()
    own = page.replace(bundle, "").replace('href="data:,"', "")
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", own)
    assert not re.search(r"@import|url\(", own)
    assert page.count("seeds per cell") >= len(FIGURES)
    text = (folder / "report.md").read_text()
    assert all(escaped(sentence) in text for sentence in said)
    assert all(f"figures/{name}.svg" in text for name in FIGURES)


def test_text_from_the_study_cannot_break_the_page(tmp_path: Path) -> None:
    write_report(StudyRecord(spec(question="</script><b>bold?</b> a|b"), ()), tmp_path)
    assert "<b>bold?" not in (tmp_path / "report.html").read_text()


def test_figures_without_data_are_absent_with_a_reason() -> None:
    made = figures(analyse(sweep_of(StudyRecord(spec(), ()))), {})
    assert {figure.name for figure in made} == FIGURES
    assert all(figure.spec is None and figure.absent for figure in made)


def test_a_search_alone_has_no_regret_figure() -> None:
    record = study(transfer=None, confirm=None, num_seeds=0)
    made = {figure.name: figure for figure in figures(analyse(sweep_of(record)), {})}
    assert made["regret_vs_batch"].absent
    assert made["rules_between_batches"].spec is not None
    assert made["generalization_gap"].spec is not None
    assert "no replicate seeds" in made["generalization_gap"].subtitle


def test_joint_search_shows_parallel_coordinates() -> None:
    made = {f.name: f for f in figures(analyse(sweep_of(joint_study())), {}) if f.spec}
    assert {"parallel_coordinates", "loss_vs_global_batch_size", "loss_vs_base_lr"} <= set(made)
    assert "mark" in made["parallel_coordinates"].svg()


def test_a_joint_search_by_the_surface_says_the_recipe_that_was_confirmed() -> None:
    findings = joint_by_the_surface()
    assert findings.cells[0].best is not None
    assert (findings.cells[0].best.phase, findings.cells[0].global_batch_size) == ("confirm", 64)
    said = headline(findings)
    assert "The joint search of 30 trials recommends a batch of 64; over 2 new seeds" in said
    assert f"Run a batch of 64 at a peak learning rate of {rate(0.00777)}" in said


def test_bundled_javascript_is_the_version_that_draws_the_files(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert f"Vega {vl_convert.get_vega_version()}, Vega-Lite 6.4" in page
    assert "6.4" in vl_convert.get_vegalite_versions()


def test_links_into_a_store_without_a_server_lead_to_the_usual_address() -> None:
    record = StudyRecord(spec(), (), {}, {"a": "#/experiments/1/runs/x", "b": "http://s/#/runs/y"})
    setting = setting_of(record)
    assert setting.urls == {
        "a": "http://127.0.0.1:5000/#/experiments/1/runs/x", "b": "http://s/#/runs/y",
    }  # fmt: skip
    assert any("mlflow ui" in note for note in setting.notes)
    assert setting_of(study()).notes == ()
