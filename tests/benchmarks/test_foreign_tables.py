"""Tables of other tools with planted answers: each is read rightly or refused with the way on."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from foreign_tables import outcome_of, tables
from planted_tables import Planted

ALL = tables()
QUICK = (
    "wandb, two models", "wandb, accuracy", "mlflow page, a failed run has the best loss",
    "optuna, pruned and failed", "ray progress, a row an iteration", "ray result.json lines",
    "trainer_state.json", "trainer arguments, accumulation",
    "sheet, german, points between thousands",
    "two models, steps to target", "a rate that is unstable", "a seed at its initial loss",
    "no seeds",
)  # fmt: skip


def test_there_are_enough_and_each_is_a_table_of_its_own() -> None:
    assert len({table.name for table in ALL}) == len(ALL) >= 30
    assert set(QUICK) <= {table.name for table in ALL}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_quick_ones(name: str, tmp_path: Path) -> None:
    (table,) = (table for table in ALL if table.name == name)
    assert_right(table, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("table", [t for t in ALL if t.name not in QUICK], ids=lambda t: t.name)
def test_all_others(table: Planted, tmp_path: Path) -> None:
    assert_right(table, tmp_path)


def assert_right(table: Planted, folder: Path) -> None:
    outcome, problems = outcome_of(table, folder)
    assert not problems
    assert outcome != "wrong"
