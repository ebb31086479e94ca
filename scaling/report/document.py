"""Writes a report: report.html, report.md, summary.json, trials.parquet and figures/."""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.recommend import recommend
from scaling.analysis.rows import Sweep, sweep_of
from scaling.analysis.summary import summarize
from scaling.analysis.wording import DASH, between, number, rate
from scaling.records import StudyRecord
from scaling.report import content
from scaling.report.content import Setting, setting_of
from scaling.report.figures import Figure, figures, png
from scaling.report.trials_table import trials_parquet


def write_report(study: StudyRecord, output: Path) -> dict[str, Any]:
    """Analyse a recorded study and write its report.

    Args:
        study: The study and its trials; those still running are left out, and said to be.
        output: Folder for the report; it is made where it is missing and overwritten freely.

    Returns:
        The summary, as written to summary.json.

    Raises:
        OSError: If the folder cannot be written.
    """
    return write_sweep_report(sweep_of(study), output, setting_of(study))


def write_sweep_report(sweep: Sweep, output: Path, setting: Setting) -> dict[str, Any]:
    """Analyse a sweep from anywhere and write its report; see `write_report`."""
    findings = analyse(sweep)
    summary = summarize(findings)
    drawn = figures(findings, setting.urls or {})
    view = _view(findings, summary, drawn, setting)
    _write_figures(output / "figures", drawn)
    _write(output / "trials.parquet", trials_parquet(sweep.rows))
    _write(output / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    _write(output / "report.md", _template("template.md", autoescape=False).render(view))
    _write(output / "report.html", _template("template.html", autoescape=True).render(view))
    return summary


def _view(
    findings: Findings, summary: Mapping[str, Any], drawn: list[Figure], setting: Setting
) -> dict[str, Any]:
    """What the templates lay out."""
    shown = [figure for figure in drawn if figure.spec is not None]
    return {
        "summary": summary,
        "figures": shown,
        "absent": [figure for figure in drawn if figure.spec is None],
        "specs": {figure.name: _script_json(figure.spec) for figure in shown},
        "cells": content.cells_table(findings),
        "matched": content.matched_gaps_table(findings),
        "critical": content.critical_batch_table(findings),
        "evidence": content.evidence_table(findings),
        "law": content.law_words(findings),
        "regret": content.regret_table(findings),
        "joint": content.joint_table(findings),
        "trials": content.trials_table(findings, setting.urls or {}),
        "flags": content.flags(findings),
        "sources": content.sources(findings),
        "recommendation": _recommendation_words(findings),
        "setting": setting,
        "terms": content.TERMS,
        "style": _asset("page.css"),
        "bundle": _asset("vega_bundle.js"),
        "script": _asset("page.js"),
    }


def _recommendation_words(findings: Findings) -> list[tuple[str, str]]:
    recommendation = recommend(findings)
    words = [
        ("global_batch_size", _whole(recommendation.global_batch_size)),
        ("peak_lr", rate(recommendation.peak_lr)),
        ("warmup_steps", _whole(recommendation.warmup_steps)),
        ("clip_norm", number(recommendation.clip_norm)),
        ("expected steps", number(recommendation.expected_steps)),
        ("expected seconds", number(recommendation.expected_seconds)),
        ("expected loss", between(recommendation.expected_loss_interval)),
    ]
    return words if recommendation.global_batch_size is not None else []


def _whole(count: int | None) -> str:
    return DASH if count is None else f"{count:,}"


def _template(name: str, *, autoescape: bool) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    return environment.from_string(_asset(name))


def _asset(name: str) -> str:
    return files("scaling.report").joinpath(name).read_text(encoding="utf-8")


def _script_json(spec: dict[str, Any] | None) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(spec, allow_nan=False).replace("<", "\\u003c")


def _write_figures(folder: Path, drawn: list[Figure]) -> None:
    """Every figure as SVG and PNG; those of an earlier report that are absent now go."""
    kept: set[str] = set()
    for figure in drawn:
        if figure.spec is not None:
            svg = figure.svg()
            _write(folder / f"{figure.name}.svg", svg)
            _write(folder / f"{figure.name}.png", png(svg))
            kept |= {f"{figure.name}.svg", f"{figure.name}.png"}
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old.name not in kept:
            old.unlink()


def _write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.replace(path)
