"""Splits hold out whole texts, the same ones whatever the order or the rest of the data."""

import random
import unicodedata
from collections import Counter

import pytest

from scaling.spec.data import RareClasses, TextData
from scaling.tasks.data.rows import Row
from scaling.tasks.data.splits import split_rows
from scaling.tasks.errors import DataError

SOURCE = TextData(source="hub:any")


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


@pytest.mark.parametrize("given", [("train",), ("train", "validation"), ("train", "test")])
def test_a_rows_key_is_made_once(given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the whole text, and of classes that train would lack texts are moved."""
    raw = {name: [*rows(90, name), Row(text=f"only in {name}", label=name)] for name in given}
    made, key = [], Row.key

    def counted(row: Row) -> str:
        made.append(row)
        return key.fget(row)  # pyright: ignore[reportOptionalCall]

    monkeypatch.setattr(Row, "key", property(counted))
    split_rows(raw, SOURCE)
    assert len(made) == 91 * len(given)


def test_sizes_asked_for() -> None:
    data = TextData(source="hub:any", num_train=100, num_validation=20, num_test=30)
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
        (TextData(source="hub:any", num_train=1000), "workload.data.num_train"),
        (TextData(source="hub:any", num_validation=1000), "workload.data.num_validation"),
    ],
)
def test_asking_for_more_than_there_is(data: TextData, path: str) -> None:
    with pytest.raises(DataError, match="are there") as raised:
        split_rows({"train": rows(100)}, data)
    assert raised.value.path == path


def test_nothing_left_to_train_on() -> None:
    with pytest.raises(DataError, match="no rows are left"):
        split_rows({"train": rows(1)}, SOURCE)


def test_a_text_of_many_rows_does_not_swell_a_split() -> None:
    for number in range(8):  # whichever comes first by its hash
        often = [Row(f"answer {i}", prompt=f"same {number}") for i in range(100)]
        split = split_rows({"train": often + [Row(f"once {i}") for i in range(100)]}, SOURCE)
        assert [len(split.rows[name]) for name in ("test", "validation", "train")] == [20, 20, 160]
        assert split.notes == ()


def test_a_split_that_is_larger_than_asked_says_so() -> None:
    groups = [Row(f"{n} {i}", prompt=f"prompt {n}") for n in range(20) for i in range(30)]
    data = TextData(source="hub:any", num_validation=10, num_test=10)
    split = split_rows({"train": groups}, data)
    assert len(split.rows["test"]) == len(split.rows["validation"]) == 30
    assert "The test split has 30 rows in place of 10, since rows of one text" in split.notes[0]


def test_rows_that_share_one_prompt_cannot_be_split() -> None:
    same = [Row(f"answer {i}", prompt="Write a poem") for i in range(50)]
    with pytest.raises(DataError, match=r"all rows share one prompt.* give validation and test"):
        split_rows({"train": same}, SOURCE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Row("Two  words\n"), Row("two words")), (Row("a\u00a0b"), Row("A b")),
        (Row("Café"), Row(unicodedata.normalize("NFD", "café"))),
        (Row("a", pair="b  c"), Row("A ", pair="b c")), (Row("x", group="a\tb"), Row("a b")),
    ],
)  # fmt: skip
def test_texts_that_look_the_same_are_on_one_side(one: Row, other: Row) -> None:
    assert one.key == other.key


# --- classes ------------------------------------------------------------------------------------


def labelled(**counts: int) -> list[Row]:
    """Rows of classes with so many texts each."""
    return [Row(f"{name} {i}", label=name) for name, count in counts.items() for i in range(count)]


def labels(split: tuple[Row, ...]) -> Counter[str | None]:
    return Counter(row.label for row in split)


def test_held_out_splits_have_the_class_shares_of_the_whole() -> None:
    counts = {"a": 700, "b": 250, "c": 50}
    data = TextData(source="hub:any", num_validation=100, num_test=60, num_train=200)
    split = split_rows({"train": labelled(**counts)}, data)
    assert labels(split.rows["validation"]) == {"a": 70, "b": 25, "c": 5}
    assert labels(split.rows["test"]) == {"a": 42, "b": 15, "c": 3}
    assert labels(split.rows["train"]) == {"a": 140, "b": 50, "c": 10}
    default = split_rows({"train": labelled(**counts)}, SOURCE)
    assert labels(default.rows["train"]) == {"a": 560, "b": 200, "c": 40}


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_within_one_of_the_whole_whatever_the_counts(seed: int) -> None:
    rng = random.Random(seed)
    counts = {f"class{i}": rng.randint(1, 60) for i in range(12)}
    size = rng.randint(5, 60)
    data = TextData(source="hub:any", num_validation=size, num_test=size)
    split = split_rows({"train": labelled(**counts)}, data)
    total = sum(counts.values())
    for part in (split.rows["validation"], split.rows["test"]):
        assert len(part) == size
        for name, count in counts.items():
            assert abs(labels(part)[name] - size * count / total) <= 1
    assert labels(split.rows["train"]).keys() == counts.keys()


def test_the_order_inside_a_split_does_not_go_by_class() -> None:
    split = split_rows({"train": labelled(a=500, b=500)}, SOURCE)
    first = labels(split.rows["validation"][:50])
    assert 10 < first["a"] < 40


@pytest.mark.parametrize("count", [1, 2])
def test_a_rare_class_stays_in_train_alone(count: int) -> None:
    rows = labelled(a=60, b=60) + [Row(f"rare {i}", label="rare") for i in range(count)]
    for data in (SOURCE, TextData(source="hub:any", num_train=20, num_validation=30, num_test=30)):
        split = split_rows({"train": rows}, data)
        assert labels(split.rows["train"])["rare"] >= 1
        held = labels(split.rows["validation"]) + labels(split.rows["test"])
        assert held["rare"] <= count - 1
    dropped = split_rows({"train": rows}, SOURCE, rare="drop")
    assert all("rare" not in labels(part) for part in dropped.rows.values())
    assert "rare" in dropped.notes[0]
    with pytest.raises(DataError, match=rf"fewer texts .* \(3\): rare \({count}\)") as raised:
        split_rows({"train": rows}, SOURCE, rare="error")
    assert raised.value.path == "workload.data.rare_classes"


def test_a_class_that_a_given_split_alone_has_is_kept_dropped_or_refused() -> None:
    given = {"train": labelled(a=50, b=50), "validation": [*labelled(c=3), Row("x", label="a")]}

    def split(policy: RareClasses) -> tuple[Row, ...]:
        return split_rows(given, SOURCE, rare=policy).rows["validation"]

    assert labels(split("keep")) == {"a": 1, "c": 3}
    assert labels(split("drop")) == {"a": 1}
    with pytest.raises(DataError, match=r"the validation data have classes .* lack: c \(3\)"):
        split("error")


def test_given_splits_are_never_mixed() -> None:
    given = {
        "train": [*rows(60), Row("twice", label="0")], "validation": [Row("twice", label="0")],
        "test": [Row(f"test{i}", label="odd") for i in range(3)],
    }  # fmt: skip
    split = split_rows(given, SOURCE)
    for name, part in split.rows.items():
        assert set(part) <= set(given[name])
    assert "twice" not in keys(split.rows["train"])
    assert split.num_dropped == 1
    assert split.notes[0].startswith("1 row was left out since its text is also in another split")


def test_a_text_whose_tag_train_lacks_moves_there() -> None:
    tagged = [Row(f"word{i} end", tags=("X", f"rare{i}" if i % 7 == 0 else "Y")) for i in range(90)]
    split = split_rows({"train": tagged}, SOURCE)
    trained = {tag for row in split.rows["train"] for tag in row.tags}
    assert {tag for part in split.rows.values() for row in part for tag in row.tags} == trained
    assert sum(map(len, split.rows.values())) == 90


# --- books --------------------------------------------------------------------------------------


def lines(count: int) -> list[Row]:
    return [Row(f"line {i % 40}\n", ends_document=i == count - 1) for i in range(count)]


def test_lines_of_a_book_stay_in_order_and_each_split_is_a_part() -> None:
    book = lines(100)
    split = split_rows({"train": book}, SOURCE)
    parts = [split.rows[name] for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [80, 10, 10]
    assert [row for part in parts for row in part] == book
    assert "20 lines of the held-out data also stand in the training data" in split.notes[1]
    data = TextData(source="hub:any", num_train=30, num_validation=20)
    few = split_rows({"train": book, "test": lines(5)}, data)
    assert few.rows["train"] == tuple(book[:30])
    assert few.rows["validation"] == tuple(book[80:])
    assert few.rows["test"] == tuple(lines(5))
    with pytest.raises(DataError, match="100 lines are asked for and 90 are left"):
        split_rows({"train": book}, TextData(source="hub:any", num_validation=100))


def test_the_order_of_a_file_changes_no_split() -> None:
    rows = [Row(text="a b", text_units=("a", "b"), tags=tags) for tags in (("X", "Y"), ("Y", "X"))]
    rows += [Row(text=f"t{n}", text_units=(f"t{n}",), tags=("X",)) for n in range(30)]
    data = TextData.model_validate({"source": "hub:any"})
    there, back = (split_rows({"train": given}, data) for given in (rows, rows[::-1]))
    assert there.content_hash == back.content_hash


def test_a_book_that_is_held_out_stays_in_order() -> None:
    lines = [Row(text=f"{n:02}\n", ends_document=False) for n in range(20)]
    raw = {"train": [Row(text=f"document {n}") for n in range(20)], "validation": lines}
    rows = split_rows(raw, TextData.model_validate({"source": "hub:any"})).rows
    assert list(rows["validation"]) == lines


def test_training_rows_that_are_all_held_out_are_said() -> None:
    rows = [Row(text=f"t{n}", label="ab"[n % 2]) for n in range(20)]
    with pytest.raises(DataError, match="every training row is also in validation or test"):
        split_rows(
            {"train": rows, "validation": rows}, TextData.model_validate({"source": "hub:a"})
        )
