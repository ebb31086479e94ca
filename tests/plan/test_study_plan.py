"""What --plan says of memory; nothing is started."""

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from scaling.plan.machine import trials_at_once
from scaling.plan.start import Start
from scaling.plan.start_checks import require_tasks
from scaling.plan.study_plan import print_plan
from scaling.space.layout import Facts, split_of
from scaling.spec.read import read_study
from scaling.training import timing
from scaling.training.memory import estimate as footprint_module
from scaling.training.timing import Speed

STUDY = Path(__file__).parents[1] / "data/lr_vs_batch.yaml"
STUDIES = Path(__file__).parents[2] / "studies"


def plan(*changes: str, study: Path = STUDY, address: str | None = None) -> str:
    out, spec = StringIO(), read_study(study, list(changes))
    start = Start(spec, "", Path("reports"), address=address, is_plan=True)
    print_plan(start, require_tasks(spec), Console(file=out, width=120))
    return out.getvalue()


@pytest.mark.usefixtures("known_speed")
def test_plan_has_the_memory_of_every_batch_size() -> None:
    text = plan()
    table = text.partition("MiB per worker")[2].splitlines()
    assert table[0].split() == [
        "parameters", "gradients", "optimizer", "activations", "workspace", "total",
    ]  # fmt: skip
    rows = [line.split() for line in table[1:] if line.startswith("global_batch_size=")]
    assert [row[0].partition("=")[2] for row in rows] == ["8", "32", "128", "512"]
    totals = [float(row[6]) for row in rows]
    assert totals == sorted(totals)
    for row in rows:
        assert sum(map(float, row[1:6])) == pytest.approx(float(row[6]), abs=0.3)
    assert "more than available" not in text


@pytest.mark.usefixtures("known_speed")
def test_a_budget_in_tokens_counts_what_the_model_reads() -> None:
    study = STUDIES / "part_of_speech.yaml"
    text = plan("budget={tokens: 16000}", study=study)
    found = re.search(
        r"an example has ([\d.]+) input tokens, without padding, and 1.0 targets", text
    )
    assert found is not None
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["16", "1"])
    assert int(row[4]) == pytest.approx(16000 / float(found[1]) / 16, rel=0.02)


@pytest.mark.usefixtures("known_speed")
def test_auto_is_the_largest_micro_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint_module, "_machine_bytes", lambda: 20 * 2**20)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert "more than available" in plan()
    text = plan("resources.micro_batch_size=auto")
    assert "more than available" not in text
    batches = text.partition("examples")[2].splitlines()[1:5]
    micro = [int(line.split()[2]) for line in batches]
    assert micro[:2] == [8, 32]
    assert micro[2] == micro[3] == 32  # the largest divisor of the share that is within the bound


def test_a_bound_that_is_not_known_is_none() -> None:
    spec = read_study(STUDY, ["resources.micro_batch_size=auto"])
    facts: Any = Facts(4000, 7.0)
    assert split_of(spec, 512, facts).micro_batch_size == 512
    facts = Facts(4000, 7.0, largest_micro_batch_size=100)
    assert split_of(spec, 512, facts).micro_batch_size == 64


def test_what_cannot_be_estimated_is_said() -> None:
    quadratic = STUDIES / "noisy_quadratic.yaml"
    assert "memory: not estimated" in plan(study=quadratic)


def minutes(text: str) -> float:
    return float(text.partition("time: about ")[2].partition(" min")[0])


# 2 ms an example of a step and nothing else; 1 ms an evaluated example.
SPEED = Speed(shares=(1, 512), step_seconds=(0.002, 1.024), evaluated_seconds=0.001)
FEW = (
    "scientific.global_batch_size=[8, 32]", "transfer=null", "confirm=null",
    "evaluation.num_examples=100", "evaluation.every_examples=5008", "search.trials_per_cell=60",
    "workload.model.num_hidden_layers=1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("cpus", "gpus", "changes", "expected"),
    [
        (2, 0, ["resources.cpus_per_worker=0.2"], 10),
        (2, 0, ["resources.num_workers=2"], 1),
        (64, 8, [], 8),
        (64, 8, ["resources.gpus_per_worker=0.5"], 16),
        (64, 8, ["resources.gpus_per_worker=0.5", "resources.max_slots=3"], 3),
        (64, 8, ["resources.gpus_per_worker=0"], 64),
    ],
)
def test_as_many_trials_at_once_as_the_run_has(
    cpus: int, gpus: int, changes: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    monkeypatch.setattr(footprint_module, "num_gpus_here", lambda: gpus)
    alone = ["resources.num_workers=1", "resources.cpus_per_worker=1"]
    assert trials_at_once(read_study(STUDY, [*alone, *changes])) == expected


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "study_speed", lambda *_: SPEED)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


@pytest.mark.usefixtures("known_speed")
def test_the_time_is_that_of_all_steps_and_evaluations() -> None:
    text = plan(*FEW)
    assert "2 trials at once" in text
    # 1,250 steps of 8 and 313 of 32; evaluated at the start, halfway and at the end.
    examples = 1250 * 8 + 313 * 32
    evaluated = (3 * 200 + 100) + (3 * 200 + 100)
    seconds = 60 * (0.002 * examples + 0.001 * evaluated) / 2
    assert minutes(text) == pytest.approx(seconds / 60, rel=0.02)
    assert minutes(plan(*FEW, "resources.max_slots=1", "search.trials_per_cell=30")) == (
        pytest.approx(seconds / 60, rel=0.02)
    )


@pytest.mark.usefixtures("known_speed")
def test_the_time_of_branches_is_that_of_their_own_runs() -> None:
    branch = (
        "{base_batch_size: 32, at_examples: [512], multiples: [1, 2], window_examples: 512, "
        "num_seeds: 200}"
    )
    more = minutes(plan(*FEW, f"branch={branch}")) - minutes(plan(*FEW))
    # 400 runs of 1,024 examples, evaluated at the start and at the end.
    seconds = 400 * (0.002 * 1024 + 0.001 * (2 * 200 + 100)) / 2
    assert more == pytest.approx(seconds / 60, rel=0.02)


def test_a_plan_has_a_time_as_it_is() -> None:
    assert minutes(plan(*FEW)) > 0


@pytest.mark.usefixtures("known_speed")
def test_a_plan_says_whether_workers_have_gpus() -> None:
    here = "with 1 GPU per worker" if torch.cuda.is_available() else "without GPUs"
    assert f"workers each, {here}" in plan("resources.num_workers=2")
    assert "workers each, with 0.5 GPU per worker" in plan(
        "resources.num_workers=2", "resources.gpus_per_worker=0.5"
    )
    text = plan("resources.num_workers=2", address="10.0.0.1:6379")
    assert "workers each, with one GPU per worker if the cluster has any" in text
    assert "time: not estimated: whether the workers train on GPUs" in text


def test_a_time_that_cannot_be_known_is_not_guessed() -> None:
    assert "time: not estimated: the workers train on GPUs" in plan("resources.gpus_per_worker=1")
    quadratic = STUDIES / "noisy_quadratic.yaml"
    assert "time: not estimated" in plan(study=quadratic)
    assert "time: about" not in plan("resources.num_workers=auto")


BY_SURFACE = (
    "search={num_trials: 24, round_size: 4}", "transfer=null", "confirm=null",
    "workload.model.num_hidden_layers=1",
)  # fmt: skip


@pytest.mark.usefixtures("known_speed")
def test_the_plan_of_a_search_by_the_surface_is_a_bound() -> None:
    text = " ".join(plan(*BY_SURFACE).split())
    assert (
        "search: at most 24 trials over all cells, 8 at first and then in rounds of 4; stops once "
        "the regret of every cell is at most 0.25% with probability 0.9"
    ) in text
    assert "in all: at most 24 trials" in text
    assert "time: at most about" in text
    assert "(surface, at most 24 trials over all cells)" in text
    whole = " ".join(plan(*BY_SURFACE, "search.stop=null").split())
    assert "stops once" not in whole
    assert "in all: 24 trials" in whole
    assert minutes(whole) == pytest.approx(float(text.partition("at most about ")[2].split()[0]))


def test_a_limit_is_said_in_the_unit_of_the_objective() -> None:
    stop = "{regret_at_most: 20, with_probability: 0.5}"
    search = f"search={{objective: steps_to_target, num_trials: 24, stop: {stop}}}"
    text = " ".join(plan(search).split())
    assert "the regret of every cell is at most 20 steps with probability 0.5" in text


@pytest.mark.usefixtures("known_speed")
def test_every_row_of_the_batches_says_which_cell_it_is() -> None:
    text = plan("scientific={beta1: [0.8, 0.9], global_batch_size: [8, 64]}", "transfer=null")
    rows = [line.split()[:2] for line in text.splitlines() if line.startswith(("0.8 ", "0.9 "))]
    assert rows == [["0.8", "8"], ["0.9", "8"], ["0.8", "64"], ["0.9", "64"]]
