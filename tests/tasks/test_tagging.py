"""Token classification: where tags are, what is cut, what is scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Value

from scaling.spec.workloads import TokenClassification
from scaling.tasks.data.sources import _treebank
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import ExampleLosses
from scaling.tasks.token_classification import _aligned
from tests.recipes import EVALUATION, TINY_BERT, rows_of, tagging
from tests.tasks.examples import write_lines


def test_a_words_first_sub_token_carries_its_tag() -> None:
    task: Any = prepare_task(tagging(), EVALUATION)
    row = next(row for row in rows_of(tagging()).rows["train"] if len(row.tags) == 4)
    words = list(row.text_units)
    encoding = task.token_model.tokenizer.tokenizer(words, is_split_into_words=True)
    numbers = {tag: number for number, tag in enumerate(task.objective.tags)}
    tags = [numbers[tag] for tag in row.tags]
    tokens, labels = _aligned(words, tags, task.token_model.tokenizer, 64)
    assert tokens == encoding["input_ids"]
    firsts = [encoding.word_ids().index(word) for word in range(4)]
    assert [labels[place] for place in firsts] == [numbers[tag] for tag in row.tags]
    assert sum(label != -100 for label in labels) == 4


def test_a_treebank_by_hand(tmp_path: Path) -> None:
    # Multiword tokens (1-2) and empty nodes (2.1) are no words.
    web = """# text = al gato
1-2	al	_	_	_	_	_	_	_	_
1	a	a	ADP	_	_	_	_	_	_
2	el	el	DET	_	_	_	_	_	_
2.1	x	x	X	_	_	_	_	_	_
3	gato	gato	NOUN	_	_	_	_	_	_

"""
    (tmp_path / "web.conllu").write_text(web, encoding="utf-8")
    (tmp_path / "wiki.conllu").write_text("1\tya\tya\tADV\t_\n\n", encoding="utf-8")
    first, second = _treebank(tmp_path / "web.conllu")
    assert (first.text_units, first.tags) == (("a", "el", "gato"), ("ADP", "DET", "NOUN"))
    assert (second.text, second.tags) == ("ya", ("ADV",))


def test_words_look_like_words_to_a_tokenizer_that_marks_blanks(tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet()), "Ġa", "Ġb"]
    vocabulary = {name: number for number, name in enumerate(names)}
    RobertaTokenizer(vocabulary, [("Ġ", "a"), ("Ġ", "b")]).save_pretrained(tmp_path)
    rows = [{"tokens": ["a", "b", f"c{i}"], "tags": ["X", "Y", "X"]} for i in range(30)]
    data = {"files": write_lines(tmp_path / "rows.json", rows), "tokenizer": str(tmp_path)}
    workload = TokenClassification.model_validate(
        {"task": "token_classification", "model": TINY_BERT, "data": data}
    )
    task: Any = prepare_task(workload, EVALUATION)
    ids = task.collate(np.arange(1), 0)["input_ids"][0].tolist()
    assert task.token_model.tokenizer.tokenizer.convert_ids_to_tokens(ids)[1:4] == ["Ġa", "Ġb", "Ġ"]


def test_every_word_counts_once_however_long_its_sentence(tmp_path: Path) -> None:
    rows = [
        {"tokens": [f"word{i}", *"abcdefgh"[: i % 8]], "tags": ["X", *["Y"] * (i % 8)]}
        for i in range(60)
    ]
    workload = TokenClassification.model_validate(
        {
            "task": "token_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.json", rows), "max_length": 16},
        }
    )  # fmt: skip
    task: Any = prepare_task(workload, EVALUATION)
    num_words = sum(
        int(texts.sizes.num_targets.sum()) for texts in task.objective.examples.values()
    )
    assert num_words == sum(len(row["tokens"]) for row in rows)
    assert max(texts.tokens.lengths.max() for texts in task.objective.examples.values()) <= 16
    assert task.num_train > 48  # long sentences are cut into parts


def test_entities_are_scored_where_tags_are_of_entities(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["see", f"Ada{i}", "Byron", "there"], "tags": ["O", "B-PER", "I-PER", "O"]}
        for i in range(40)
    ]
    workload = TokenClassification.model_validate(
        {
            "task": "token_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.json", rows)},
        }
    )  # fmt: skip
    task: Any = prepare_task(workload, EVALUATION)
    right = tuple(tuple(task.objective._labels("validation", 4)[i]) for i in range(4))
    ones = np.ones(4)
    metrics = task.metrics(ExampleLosses(ones, ones * 4, ones * 4, right))
    assert metrics["entity_f1"] == 1
    begun = tuple((o, b, o, o) for o, b, _, _ in right)
    assert task.metrics(ExampleLosses(ones, ones * 4, ones * 3, begun))["entity_f1"] == 0


def test_an_entity_that_is_cut_between_two_parts_is_one(tmp_path: Path) -> None:
    tags = ["O", "B-PER", *["I-PER"] * 30, "O"]
    rows = [{"tokens": [f"w{i}", *["ab"] * 32], "tags": tags} for i in range(40)]
    workload = TokenClassification.model_validate(
        {
            "task": "token_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.json", rows), "max_length": 16},
        }
    )  # fmt: skip
    task: Any = replace(prepare_task(workload, EVALUATION), num_examples=7)  # pyright: ignore[reportArgumentType]
    count = task.num_evaluated("validation")
    sentences = task.objective.examples["validation"].sentences
    assert len(sentences) > count >= 3
    assert sentences[count - 1] != sentences[count]
    right = tuple(map(tuple, task.objective._labels("validation", count)))
    ones = np.ones(count)
    assert task.metrics(ExampleLosses(ones, ones, ones, right))["entity_f1"] == 1
    # The first word of a later part is missed: of each sentence's one entity only an end is right.
    later = int(np.flatnonzero(sentences == sentences[0])[1])
    outside = task.objective.tags.index("O")
    missed = tuple(
        (outside, *tags[1:]) if number == later else tags for number, tags in enumerate(right)
    )
    num_entities = len(set(sentences[:count].tolist()))
    found = task.metrics(ExampleLosses(ones, ones, ones, missed))
    assert found["entity_recall"] == (num_entities - 1) / num_entities


def test_tags_may_be_numbers_with_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, List

    features = Features(
        {"tokens": List(Value("string")), "ner": List(ClassLabel(names=["NO", "YES"]))}
    )
    rows = {"tokens": [["a", f"b{i}"] for i in range(30)], "ner": [[0, 1]] * 30}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    data = {"source": f"hub:{tmp_path}", "tags_column": "ner"}
    task: Any = prepare_task(
        TokenClassification.model_validate(
            {"task": "token_classification", "model": TINY_BERT, "data": data}
        ),
        EVALUATION,
    )
    assert task.objective.tags == ("NO", "YES")


@pytest.mark.parametrize(
    ("row", "path", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["X"]}, "tags_column", "has 1 tags for 2 words"),
        ({"tokens": "a b", "tags": ["X"]}, "tokens_column", "has str and not a list"),
    ],
)
def test_rows_that_cannot_be_tagged_are_said(
    row: dict[str, Any], path: str, message: str, tmp_path: Path
) -> None:
    data = {"files": write_lines(tmp_path / "rows.json", [row])}
    workload = TokenClassification.model_validate(
        {"task": "token_classification", "model": TINY_BERT, "data": data}
    )
    with pytest.raises(DataError, match=message) as raised:
        rows_of(workload)
    assert raised.value.path == f"workload.data.{path}"
