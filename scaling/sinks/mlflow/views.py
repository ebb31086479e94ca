"""Addresses in MLflow that open on the comparison of a study's trials, and of two studies.

Axes are not part of an address. They are part of a view that is shared, which MLflow keeps as a
tag of the experiment and an address names by its key. The page that compares runs of several
experiments knows no such views: there MLflow picks the axes itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scaling.files.shown_url import shown_url
from scaling.sinks.base import TrackingError
from scaling.sinks.mlflow.load import latest_parent
from scaling.sinks.mlflow.store import one_line, open_client, search_all, store_errors, tried_again

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_SHARED_VIEW = "mlflow.sharedViewState."
_CHARTS = "compareRunsMode=CHART&workflowType=machine_learning"
_MOST_AXES = 6
_NOT_COMPARED = frozenset({"seed"})
_SEARCHED = ("validation_loss", "steps_to_target")
_CONFIRMED = ("test_loss", "validation_loss", "generalization_gap", "steps_to_target")


@dataclass(frozen=True)
class Link:
    """An address, and what it opens on."""

    label: str
    url: str


def comparison_links(names: Sequence[str], uri: str, server: str) -> list[Link]:
    """Addresses that open on the comparison of trials, and of the two studies started last.

    Args:
        names: Of the studies; all of the store where there are none.
        uri: Of the store, in which the views are kept.
        server: Address of the MLflow server that shows it.

    Raises:
        LookupError: If there is no study of one of the names.
        TrackingError: If the store cannot be read or written.
    """
    try:
        client = tried_again(uri, lambda: open_client(uri))
        studies = _studies(client, names)
        if unknown := set(names) - {experiment.name for experiment, _ in studies}:
            raise LookupError(f"no study {min(unknown)!r} in MLflow at {shown_url(uri)}")
        links = [link for study in studies for link in _links(client, study, server)]
    except store_errors() as error:
        raise TrackingError(f"cannot read MLflow at {shown_url(uri)}: {one_line(error)}") from None
    if len(studies) < 2:
        return links
    return [*links, _two_studies(studies[0], studies[1], server)]


_Study = tuple["Experiment", "Run"]


def _studies(client: "MlflowClient", names: Sequence[str]) -> list[_Study]:
    """The latest study of each experiment, the one started last first."""
    found: list[_Study] = []
    for experiment in client.search_experiments():
        if names and experiment.name not in names:
            continue
        found += [(experiment, parent) for parent in latest_parent(client, experiment)]
    return sorted(found, key=lambda study: study[1].info.start_time or 0, reverse=True)


def _links(client: "MlflowClient", study: _Study, server: str) -> list[Link]:
    experiment, parent = study
    links: list[Link] = []
    for phase, words, metrics in (
        ("search", "search trials", _SEARCHED),
        ("confirm", "confirm trials", _CONFIRMED),
    ):
        query = f"tags.phase = '{phase}' AND tags.mlflow.parentRunId = '{parent.info.run_id}'"
        runs = list(search_all(client, experiment.experiment_id, query))
        if runs:
            key = f"scaling-{phase}-{parent.info.run_id}"
            view = json.dumps(_view(query, runs, metrics))
            client.set_experiment_tag(experiment.experiment_id, _SHARED_VIEW + key, view)
            page = f"#/experiments/{experiment.experiment_id}/runs"
            address = f"{server}/{page}?viewStateShareKey={key}&{_CHARTS}"
            links.append(Link(f"{experiment.name}: {len(runs)} {words}", address))
    return links


def _two_studies(a: _Study, b: _Study, server: str) -> Link:
    runs = json.dumps([a[1].info.run_id, b[1].info.run_id], separators=(",", ":"))
    experiments = json.dumps([a[0].experiment_id, b[0].experiment_id], separators=(",", ":"))
    address = f"{server}/#/compare-runs?runs={runs}&experiments={experiments}"
    return Link(f"{a[0].name} and {b[0].name}: their numbers side by side", address)


def _view(query: str, runs: Sequence["Run"], metrics: Sequence[str]) -> dict[str, Any]:
    """The state of MLflow's page of runs: which runs, and charts of what differs among them."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.data.params.items():
            values.setdefault(name, set()).add(value)
    differ = [n for n, found in values.items() if len(found) > 1 and n not in _NOT_COMPARED]
    first = ("global_batch_size", "peak_lr")
    params = [*(n for n in first if n in differ), *sorted(set(differ) - set(first))]
    known = [name for name in metrics if any(name in run.data.metrics for run in runs)]
    section = {"uuid": "scaling", "name": "Study", "display": True, "isReordered": False}
    common = {"runsCountToCompare": 100, "metricSectionId": "scaling", "deleted": False,
              "isGenerated": False}  # fmt: skip
    charts: list[dict[str, Any]] = [
        {"uuid": "scaling-axes", "type": "PARALLEL", "selectedParams": params[:_MOST_AXES],
         "selectedMetrics": known[:1], "showAllRuns": True, **common},
        *({"uuid": f"scaling-{name}-{metric}", "type": "SCATTER",
           "xaxis": {"key": name, "type": "PARAM"}, "yaxis": {"key": metric, "type": "METRIC"},
           **common} for metric in known for name in params[:2]),
    ]  # fmt: skip
    return {
        "searchFilter": query,
        # In any other order than by time, MLflow does not fold trials under their study.
        "orderByKey": f"metrics.`{known[0]}`" if known else "attributes.`end_time`",
        "orderByAsc": True,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "isAccordionReordered": True,
    }
