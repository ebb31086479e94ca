"""What MLflow compares studies and trials by: numbers, data, kind of experiment, views."""

import json
import math
import re
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from scaling.sinks import StudyEnd
from scaling.sinks.mlflow.views import comparison_links
from scaling.spec.study import StudySpec
from tests.sinks.told import client, open_sink, recipe, runs, track, trial

DATA = {"data_sha256": "0123456789abcdef" * 4, "num_train": 4000, "num_evaluated_test": 500}
NUMBERS = {"critical_batch_size": 64.5, "critical_batch_size_low": 50.0, "best_peak_lr/64": 1e-3}


def test_a_study_s_numbers_are_metrics_of_its_run_once(
    state: Path, spec: StudySpec, uri: str
) -> None:
    for _ in range(2):
        sink = open_sink(spec, uri, state, DATA)
        track(sink, [trial("a")])
        sink.study_ended(StudyEnd("done", "Answer.", None, DATA, NUMBERS))

    parent = runs(uri)[0]
    assert parent.data.metrics == NUMBERS
    for name in NUMBERS:
        assert len(client(uri).get_metric_history(parent.info.run_id, name)) == 1


def test_a_number_that_is_determined_no_longer_is_nan(
    state: Path, spec: StudySpec, uri: str
) -> None:
    for numbers in (NUMBERS, {"best_peak_lr/64": 2e-3}, {"best_peak_lr/64": 2e-3}):
        sink = open_sink(spec, uri, state)
        sink.study_ended(StudyEnd("done", "Answer.", numbers=numbers))

    parent = runs(uri)[0]
    assert parent.data.metrics["best_peak_lr/64"] == 2e-3
    assert math.isnan(parent.data.metrics["critical_batch_size"])
    history = client(uri).get_metric_history(parent.info.run_id, "critical_batch_size")
    assert len(history) == 2


def test_numbers_stay_while_a_study_is_interrupted(state: Path, spec: StudySpec, uri: str) -> None:
    open_sink(spec, uri, state).study_ended(StudyEnd("done", "Answer.", numbers=NUMBERS))
    open_sink(spec, uri, state).study_ended(StudyEnd("interrupted"))

    assert runs(uri)[0].data.metrics == NUMBERS


def test_the_experiment_opens_as_model_training(state: Path, spec: StudySpec, uri: str) -> None:
    client(uri).create_experiment(spec.name)  # one that another program has made
    open_sink(spec, uri, state).close()

    experiment = client(uri).get_experiment_by_name(spec.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_data_set_is_an_input_of_study_and_trials_once(
    state: Path, spec: StudySpec, uri: str
) -> None:
    for up_to_step in (20, 10**9):
        sink = open_sink(spec, uri, state, DATA)
        track(sink, [trial("a")], up_to_step=up_to_step)
        sink.close()

    for run in runs(uri):
        [found] = run.inputs.dataset_inputs
        assert (found.dataset.name, found.dataset.digest) == ("noisy_quadratic", "0123456789ab")
        assert json.loads(found.dataset.profile) == {"num_train": 4000, "num_evaluated_test": 500}
        assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}


def test_links_open_on_what_a_study_varies(state: Path, spec: StudySpec, uri: str) -> None:
    other = spec.model_copy(update={"name": "another"})
    for number, one in enumerate((spec, other)):
        sink = open_sink(one, uri, state, study_id=f"s{number}")
        records = [
            trial(f"{phase}-{batch}", phase=phase, cell={"global_batch_size": batch},
                  choices={"peak_lr": rate},
                  recipe=recipe(global_batch_size=batch, peak_lr=rate, seed=batch))
            for phase in ("search", "confirm")
            for batch, rate in ((32, 1e-3), (64, 2e-3))
        ]  # fmt: skip
        track(sink, records)
        sink.study_ended(StudyEnd("done", "Answer."))

    alone = comparison_links(("another",), uri, "http://127.0.0.1:1")
    assert [link.label for link in alone] == [
        "another: 2 search trials",
        "another: 2 confirm trials",
    ]
    *links, both = comparison_links((), uri, "http://127.0.0.1:1")

    assert [link.label for link in links] == [
        "another: 2 search trials", "another: 2 confirm trials",
        "lr_vs_batch: 2 search trials", "lr_vs_batch: 2 confirm trials",
    ]  # fmt: skip
    page, query = links[2].url.split("?")
    experiment = client(uri).get_experiment_by_name("lr_vs_batch")
    assert page == f"http://127.0.0.1:1/#/experiments/{experiment.experiment_id}/runs"
    [key] = parse_qs(query)["viewStateShareKey"]
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])
    assert view["compareRunCharts"][0]["selectedParams"] == ["global_batch_size", "peak_lr"]
    assert view["compareRunCharts"][0]["selectedMetrics"] == ["validation_loss"]
    found = client(uri).search_runs([experiment.experiment_id], view["searchFilter"])
    assert {run.data.tags["trial_id"] for run in found} == {"search-32", "search-64"}
    parents = [runs(uri, name)[0].info.run_id for name in ("another", "lr_vs_batch")]
    assert json.loads(re.findall(r"runs=(\[.*?\])", both.url)[0]) == parents


def test_a_store_without_a_study_has_no_link(uri: str) -> None:
    assert comparison_links((), uri, "http://127.0.0.1:1") == []


def test_a_link_to_an_unknown_study_is_refused(uri: str) -> None:
    with pytest.raises(LookupError, match="no study 'nothing' in MLflow at"):
        comparison_links(("nothing",), uri, "http://127.0.0.1:1")
