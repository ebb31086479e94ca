"""Text classification with pairs, any number of classes, or a number: rows, losses, metrics."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scaling.spec.workloads import TextClassification
from scaling.tasks.baselines import describe_baseline
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.scores import multi_label_f1, regression_scores
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainable import require_trainable
from scaling.training.evaluation import evaluate
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, TINY_BERT, TINY_LLAMA, rows_of
from tests.tasks.examples import CPU, write_lines

LETTERS = "abcdefgh"


def workload(files: dict[str, str], kind: str, model: Any = TINY_BERT, **data: Any) -> Any:
    given = {"task": "text_classification", "model": model, "problem_type": kind}
    return TextClassification.model_validate({**given, "data": {"files": files, **data}})


def rows(num_rows: int = 80) -> list[dict[str, Any]]:
    """Texts of letters; the classes are those of a, b and c that occur, the number counts a."""
    found: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for _ in range(num_rows):
        letters = rng.choice(list(LETTERS), size=int(rng.integers(3, 14))).tolist()
        text, second = " ".join(letters), " ".join(reversed(letters[:4]))
        labels = sorted(set(letters) & set("abc"))
        found.append(
            {"text": text, "second": second, "labels": labels, "count": letters.count("a"),
             "label": "yes" if letters.count("a") else "no"}
        )  # fmt: skip
    return found


KINDS: dict[str, dict[str, Any]] = {
    "pair": {"kind": "single_label_classification", "text_pair_column": "second"},
    "pair of subwords": {
        "kind": "single_label_classification", "text_pair_column": "second",
        "tokenizer": "subwords", "vocab_size": 60,
    },
    "classes": {"kind": "multi_label_classification", "label_column": "labels"},
    "number": {"kind": "regression", "label_column": "count"},
    "number of a pair": {
        "kind": "regression", "label_column": "count", "text_pair_column": "second",
        "model": TINY_LLAMA,
    },
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


def prepared(tmp_path: Path, kind: str, **data: Any) -> TextTask:
    files = write_lines(tmp_path / "rows.jsonl", rows())
    task = prepare_task(workload(files, **{**KINDS[kind], **data}), EVALUATION)
    assert isinstance(task, TextTask)
    return task


@every_kind
def test_the_loss_is_a_sum_however_the_batch_is_cut(kind: str, tmp_path: Path) -> None:
    task = prepared(tmp_path, kind)
    model = task.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        whole = float(task.loss_sum(model, task.collate(numbers, 0)))
        for cut in (np.split(numbers, [4]), np.split(numbers[::-1], 9)):
            parts = [float(task.loss_sum(model, task.collate(part, 0))) for part in cut]
            assert whole == pytest.approx(sum(parts), rel=1e-7)
        losses = task.example_losses(model, "train", slice(0, 9), CPU)
    assert whole == pytest.approx(losses.loss_sums.sum(), rel=1e-7)
    assert task.num_targets(numbers) == losses.num_targets.sum() == 9


@every_kind
def test_a_model_that_reads_them_may_be_trained(kind: str, tmp_path: Path) -> None:
    task = prepared(tmp_path, kind, max_length=16)
    require_trainable(task, 0)
    losses = evaluate(task, task.new_model(0), ("validation",), Workers(), precision="fp32")
    found = task.metrics(losses["validation"])
    assert found.keys() == task.described_metrics.keys()
    assert all(math.isfinite(value) for value in found.values())
    assert {metric.direction for metric in task.described_metrics.values()} <= {
        "maximize", "minimize",
    }  # fmt: skip


class Fixed(nn.Module):
    """Logits that were written down."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits, dtype=torch.float64)

    def forward(self, **inputs: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.logits})


def test_the_loss_of_several_classes_by_hand(tmp_path: Path) -> None:
    objective = prepared(tmp_path, "classes").objective
    batch = {
        "input_ids": torch.zeros(2, 1, dtype=torch.int64),
        "targets": torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]),
    }
    # A sigmoid of log 3 is 3/4, of 0 is 1/2, of -log 3 is 1/4.
    model = Fixed([[math.log(3), 0.0, -math.log(3)], [-math.log(3), math.log(3), 0.0]])
    first = -math.log(3 / 4) - math.log(1 / 2) - math.log(3 / 4)
    second = -math.log(1 / 4) - math.log(3 / 4) - math.log(1 / 2)
    losses = objective.evaluate(model, batch)
    assert losses.loss_sums.tolist() == pytest.approx([first, second])
    assert losses.num_correct.tolist() == [True, False]
    assert losses.predictions == [(1, 0, 0), (0, 1, 0)]
    summed = objective.loss_sum(model, batch, label_smoothing=0.0)
    assert float(summed) == pytest.approx(first + second)
    # Smoothed by 0.2, a class that is there counts as one of 0.9.
    alone = {"input_ids": batch["input_ids"][:1], "targets": torch.tensor([[1.0]])}
    smoothed = objective.loss_sum(Fixed([[math.log(3)]]), alone, label_smoothing=0.2)
    assert float(smoothed) == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_scores_of_several_classes_by_hand() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    predicted = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    # Hits 2 of 3 labels and 3 predictions; by class 1 of (2, 1), 1 of (1, 2), none of none.
    expected = {"micro_f1": 4 / 6, "macro_f1": (2 / 3 + 2 / 3 + 0) / 3}
    assert multi_label_f1(labels, predicted) == pytest.approx(expected)
    nothing = np.zeros((2, 3), dtype=bool)
    assert multi_label_f1(nothing, nothing) == {"micro_f1": 0.0, "macro_f1": 0.0}


def test_the_loss_and_the_scores_of_a_number_by_hand(tmp_path: Path) -> None:
    objective = prepared(tmp_path, "number").objective
    batch = {
        "input_ids": torch.zeros(3, 1, dtype=torch.int64),
        "targets": torch.tensor([1.0, 2, 4]),
    }
    model = Fixed([[0.5], [2.0], [1.0]])
    losses = objective.evaluate(model, batch)
    assert losses.loss_sums.tolist() == pytest.approx([0.25, 0.0, 9.0])
    assert losses.predictions == [0.5, 2.0, 1.0]
    assert float(objective.loss_sum(model, batch, label_smoothing=0.0)) == pytest.approx(9.25)
    found = regression_scores(np.array([1.0, 2, 4]), np.array([0.5, 2.0, 1.0]))
    # Deviations from the means 7/3 and 7/6: (-4, -1, 5)/3 and (-4, 5, -1)/6.
    pearson = (16 - 5 - 5) / math.sqrt(42 * 42)
    assert found == pytest.approx(
        {"rmse": math.sqrt(9.25 / 3), "pearson": pearson, "spearman": 0.5}
    )
    constant = regression_scores(np.array([1.0, 2, 4]), np.full(3, 2.0))
    assert (constant["pearson"], constant["spearman"]) == (0.0, 0.0)


def test_baselines_guess_by_the_training_texts_alone(tmp_path: Path) -> None:
    task = prepared(tmp_path, "number")
    examples: Any = task.objective.examples
    mean = examples["train"].labels.astype(float).mean()
    described = describe_baseline(task)
    assert described["baseline_validation_loss"] == pytest.approx(
        np.square(examples["validation"].labels - mean).mean()
    )
    assert "baseline_accuracy" not in described
    assert "Losses are squared errors" in task.data_summary.in_report[0]
    task = prepared(tmp_path, "classes")
    examples = task.objective.examples
    count, there = len(examples["train"].labels), examples["train"].labels.sum(0)
    shares = (there + 1) / (count + 2)
    labels = examples["validation"].labels
    nats = -(labels * np.log(shares) + (1 - labels) * np.log(1 - shares)).sum(1)
    assert describe_baseline(task)["baseline_validation_loss"] == pytest.approx(nats.mean())


def test_the_forms_of_several_classes_are_one(tmp_path: Path) -> None:
    kind = "multi_label_classification"
    listed = rows_of(workload(write_lines(tmp_path / "list.jsonl", rows()), kind,
                              label_column="labels"))  # fmt: skip
    cut = "".join(f"{row['text']},{'|'.join(row['labels'])}\n" for row in rows())
    (tmp_path / "cut.csv").write_text(f"text,labels\n{cut}", encoding="utf-8")
    files = {"train": str(tmp_path / "cut.csv")}
    assert rows_of(workload(files, kind, label_column="labels", label_separator="|")) == listed
    marks = "".join(
        ",".join([row["text"], *(str(int(c in row["labels"])) for c in "abc")]) + "\n"
        for row in rows()
    )
    (tmp_path / "marks.csv").write_text(f"text,a,b,c\n{marks}", encoding="utf-8")
    files = {"train": str(tmp_path / "marks.csv")}
    assert rows_of(workload(files, kind, label_columns=["a", "b", "c"])) == listed
    numbers = [{**row, "labels": ["abc".index(c) for c in row["labels"]]} for row in rows()]
    files = write_lines(tmp_path / "numbers.jsonl", numbers)
    assert rows_of(workload(files, kind, label_column="labels", label_names=list("abc"))) == listed


def test_both_texts_of_a_pair_are_read_and_told_apart(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    vocabulary = {name: n for n, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])}
    BertTokenizer(vocabulary).save_pretrained(tmp_path / "bert")
    task = prepared(tmp_path, "pair", max_length=12, tokenizer=str(tmp_path / "bert"))
    require_trainable(task, 0)
    batch = task.collate(np.arange(4), 0)
    assert batch["input_ids"].shape[1] <= 12
    for ids, types in zip(
        batch["input_ids"].tolist(), batch["token_type_ids"].tolist(), strict=True
    ):
        first, last = (place for place, number in enumerate(ids) if number == vocabulary["[SEP]"])
        assert types[: last + 1] == [0] * (first + 1) + [1] * (last - first)
    model = task.new_model(0).eval()
    with torch.no_grad():
        told, untold = (
            task.loss_sum(model, {k: v for k, v in batch.items() if k != left_out})
            for left_out in ("", "token_type_ids")
        )
    assert float(told) != float(untold)


def test_the_longer_text_of_a_pair_is_cut_first(tmp_path: Path) -> None:
    long = [{"text": "a" * 20 + str(i), "second": "bc", "label": "xy"[i % 2]} for i in range(40)]
    files = write_lines(tmp_path / "rows.jsonl", long)
    pairs = {"text_pair_column": "second", "max_length": 10}
    task: Any = prepare_task(workload(files, "single_label_classification", **pairs), EVALUATION)
    ids = task.token_model.tokenizer.ids
    found = task.collate(np.arange(1), 0)["input_ids"][0].tolist()
    assert found == [ids["<sep>"], *[ids["a"]] * 6, ids["<sep>"], ids["b"], ids["c"]]
    assert task.data_summary.splits[0].num_truncated == task.num_train


def test_a_pair_is_one_input(tmp_path: Path) -> None:
    """Texts with the same first and another second one may be on two sides; equal pairs may not."""
    both = [{"text": "same", "second": f"s{i}", "label": "xy"[i % 2]} for i in range(40)]
    files = write_lines(tmp_path / "rows.jsonl", both)
    files |= {"validation": write_lines(tmp_path / "more.jsonl", both[:10])["train"]}
    task: Any = prepare_task(
        workload(files, "single_label_classification", text_pair_column="second"), EVALUATION
    )
    assert task.num_evaluated("validation") + task.num_dropped >= 10
    keys = [{row.key for row in rows} for rows in _splits_of(task)]
    assert not keys[0] & keys[1]


def _splits_of(task: TextTask) -> list[list[Any]]:
    from scaling.tasks.data.splits import read_splits
    from scaling.tasks.text_classification import row_format

    spec: Any = task.token_model.data
    given = {"task": "text_classification", "model": TINY_BERT, "data": spec.model_dump()}
    split = read_splits(spec, row_format(TextClassification.model_validate(given)))
    return [list(split.rows[name]) for name in ("train", "validation")]


@pytest.mark.parametrize(
    ("kind", "row", "data", "message"),
    [
        ("regression", {"label": "much"}, {}, "has 'much' in column 'label'; allowed: a finite nu"),
        ("regression", {"label": True}, {}, "has True in column 'label'; allowed: a finite number"),
        ("regression", {"label": "nan"}, {}, "has 'nan' in column 'label'; allowed: a finite"),
        ("regression", {"label": [1]}, {}, "has list in column 'label'; allowed: a finite number"),
        ("multi_label_classification", {"label": "a|b"}, {}, "has str in column 'label'; allowed"),
        ("multi_label_classification", {"label": [["a"]]}, {}, "has list in place 1 of column"),
        ("multi_label_classification", {"label": [7]}, {"label_names": ["a", "b"]}, "has 7 in pla"),
        ("multi_label_classification", {"a": "yes", "b": 0}, {"label_columns": ["a", "b"]},
         "has 'yes' in column 'a'; allowed: 0 or 1"),
        ("single_label_classification", {"label": "x", "second": ["t"]},
         {"text_pair_column": "second"}, "has list in column 'second'"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit(
    kind: str, row: dict[str, Any], data: dict[str, Any], message: str, tmp_path: Path
) -> None:
    files = write_lines(tmp_path / "rows.jsonl", [{"text": "t", **row}])
    with pytest.raises(DataError, match="row 1 of the train data ") as raised:
        rows_of(workload(files, kind, **data))
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("regression", {"label": 1.5}, "all training texts have the same number"),
        (
            "multi_label_classification",
            {"label": ["a"]},
            "all training texts have the same classes",
        ),
    ],
)
def test_nothing_to_learn(kind: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    same = [{"text": f"text {i}", **row} for i in range(40)]
    files = write_lines(tmp_path / "rows.jsonl", same)
    with pytest.raises(DataError, match=message):
        prepare_task(workload(files, kind), EVALUATION)


def test_other_numbers_and_other_second_texts_are_other_data(tmp_path: Path) -> None:
    for kind, column in (("number", "count"), ("pair", "second")):
        known = prepared(tmp_path, kind).content_hash
        changed = rows()
        changed[3] = {**changed[3], column: 9 if column == "count" else "another"}
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, changed)), encoding="utf-8")
        files = {"train": str(tmp_path / "rows.jsonl")}
        now = prepare_task(workload(files, **KINDS[kind]), EVALUATION).content_hash
        assert now != known


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        ("regression", {"label_names": ["a", "b"]}, "data.label_names"),
        ("regression", {"rare_classes": "drop"}, "data.rare_classes"),
        ("single_label_classification", {"label_columns": ["a", "b"]}, "data.label_columns"),
        ("multi_label_classification", {"label_columns": ["a", "b"], "label_separator": "|"},
         "data.label_separator"),
        ("multi_label_classification", {"label_columns": ["a", "b"], "label_column": "c"},
         "data.label_column"),
    ],
)  # fmt: skip
def test_fields_of_another_kind_of_label(kind: str, data: dict[str, Any], field: str) -> None:
    (issue,) = workload({"train": "rows.jsonl"}, kind, **data).issues()
    assert issue.path == f"workload.{field}"


def test_a_number_has_no_labels_to_smooth() -> None:
    files = {"train": "rows.jsonl"}
    assert workload(files, "regression").why_no_label_smoothing == "regression has no classes"
    assert workload(files, "multi_label_classification").why_no_label_smoothing is None
