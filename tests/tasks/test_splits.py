"""Splits hold out whole texts, the same ones whatever the order or the rest of the data."""

import random

import pytest

from scaling.spec import DataSpec
from scaling.tasks.sources import DataError, Row
from scaling.tasks.splits import split_rows

SOURCE = DataSpec(source="hub:any")


def rows(count: int, prefix: str = "word") -> list[Row]:
    return [Row(text=f"{prefix}{number}", label=str(number % 3)) for number in range(count)]


def keys(split: tuple[Row, ...]) -> set[str]:
    return {row.key for row in split}


def test_no_text_is_on_two_sides_though_it_has_several_rows() -> None:
    # Every text twice, with another label and another spelling of its case.
    twice = rows(200) + [Row(text=row.text.upper() + " ", label="x") for row in rows(200)]
    split = split_rows({"train": twice}, SOURCE)
    train, validation, test = (keys(split.rows[name]) for name in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train | validation | test) == 200
    assert sum(len(part) for part in split.rows.values()) == 400
    assert split.num_dropped == 0


def test_a_split_depends_on_texts_and_not_on_their_order() -> None:
    shuffled = rows(300)
    random.Random(1).shuffle(shuffled)
    assert split_rows({"train": rows(300)}, SOURCE) == split_rows({"train": shuffled}, SOURCE)


def test_sizes_asked_for() -> None:
    data = DataSpec(source="hub:any", num_train=100, num_validation=20, num_test=30)
    split = split_rows({"train": rows(300)}, data)
    assert {name: len(part) for name, part in split.rows.items()} == {
        "train": 100, "validation": 20, "test": 30,
    }  # fmt: skip


def test_given_splits_lose_what_overlaps_and_it_is_counted() -> None:
    given = {"train": rows(50), "validation": rows(10), "test": rows(5)}
    split = split_rows(given, SOURCE)
    assert len(split.rows["test"]) == 5
    assert len(split.rows["validation"]) == 5
    assert len(split.rows["train"]) == 40
    assert split.num_dropped == 5 + 10


def test_content_hash_changes_with_content_alone() -> None:
    one, same = (
        split_rows({"train": rows(50)}, SOURCE),
        split_rows({"train": rows(50)[::-1]}, SOURCE),
    )
    other = split_rows({"train": rows(49)}, SOURCE)
    assert one.content_hash == same.content_hash
    assert one.content_hash != other.content_hash


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (DataSpec(source="hub:any", num_train=1000), "workload.data.num_train"),
        (DataSpec(source="hub:any", num_validation=1000), "workload.data.num_validation"),
    ],
)
def test_asking_for_more_than_there_is(data: DataSpec, path: str) -> None:
    with pytest.raises(DataError, match="are there") as raised:
        split_rows({"train": rows(100)}, data)
    assert raised.value.path == path


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(DataError, match="no rows are left"):
        split_rows({"train": rows(1)}, SOURCE)
