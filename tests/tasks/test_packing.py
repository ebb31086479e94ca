"""Texts as tokens and bytes, packed or with prompts."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.spec.workloads import CausalLm
from scaling.tasks.data.rows import Row
from scaling.tasks.data.tokenizer_choice import learnt_subwords
from scaling.tasks.data.tokens import TrainedTokenizer, UnitTokenizer
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import ExampleLosses
from tests.recipes import EVALUATION, TINY_LLAMA
from tests.tasks.examples import write_lines


def language(path: Path, texts: list[str], **others: Any) -> Any:
    data = {"files": write_lines(path, [{"text": text} for text in texts]), "max_length": 16}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, **others}
    return prepare_task(CausalLm.model_validate(workload), EVALUATION)


def test_packed_examples_have_no_padding_and_each_token_counts_once(tmp_path: Path) -> None:
    texts = [f"text {i} " + "x" * (i % 11) for i in range(60)]
    task = language(tmp_path / "rows.json", texts, packing=True)
    num_targets = 0
    for sequences in task.objective.examples.values():
        assert set(sequences.tokens.lengths) == {16}
        assert set(sequences.sizes.num_targets) == {15}
        num_targets += int(sequences.sizes.num_targets.sum())
    batch = task.collate(np.arange(task.num_train), 0)
    assert (batch["labels"] != -100).all()
    num_tokens = sum(len(text) + 1 for text in texts)
    # Of each split: its first token, and at most 14 that fill no window.
    assert num_tokens - 3 * 15 <= num_targets <= num_tokens - 3
    unpacked = language(tmp_path / "rows.json", texts)
    assert len(set(unpacked.objective.examples["train"].tokens.lengths)) > 1


def test_packing_keeps_a_book_in_its_order(tmp_path: Path) -> None:
    lines = [f"Line {i}." if i % 5 else "" for i in range(300)]
    (tmp_path / "book.txt").write_text("\n".join(lines), encoding="utf-8")
    data = {"files": {"train": str(tmp_path / "book.txt")}, "max_length": 32}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, "packing": True}
    task: Any = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    names = list(task.token_model.tokenizer.ids)

    def text(split: str) -> str:
        tokens = task.objective.examples[split].tokens
        rows = [tokens.flat[s : s + n] for s, n in zip(tokens.starts, tokens.lengths, strict=True)]
        return "".join(names[i] for i in [*rows[0], *(i for row in rows[1:] for i in row[1:])])

    for split, first, last in (("train", 0, 240), ("validation", 240, 270), ("test", 270, 300)):
        whole = "\n".join(lines[first:last]) + ("\n" if last < 300 else "<end>")
        assert whole.startswith(text(split))
        assert len(whole) - len(text(split)) < 31 + len("<end>")  # what fills no window


def marks_blanks(folder: Path) -> str:
    """A tokenizer of bytes, as GPT-2's, that knows a few words with a blank before them."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Tokenizer

    merges = [("t", "o"), ("Ġ", "to"), ("to", "to"), ("Ġ", "t")]
    names = ["<|endoftext|>", *sorted(ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    GPT2Tokenizer({name: i for i, name in enumerate(names)}, merges).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("prompt", "answer", "read", "written"),
    [
        ("to", "to", ["to"], ["Ġto"]), ("to ", "to", ["to"], ["Ġto"]),
        ("to", " to", ["to"], ["Ġto"]), ("to\n", "to", ["to", "Ċ"], ["to"]),
        ("to", "é", ["to", "Ġ"], ["Ã", "©"]), ("t  ", "to", ["t", "Ġ"], ["Ġto"]),
    ],
)  # fmt: skip
def test_prompt_and_answer_never_run_into_one_word(
    prompt: str, answer: str, read: list[str], written: list[str], tmp_path: Path
) -> None:
    tokenizer = TrainedTokenizer.load(marks_blanks(tmp_path), "workload.data.tokenizer")
    row = Row(answer, prompt=prompt)
    of = tokenizer.tokenizer.convert_ids_to_tokens
    [joined_row] = tokenizer.joined([row])
    prompt_ids, text_ids = joined_row.prompt, joined_row.text
    assert (of(prompt_ids), of(text_ids)) == (read, written)
    joined = tokenizer.tokenizer.decode([*prompt_ids, *text_ids])
    assert joined.split() == [*prompt.split(), *answer.split()]
    sizes = joined_row.num_bytes
    assert len(sizes) == len(text_ids)
    assert sum(sizes) == len(answer.encode())
    assert next(tokenizer.joined([Row("to")])).text == tokenizer.tokenizer("to")["input_ids"]


def test_only_the_answer_counts_under_a_trained_tokenizer(tmp_path: Path) -> None:
    rows = [{"q": f"to {i}", "a": "to"} for i in range(40)]
    data = {"files": write_lines(tmp_path / "rows.json", rows), "tokenizer": marks_blanks(tmp_path)}
    data |= {"prompt_column": "q", "answer_column": "a"}
    workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data}
    task: Any = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    batch = task.collate(np.arange(8), 0)
    of = task.token_model.tokenizer.tokenizer.convert_ids_to_tokens
    for labels in batch["labels"]:
        assert of(labels[labels != -100].tolist()) == ["Ġto", "<|endoftext|>"]


def test_bits_per_byte_by_hand(tmp_path: Path) -> None:
    task = language(tmp_path / "rows.json", [f"é{i:02d}" for i in range(40)])
    sequences = task.objective.examples["validation"]
    # é is read first; two digits of one byte each are predicted, and the end.
    assert set(sequences.num_bytes) == {2}
    assert set(sequences.sizes.num_targets) == {3}
    two = np.full(4, 2 * math.log(2))
    metrics = task.metrics(ExampleLosses(two, np.full(4, 3.0), np.zeros(4)))
    assert metrics["bits_per_byte"] == pytest.approx(1.0)
    assert metrics["perplexity"] == pytest.approx(2 ** (2 / 3))


def test_bytes_of_tokens_add_up_to_the_text() -> None:
    rows = [Row("naïve  café, twice "), Row("plain")]
    for tokenizer in (UnitTokenizer.of(rows), learnt_subwords(rows, 40)):
        for row in rows:
            [joined] = tokenizer.joined([row])
            sizes = joined.num_bytes
            assert len(sizes) == len(joined.text)
            assert sum(sizes) == len(row.text.encode())
    phones = Row("K AE T", prompt="cat", text_units=("K", "AE", "T"))
    tokenizer = UnitTokenizer.of([phones])
    [joined] = tokenizer.joined([phones])
    assert joined.num_bytes == [1, 3, 2]
    assert tokenizer.written([*joined.text, tokenizer.end_id, 5]) == "K AE T"


def test_learnt_subwords_keep_their_vocabulary() -> None:
    rows = [Row(f"some words {i} and their wording") for i in range(50)]
    first, second = (learnt_subwords(rows, 60).tokenizer.get_vocab() for _ in range(2))
    assert first == second
    assert len(first) == 60
    single = learnt_subwords(rows, 0).tokenizer.get_vocab()
    assert all(len(name) == 1 or name.startswith("<") for name in single)
