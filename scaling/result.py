"""What a study found, from Python: trials, curves, summary, figures and the recommended run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from scaling.analysis.findings import Findings, analyse, within
from scaling.analysis.trial_rows import Sweep, sweep_of
from scaling.files.user_path import user_path
from scaling.records.load import load_folder
from scaling.records.study import StudyRecord
from scaling.report.charts.figures import Figure, figures
from scaling.report.comparison.sides import TABLES, sweep_of_report
from scaling.report.document import write_report, write_sweep_report
from scaling.report.foreign_tables.sweep_table import read_table
from scaling.report.importance import importance_of
from scaling.report.page.setting import Setting
from scaling.report.summary import summarize
from scaling.report.tables.study_tables import cells_table
from scaling.report.tables.trials_parquet import trials_parquet
from scaling.runner.recorded_study import RecordedStudy
from scaling.sinks.mlflow.load import load_study
from scaling.spec.issues import StudyFileError
from scaling.spec.phases import Limits
from scaling.spec.structural_errors import structural_issues

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd


@dataclass(frozen=True)
class Result:
    """A study's trials and what they show.

    Attributes:
        sweep: The trials as the analysis sees them.
        record: The study with its measurements; None where it is from a table or a report.
        written: Of a report's folder, its `summary.json`; a report's trials have no curves, so
            figures along the runs are of a study's own folder or of MLflow.
    """

    sweep: Sweep
    record: StudyRecord | None = None
    written: Mapping[str, Any] | None = None

    @classmethod
    def of_study(cls, record: StudyRecord) -> Result:
        """The result of a recorded study."""
        return cls(sweep_of(record), record)

    @cached_property
    def _findings(self) -> Findings:
        return analyse(self.sweep)

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """What `summary.json` holds."""
        return self.written if self.written is not None else summarize(self._findings)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial, of all phases; the columns are those of `trials.parquet`."""
        import pandas as pd

        return pd.read_parquet(io.BytesIO(trials_parquet(self.sweep.rows)))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a measurement along a run; empty where only the ends are known."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "trial_id": row.trial_id, "phase": row.phase, "seed": row.seed,
                    "global_batch_size": row.global_batch_size, "peak_lr": row.peak_lr,
                }
                | measurement.scalars()
                for row in self.sweep.rows
                for measurement in row.measurements
            ]
        )  # fmt: skip

    @cached_property
    def _figures(self) -> dict[str, Figure]:
        importance = importance_of(self.record, self.sweep) if self.record else None
        urls = self.record.trial_urls if self.record else {}
        return {figure.name: figure for figure in figures(self._findings, urls, importance)}

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The figures that the data allow."""
        return tuple(name for name, figure in self._figures.items() if figure.spec is not None)

    def figure(self, name: str) -> alt.TopLevelMixin:
        """A figure of the report, as Altair draws it in a notebook.

        Raises:
            LookupError: If there is no figure of that name, or the data do not allow it.
        """
        import altair as alt

        figure = self._figures.get(name)
        if figure is None:
            raise LookupError(f"no figure {name!r}; there are {', '.join(self.figure_names)}")
        if figure.spec is None:
            raise LookupError(f"figure {name!r} cannot be drawn: {figure.absent}")
        return alt.Chart.from_dict(figure.spec)

    def recommend(self, **limits: float | None) -> Mapping[str, Any]:
        """What to run next, within limits.

        Args:
            limits: num_workers, deadline_seconds, cost_ceiling with price_per_worker_hour; those
                left out are the study's own.

        Returns:
            As `summary["recommendation"]`.

        Raises:
            StudyFileError: If a limit is unknown or makes no sense.
        """
        values = {**self.sweep.limits.model_dump(), **limits}
        try:
            asked = Limits.model_validate(values)
        except ValidationError as error:
            errors = error.errors(include_url=False)
            for found in errors:
                found["loc"] = ("recommendation", *found["loc"])
            raise StudyFileError(list(structural_issues(errors))) from None
        return summarize(within(self._findings, asked))["recommendation"]

    def write_report(self, output: str | Path) -> Path:
        """Write the report into a folder, and return the address of its page.

        Raises:
            ForeignFolderError: If the folder holds what is not a report.
            OSError: If it cannot be written.
        """
        folder = user_path(output)
        if self.record is not None:
            write_report(self.record, folder)
        else:
            write_sweep_report(self.sweep, folder, Setting())
        return folder / "report.html"

    def __repr__(self) -> str:
        return f"Result(study={self.sweep.name!r}, num_trials={len(self.sweep.rows)})"

    def _repr_html_(self) -> str:
        """The answer and the cells, as a notebook shows them."""
        table = cells_table(self._findings)
        head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(str(word))}</td>" for word in row) + "</tr>"
            for row in table.rows
        )
        answer = escape(self.summary["answer"])
        return (
            f"<h3>{escape(self.sweep.question)}</h3><p>{answer}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


def load(source: str | Path, *, tracking_uri: str | None = None) -> Result:
    """A study that was run, from wherever it is.

    Args:
        source: A folder of a study's state (runs/NAME) or of a report (reports/NAME), a table of
            a sweep run elsewhere, or a study's name: in runs/ here, else in MLflow.
        tracking_uri: MLflow's store; MLFLOW_TRACKING_URI or ./mlflow.db where left out.

    Raises:
        LookupError: If there is no such study.
        TableError: If a table or a report's folder cannot be read.
        TrackingError: If MLflow's store cannot be read.
    """
    path = user_path(source)
    for folder in (path, Path("runs") / path):
        recorded = RecordedStudy.read(folder) if folder.is_dir() else None
        if recorded is not None:
            return Result.of_study(load_folder(folder, recorded.spec()))
    if path.is_dir():
        if (path / "trials.parquet").exists():
            sweep = sweep_of_report(path)
            return Result(sweep, written=json.loads((path / "summary.json").read_bytes()))
        raise LookupError(f"{path}: holds neither a study's state nor a report")
    if path.suffix.lower() in TABLES or path.is_file():
        return Result(read_table(path).sweep)
    return Result.of_study(load_study(str(source), tracking_uri))
