"""A trial of a table of finished runs is looked up there, and what the table lacks is said."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scaling.plan.start import Start
from scaling.plan.start_checks import require_tasks
from scaling.plan.study_plan import print_plan
from scaling.records.measurement import Measurement
from scaling.spec.read import study_from_mapping
from scaling.spec.workloads import RunTable
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.table import RunTableTask
from scaling.training.finished import look_up
from tests.recipes import EVALUATION, recipe
from tests.spec.studies import TABLE, changed

RUNS = Path(__file__).parents[1] / "data" / "runs.csv"
GIVEN = {
    "task": "table", "columns": {"peak_lr": "lr", "global_batch_size": "bs"},
    "validation_loss_column": "loss", "where": {"model": "small"},
}  # fmt: skip


def table(file: Path = RUNS, **others: Any) -> RunTableTask:
    task = prepare_task(RunTable.model_validate(GIVEN | {"file": str(file)} | others), EVALUATION)
    assert isinstance(task, RunTableTask)
    return task


def loss(task: RunTableTask, batch: int, rate: float) -> float | None:
    found = task.look_up(recipe(batch, rate, 10))
    return found and found["validation"]


def test_a_run_of_the_table_has_its_losses() -> None:
    task = table(train_loss_column="train", test_loss_column="test")
    found = task.look_up(recipe(128, 4e-3, 10))
    assert found == {"validation": 2.525, "train": 2.425, "test": 2.545}
    assert loss(table(where={"model": "large"}), 32, 1e-3) == 2.145


@pytest.mark.parametrize(
    ("batch", "rate", "expected"),
    [
        (128, 4.5e-3, 2.525),  # nearest in the logarithm of the rate
        (128, 5.7e-3, 2.525),
        (90, 1e-3, 2.59),  # batch 64: 90 is below 64 × √2
        (91, 1e-3, 2.645),
        (64, 6.9e-3, 2.51),  # a run that is missing: the nearest of its batch
        (64, 8e-3, 2.51),
        (64, 8.1e-3, 2.59),
        (8, 1e-5, 2.545),  # beyond the table: its edge
        (1024, 1.0, 2.645),
        (32, 0.03, None),  # diverged
    ],
)
def test_between_runs_the_nearest_one_holds(batch: int, rate: float, expected: float) -> None:
    assert loss(table(), batch, rate) == expected


@pytest.mark.parametrize(
    ("batch", "rate", "expected"),
    [
        (64, 1e-3 * 2**0.5, (2.59 + 2.53) / 2),
        (64, 8e-3, (2.51 + 2.59) / 2),  # over the run that is missing
        (32, 1e-5, 2.545),
        (32, 0.02, None),  # towards one that diverged
        (32, 0.016, 2.625),
    ],
)
def test_losses_are_interpolated_in_the_logarithm(
    batch: int, rate: float, expected: float | None
) -> None:
    assert loss(table(between="interpolated"), batch, rate) == pytest.approx(expected, abs=1e-9)


def test_between_four_runs_losses_are_bilinear() -> None:
    between = loss(table(between="interpolated"), 96, 1.5e-3)
    share, across = 0.584962500721156, 0.584962500721156  # log2 of 1.5, on both axes
    low = 2.59 + across * (2.53 - 2.59)
    high = 2.645 + across * (2.565 - 2.645)
    assert between == pytest.approx(low + share * (high - low), abs=1e-9)


def test_noise_is_relative_and_of_the_seed_and_the_recipe() -> None:
    task = table(noise_ratio=0.01)
    one = recipe(128, 4e-3, 10)
    seeds = [task.look_up(replace(one, seed=seed)) for seed in range(200)]
    losses = [found["validation"] / 2.525 - 1 for found in seeds if found]
    assert task.look_up(one) == task.look_up(one)
    assert len(set(losses)) == 200
    assert sum(losses) / 200 == pytest.approx(0, abs=0.003)
    assert (sum(x * x for x in losses) / 200) ** 0.5 == pytest.approx(0.01, rel=0.2)
    assert loss(task, 128, 8e-3) != loss(task, 128, 4e-3)  # equal in the table


def test_a_trial_has_one_measurement_at_its_end() -> None:
    reported: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Any:
        reported.append(measurement)
        return "continue"

    assert look_up(table(), recipe(64, 1e-3, 50), report).status == "done"
    assert look_up(table(), recipe(32, 0.03, 50), report).status == "diverged"
    assert [(m.step, m.validation_loss) for m in reported] == [(50, 2.59), (50, None)]
    assert reported[0].examples == 3200


def test_of_equal_runs_the_lowest_loss_counts(tmp_path: Path) -> None:
    file = tmp_path / "runs.tsv"
    file.write_text("bs\tlr\tloss\n8\t0.1\tinf\n8\t0.1\t2.5\n8\t0.1\t3.5\n8\t0.2\t\n")
    task = table(file, where={})
    assert loss(task, 8, 0.1) == 2.5
    assert loss(task, 8, 0.2) is None


def test_the_hash_is_of_what_is_looked_up(tmp_path: Path) -> None:
    lines = RUNS.read_text().splitlines()
    moved, other = tmp_path / "moved.csv", tmp_path / "other.csv"
    moved.write_text("\n".join(lines[:1] + lines[:0:-1]))
    other.write_text("\n".join(lines).replace("2.545000", "2.546000"))
    assert table(moved).content_hash == table().content_hash
    assert table(other).content_hash != table().content_hash
    assert table(where={"model": "large"}).content_hash != table().content_hash


def test_a_plan_says_what_the_table_has() -> None:
    study = changed(TABLE, {"workload": GIVEN | {"file": str(RUNS)}})
    console = Console(record=True, width=200, file=io.StringIO())
    spec = study_from_mapping(study)
    print_plan(Start(spec, "", Path("reports")), require_tasks(spec), console)
    said = " ".join(console.export_text().split())
    assert "among 17 runs" in said
    assert "1 diverged" in said
    assert "peak_lr 0.001 … 0.032 (6 values)" in said
    assert "time: a few seconds, since nothing is trained" in said


@pytest.mark.parametrize(
    ("others", "content", "path", "match"),
    [
        ({}, None, "workload.file", "No such file"),
        ({"file": "runs.txt"}, None, "workload.file", "unknown kind"),
        ({}, "bs,lr\n1,2\n", "workload.validation_loss_column", "no column 'loss'; it has: bs, lr"),
        ({}, "bs,rate,loss\n1,2,3\n", "workload.columns.peak_lr", "no column 'lr'"),
        ({"train_loss_column": "t"}, "bs,lr,loss\n1,2,3\n", "workload.train_loss_column", "'t'"),
        ({"where": {"N": 1}}, "bs,lr,loss\n1,2,3\n", "workload.where.N", "no column 'N'"),
        ({"where": {"bs": 2}}, "bs,lr,loss\n1,2,3\n", "workload.where", "no such row"),
        ({}, "bs,lr,loss\n", "workload.file", "no such row"),
        ({}, "bs,lr,loss\n1,2,3\n1,x,3\n", "workload.columns.peak_lr", "row 2 has 'x'"),
        ({}, "bs,lr,loss\n1,,3\n", "workload.columns.peak_lr", "row 1 has ''"),
        ({}, "bs,lr,loss\n1,inf,3\n", "workload.columns.peak_lr", "row 1 has 'inf'"),
        ({}, "bs,lr,loss\n1,2,low\n", "workload.validation_loss_column", "row 1 has 'low'"),
    ],
)
def test_what_a_table_lacks_is_said(
    tmp_path: Path, others: dict[str, Any], content: str | None, path: str, match: str
) -> None:
    file = tmp_path / "runs.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DataError, match=match) as raised:
        table(**({"file": file, "where": {}} | others))
    assert raised.value.path == path
    assert len(str(raised.value).splitlines()) == 1
