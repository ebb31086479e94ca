"""Writes a report: report.html, report.md, summary.json, trials.parquet and figures/."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.next_run.recommendation import Recommendation
from scaling.analysis.trial_rows import Sweep, sweep_of
from scaling.files.own import require_report_folder, write_report_files
from scaling.records.objective import Objective
from scaling.records.study import StudyRecord
from scaling.report.charts.figures import FIRST, Figure, figures
from scaling.report.importance import Importance, importance_of
from scaling.report.page.rendering import figure_files, markdown, page, script_json
from scaling.report.page.sections import sections
from scaling.report.page.setting import Setting, setting_of
from scaling.report.summary import summarize
from scaling.report.tables import study_tables
from scaling.report.tables.table import Table
from scaling.report.tables.trials_parquet import trials_parquet
from scaling.report.words import remarks
from scaling.report.words.carried import carried_words
from scaling.report.words.headline import TOPICS, Line, first_screen
from scaling.report.words.ladder import predicted_facts
from scaling.report.words.measurements import ALL
from scaling.report.words.numbers import DASH, number, rate, whole, with_ends
from scaling.report.words.sources import sources
from scaling.report.words.terms import terms

_ALWAYS_THERE = {"recommendation": "the recommended run", "cells": "cells", "trials": "trials"}


def write_report(study: StudyRecord, output: Path) -> dict[str, Any]:
    """Analyse a recorded study and write its report.

    Args:
        study: The study and its trials; those still running are left out, and said to be.
        output: Folder for the report, absent, empty, or that of an earlier report, which is
            replaced; a user's own files beside it stay.

    Returns:
        The summary, as written to summary.json.

    Raises:
        ForeignFolderError: If the folder holds other files; none is touched.
        OSError: If the folder cannot be written.
    """
    sweep = sweep_of(study)
    return write_sweep_report(sweep, output, setting_of(study), importance_of(study, sweep))


def write_sweep_report(
    sweep: Sweep, output: Path, setting: Setting, importance: Importance | None = None
) -> dict[str, Any]:
    """Analyse a sweep from anywhere and write its report; see `write_report`."""
    require_report_folder(output)
    findings = analyse(sweep)
    summary = summarize(findings)
    drawn = figures(findings, setting.urls or {}, importance)
    view = _view(findings, summary, drawn, setting)
    write_report_files(
        output,
        {
            **figure_files(drawn),
            "trials.parquet": trials_parquet(sweep.rows),
            "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
            "report.md": markdown("template.md", view),
            "report.html": page("template.html", view, view["terms"]),
        },
    )
    return summary


def _view(
    findings: Findings, summary: Mapping[str, Any], drawn: list[Figure], setting: Setting
) -> dict[str, Any]:
    recommendation = findings.recommendation
    shown = [figure for figure in drawn if figure.spec is not None]
    trials = study_tables.trials_table(findings, setting.urls or {})
    reason: str = summary["recommendation"]["reason"]
    parts = sections(findings, drawn, setting.urls or {})
    return {
        "summary": summary,
        "first_screen": _by_question(first_screen(findings)),
        "beside": next((figure for figure in shown if figure.section == FIRST), None),
        "evidence": _ALWAYS_THERE | {part.name: part.title.lower() for part in parts},
        "sections": parts,
        "specs": {figure.name: script_json(_without_addresses(figure.spec)) for figure in shown},
        "cells": study_tables.cells_table(findings),
        "trials": trials,
        "trials_data": script_json(_trials_data(trials)),
        "flags": remarks.flags(findings),
        "sources": sources(findings),
        "recommendation": predicted_facts(findings.ladder, findings.carried)
        if findings.ladder
        else _recommendation_words(recommendation, findings.sweep.tuned_for),
        "reason": "" if reason in summary["headline"] else reason,  # said once
        "carried": carried_words(findings.carried),
        "recipe": summary["recommendation"]["recipe"],
        "setting": setting,
        "terms": terms(findings),
    }


def _by_question(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """The first screen's sentences under the questions that they answer."""
    grouped = [(TOPICS[topic], [ln for ln in lines if ln.topic == topic]) for topic in TOPICS]
    return [(question, found) for question, found in grouped if found]


def _recommendation_words(
    recommendation: Recommendation, tuned_for: Objective
) -> list[tuple[str, str]]:
    trial, option = recommendation.trial, recommendation.option
    if trial is None or option is None:
        return []
    words = [
        ("global_batch_size", whole(recommendation.global_batch_size)),
        ("peak_lr", rate(trial.peak_lr)),
        ("warmup_steps", whole(trial.warmup_steps)),
        ("clip_norm", number(trial.clip_norm)),
        ("workers", whole(option.num_workers)),
        ("steps", number(option.steps.value)),
        ("steps to the target", with_ends(option.mean_steps)),
        ("chance of the target", _share(option.chance_of_target)),
        ("expected seconds", with_ends(option.seconds)),
        ("expected cost", with_ends(option.cost)),
        (metric := f"expected {tuned_for.label}", with_ends(option.metric)),
        (f"expected {ALL[option.loss_name].label}", with_ends(option.loss)),
    ]
    # A loss has no metric; nor has a run to a target, whose metric is about that.
    optional = ("expected cost", "steps to the target", "chance of the target", metric)
    return [(name, word) for name, word in words if name not in optional or word != DASH]


def _share(value: float | None) -> str:
    return DASH if value is None else f"{value:.0%}"


def _without_addresses(spec: object) -> Any:
    """A figure as the page carries it: trials' addresses are in the page once, by trial."""
    if isinstance(spec, list):
        return [_without_addresses(item) for item in spec]
    if isinstance(spec, dict):
        return {
            name: _without_addresses(value)
            for name, value in spec.items()
            if not (name == "url" and "trial" in spec)
        }
    return spec


def _trials_data(trials: Table) -> dict[str, Any]:
    """The trials for the page's script, which shows a page of them at a time."""
    known = [link for link in trials.links if link]
    start = os.path.commonprefix(known) if len(known) > 1 else ""  # noqa: RUF071 -- characters
    ends = [link[len(start) :] if link else None for link in trials.links]
    return {"rows": trials.rows, "links": {"start": start, "ends": ends}}
