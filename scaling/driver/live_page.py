"""What a study has found so far, as a page that reloads itself: `live.html` in its folder.

No server and no network: a browser opens the file and reads it anew every few seconds.
"""

import base64
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from scaling.files.own import write_whole
from scaling.records.measurement import Measurement
from scaling.records.metrics import Metric, Unit
from scaling.records.objective import loss_unit, objective_of
from scaling.records.outcome import best_trial, is_censored, objective_value
from scaling.records.trial import TrialRecord
from scaling.space.cells import cell_name
from scaling.spec.phases import TO_TARGET
from scaling.spec.study import StudySpec

NAME = "live.html"
_EVERY_SECONDS = 5.0
_MOST_CURVES = 60
"""The trials that began last, so that the picture stays readable."""
_ENDED = "All trials have ended; the study's report has the answer."
_STOPPED = "The study stopped before its end; what has ended is kept, and --resume goes on."
_LOG = logging.getLogger(__name__)

_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
{% if not ending %}<meta http-equiv="refresh" content="{{ seconds }}">{% endif %}
<meta name="viewport" content="width=device-width">
<title>{{ study }}: {{ num_ended }} trials</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 50em; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .2em .8em; text-align: right }
td:first-child, th:first-child { text-align: left } img { max-width: 100% }
</style>
<h1>{{ study }}</h1>
<p>{{ question }}</p>
<p><strong>{{ phase }}</strong>: trials that have ended: {{ num_ended }}; still running:
{{ num_running }}.
{% if best %}The best {{ objective }} so far is {{ best.value }}, at {{ best.cell }} with a peak
learning rate of {{ best.rate }}.{% endif %}</p>
{% if note %}<p>{{ note }}</p>{% endif %}
<table>
<tr><th>cell</th><th>ended</th><th>diverged</th><th>best {{ objective }}</th><th>peak_lr</th></tr>
{% for row in rows %}<tr><td>{{ row.cell }}</td><td>{{ row.ended }}</td><td>{{ row.diverged }}</td>
<td>{{ row.value }}</td><td>{{ row.rate }}</td></tr>
{% endfor %}</table>
{% if picture %}<p><img alt="{{ curve }} along the trials" src="{{ picture }}"></p>{% endif %}
{% if ending %}<p>{{ ending }}</p>{% endif %}
</html>
""")


class LivePage:
    """An observer that writes the page every few seconds; a context manager.

    The page is drawn in a thread of its own, so that no trial waits for it. One that cannot be
    drawn or written is no reason to stop.

    Args:
        spec: The study.
        folder: Its state's.
        metrics: That its task describes.
        before: Trials that had ended when it was resumed.
    """

    def __init__(
        self,
        spec: StudySpec,
        folder: Path,
        metrics: Mapping[str, Metric],
        before: Mapping[str, TrialRecord],
    ) -> None:
        self._spec, self._file, self._metrics = spec, folder / NAME, metrics
        self._objective = objective_of(spec, metrics)
        self._loss_unit: Unit = loss_unit(metrics)
        self._records = dict(before)
        self._phase, self._note = "starting worker groups", ""
        self._is_over, self._lock = threading.Event(), threading.Lock()
        self._is_new, self._ending = True, ""
        self._thread = threading.Thread(target=self._write_often, name="live-page", daemon=True)

    def __enter__(self) -> "LivePage":
        self._thread.start()
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._ending = _ENDED if kind is None else _STOPPED
        self._write()

    def phase(self, name: str) -> None:
        """What runs next."""
        with self._lock:
            self._phase, self._is_new = name, True

    def note(self, line: str) -> None:
        """What the search says of itself: trials left, expected regret."""
        with self._lock:
            self._note, self._is_new = line, True

    def trial_started(self, record: TrialRecord) -> None:
        """A trial is about to train."""
        self._keep(record)

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """New measurements of a running trial."""
        self._keep(self._records[trial_id].extended(measurements))

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial ended."""
        self._keep(record)

    def _keep(self, record: TrialRecord) -> None:
        with self._lock:
            self._records[record.trial_id] = record
            self._is_new = True

    def _write_often(self) -> None:
        while not self._is_over.wait(_EVERY_SECONDS):
            if self._is_new:
                self._write()

    def _write(self) -> None:
        with self._lock:
            self._is_new = False
            records, phase, note = list(self._records.values()), self._phase, self._note
        if not records:
            return  # a start that is refused leaves nothing
        try:
            write_whole(self._file, self._page(records, phase, note))
        except Exception as error:  # noqa: BLE001  # of a chart too: a page ends no study
            _LOG.warning("%s was not written: %s", NAME, error)

    def _page(self, records: Sequence[TrialRecord], phase: str, note: str) -> str:
        cells: dict[str, list[TrialRecord]] = {}
        for record in records:
            cells.setdefault(cell_name(record.cell), []).append(record)
        best = self._best(records)
        shown = best if best and self._value(best) is not None else None
        svg = self._curves(records)
        return _PAGE.render(
            study=self._spec.name,
            question=self._spec.question,
            seconds=int(_EVERY_SECONDS),
            ending=self._ending,
            phase=phase,
            note=note,
            objective=self._spec.search.objective,
            curve="validation_loss",
            num_ended=sum(record.status != "running" for record in records),
            num_running=sum(record.status == "running" for record in records),
            best=shown and self._row(cell_name(shown.cell), [shown]),
            rows=[self._row(*cell) for cell in sorted(cells.items(), key=_batch_of)],
            picture=svg and f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}",
        )

    def _row(self, cell: str, records: Sequence[TrialRecord]) -> dict[str, Any]:
        best = self._best(records)
        value = self._value(best) if best else None
        return {
            "cell": cell,
            "ended": sum(record.status != "running" for record in records),
            "diverged": sum(record.status == "diverged" for record in records),
            "value": "" if value is None else f"{value:.4g}",
            "rate": f"{best.recipe.hyperparameters.peak_lr:.3g}" if best else "",
        }

    def _value(self, record: TrialRecord) -> float | None:
        """What the search goes by, as a result; None where the trial has none."""
        if self._spec.search.objective not in TO_TARGET:
            return self._objective.value_of(record.final) if record.final else None
        value = objective_value(record, self._spec, self._metrics)
        return None if value is None or is_censored(value) else value

    def _best(self, records: Sequence[TrialRecord]) -> TrialRecord | None:
        """Of the search's trials that have ended, the one that it would take."""
        ended = [r for r in records if r.phase == "search" and r.status != "running"]
        return best_trial(ended, self._spec, self._metrics)

    def _curves(self, records: Sequence[TrialRecord]) -> str:
        """The losses along the trials that began last, as SVG; empty without one."""
        from scaling.report.charts.running import running_curves  # altair takes a second

        return running_curves(records[-_MOST_CURVES:], self._loss_unit)


def _batch_of(cell: tuple[str, Sequence[TrialRecord]]) -> tuple[int, str]:
    name, records = cell
    return records[0].recipe.hyperparameters.global_batch_size, name
