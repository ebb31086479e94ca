"""The report of a study: figures, words and tables from the findings."""

from scaling.report.document import write_report, write_sweep_report

__all__ = ["write_report", "write_sweep_report"]
