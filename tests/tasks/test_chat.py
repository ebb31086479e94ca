"""Chats: how a template joins their turns, and that the assistant's words alone are predicted."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.workloads import CausalLm
from scaling.tasks.data.rows import Row, Turn
from scaling.tasks.data.tokens import TrainedTokenizer, UnitTokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainable import require_trainable
from tests.recipes import EVALUATION, TINY_LLAMA, rows_of
from tests.tasks.examples import CPU, write_lines

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
TURNS = tuple(
    Turn(*said)
    for said in (("user", "hi"), ("assistant", "yo é"), ("user", "b"), ("assistant", "c"))
)
CALLING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}
WITH_TOOLS = [
    {"role": "user", "content": "1 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "x", "function": CALL}]},
    {"role": "tool", "tool_call_id": "x", "content": "3"},
    {"role": "assistant", "content": "It is 3."},
]
SHARE_GPT = [
    {"from": "human", "value": "1 + 2?"},
    {"from": "function_call", "value": json.dumps(CALL)},
    {"from": "observation", "value": "3"},
    {"from": "gpt", "value": "It is 3."},
]


def said(*turns: Any) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content, *_ in turns]


def chats(num_rows: int = 40) -> list[dict[str, Any]]:
    """Rows with two turns of the assistant, of which the first may be empty."""
    first = ("system", "be kind")
    last = ("user", "more"), ("assistant", "no")
    return [
        {"messages": said(first, ("user", f"say {n}"), ("assistant", f"{n}!" * (n % 4)), *last)}
        for n in range(10, num_rows + 10)
    ]


def workload(files: dict[str, str], **others: Any) -> CausalLm:
    data = {"files": files, "messages_column": "messages", **others.pop("data", {})}
    given = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, **others}
    return CausalLm.model_validate(given)


def prepared(tmp_path: Path, **data: Any) -> TextTask:
    files = write_lines(tmp_path / "chats.jsonl", chats())
    task = prepare_task(workload(files, data=data), EVALUATION)
    assert isinstance(task, TextTask)
    return task


def byte_tokenizer(template: str | None) -> TrainedTokenizer:
    """A token for each byte, and the marks of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({name: n for n, name in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    tokenizer.chat_template = template
    return TrainedTokenizer(tokenizer)


def counted(tokenizer: TrainedTokenizer, turns: Any = TURNS) -> str:
    """What of a chat counts, a bar between its parts."""
    chat = tokenizer.chat(Row(text="", turns=turns))
    parts, before = [], 0
    for token, counts in zip(chat.ids, chat.counts, strict=True):
        parts.append([token] if counts and not before else [])
        if counts and before:
            parts = [*parts[:-2], [*parts[-2], token]]
        before = counts
    return "|".join(tokenizer.tokenizer.decode(part) for part in parts if part)


@pytest.mark.parametrize("template", [CHATML, MARKED, None])
def test_the_assistants_words_and_ends_alone_count(template: str | None) -> None:
    assert counted(byte_tokenizer(template)) == "yo é<|im_end|>|c<|im_end|>"


def test_a_chat_is_what_its_template_writes() -> None:
    tokenizer = byte_tokenizer(CHATML)
    chat = tokenizer.chat(Row(text="", turns=TURNS))
    ids = tokenizer.tokenizer.apply_chat_template(said(*TURNS), return_dict=False)
    assert chat.ids == ids
    assert sum(chat.num_bytes) == len("yo éc".encode())  # ends have none
    plain = byte_tokenizer(None)
    text = plain.tokenizer.decode(plain.chat(Row(text="", turns=TURNS)).ids)
    assert text == "user: hi\nassistant: yo é<|im_end|>\nuser: b\nassistant: c<|im_end|>\n"


def test_the_mask_is_that_of_transformers_where_a_template_marks_turns() -> None:
    tokenizer = byte_tokenizer(MARKED)
    theirs = tokenizer.tokenizer.apply_chat_template(
        said(*TURNS), return_dict=True, return_assistant_tokens_mask=True
    )
    chat = tokenizer.chat(Row(text="", turns=TURNS))
    assert chat.ids == theirs["input_ids"]
    assert chat.counts == theirs["assistant_masks"]


def test_a_template_that_writes_turns_anew_is_refused() -> None:
    last_alone = "{% for m in messages %}{{ m.content if loop.last else 'x' }}{% endfor %}"
    with pytest.raises(DataError, match="writes a turn otherwise once others follow"):
        counted(byte_tokenizer(last_alone))
    refusing = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"refuses the chat that begins with 'hi': .*alternate"):
        counted(byte_tokenizer(refusing))


def turns_of(messages: Any, tmp_path: Path) -> tuple[Turn, ...]:
    others = [{"chat": said(("user", f"{n}"), ("assistant", "a"))} for n in range(9)]
    files = write_lines(tmp_path / "chat.jsonl", [{"chat": messages}, *others])
    split = rows_of(workload(files, data={"messages_column": "chat"}))
    (row,) = [row for rows in split.rows.values() for row in rows if len(row.turns) > 2]
    return row.turns


def test_calls_of_tools_are_the_assistants_to_write(tmp_path: Path) -> None:
    turns = turns_of(WITH_TOOLS, tmp_path)
    tokenizer = byte_tokenizer(CALLING)
    call = json.dumps(CALL)
    assert counted(tokenizer, turns) == f"<call>{call}</call><|im_end|>|It is 3.<|im_end|>"
    given = [dict(WITH_TOOLS[0]), {**WITH_TOOLS[1], "content": ""}, *WITH_TOOLS[2:]]
    theirs = tokenizer.tokenizer.apply_chat_template(given, return_dict=False)
    assert tokenizer.chat(Row(text="", turns=turns)).ids == theirs
    as_text = json.loads(json.dumps(WITH_TOOLS))
    as_text[1]["tool_calls"][0]["function"]["arguments"] = '{"a": 1, "b": 2}'
    assert turns_of(as_text, tmp_path) == turns


def test_share_gpt_is_read_as_the_same_chat(tmp_path: Path) -> None:
    plain = [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "yo"},
        {"from": "human", "value": "b"},
    ]
    assert turns_of(plain, tmp_path) == (
        Turn("user", "hi"),
        Turn("assistant", "yo"),
        Turn("user", "b"),
    )
    tokenizer = byte_tokenizer(CALLING)
    mine, theirs = (
        tokenizer.chat(Row(text="", turns=turns_of(chat, tmp_path)))
        for chat in (SHARE_GPT, WITH_TOOLS)
    )
    assert mine == theirs


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (CHATML, "leaves out the tool_calls of the chat that begins with '1"),
        (None, "has no chat template"),
    ],
)
def test_calls_that_a_template_does_not_write_are_refused(
    template: str | None, message: str, tmp_path: Path
) -> None:
    turns = turns_of(WITH_TOOLS, tmp_path)
    with pytest.raises(DataError, match=message):
        byte_tokenizer(template).chat(Row(text="", turns=turns))
    with pytest.raises(DataError, match="has no chat template"):
        UnitTokenizer.of([Row(text="1 + 2?", turns=turns)]).chat(Row(text="", turns=turns))


def test_characters_have_lines_and_ends() -> None:
    row = Row(text="user: hi\nassistant: yo\n", turns=(Turn("user", "hi"), Turn("assistant", "yo")))
    tokenizer = UnitTokenizer.of([row])
    chat = tokenizer.chat(row)
    names = list(tokenizer.ids)
    assert [names[number] for number in chat.ids] == [*"user: hi\nassistant: yo", "<end>", "\n"]
    assert [names[n] for n, c in zip(chat.ids, chat.counts, strict=True) if c] == [
        "y",
        "o",
        "<end>",
    ]
    assert sum(chat.num_bytes) == 2


def test_the_loss_by_hand_is_of_the_assistants_tokens(tmp_path: Path) -> None:
    task = prepared(tmp_path)
    model: Any = task.new_model(0).double().eval()
    row = task.objective.examples["train"]
    batch = task.collate(np.arange(1), 0)
    start, length = int(row.tokens.starts[0]), int(row.tokens.lengths[0])  # type: ignore[attr-defined]
    ids = torch.tensor(row.tokens.flat[start : start + length])  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = model(ids[None]).logits[0].log_softmax(-1)
    expected, previous = 0.0, ""
    names = list(task.token_model.tokenizer.ids)  # type: ignore[union-attr]
    text = [names[int(number)] for number in ids]
    inside = False
    for place in range(1, len(ids)):
        previous = "".join(text[:place])
        inside = (inside or previous.endswith("assistant: ")) and text[place - 1] != "<end>"
        if inside:
            expected -= float(logits[place - 1, ids[place]])
    with torch.no_grad():
        assert float(task.loss_sum(model, batch)) == pytest.approx(expected, rel=1e-9)


def test_the_loss_is_a_sum_however_the_batch_is_cut(tmp_path: Path) -> None:
    task = prepared(tmp_path, max_length=44)
    require_trainable(task, 0)
    model = task.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        whole = float(task.loss_sum(model, task.collate(numbers, 0)))
        alone = [float(task.loss_sum(model, task.collate(numbers[i : i + 1], 0))) for i in numbers]
        losses = task.example_losses(model, "train", slice(0, 9), CPU)
    assert whole == pytest.approx(sum(alone), rel=1e-12)
    assert whole == pytest.approx(losses.loss_sums.sum(), rel=1e-12)
    targets = int((task.collate(numbers, 0)["labels"] != -100).sum())
    assert task.num_targets(numbers) == losses.num_targets.sum() == targets


def test_chats_are_cut_and_what_has_no_word_left_is_said(tmp_path: Path) -> None:
    task = prepared(tmp_path, max_length=44)
    summary = task.data_summary
    assert summary.splits[0].tokens_max == 44
    assert all(split.num_truncated == split.num_rows for split in summary.splits)
    long = [{"messages": said(("user", "x" * 80), ("assistant", "y"))}] * 3
    files = write_lines(tmp_path / "long.jsonl", [*chats(), *long])
    summary = prepare_task(workload(files, data={"max_length": 60}), EVALUATION).data_summary
    assert summary is not None
    said_of_them = "3 chats of the .* data have no word of the assistant within max_length 60"
    assert re.search(said_of_them, " ".join(summary.notes))


def test_chats_that_begin_alike_are_on_one_side(tmp_path: Path) -> None:
    same = [{"messages": said(("user", f"q{n % 10}"), ("assistant", f"a{n}"))} for n in range(60)]
    read = rows_of(workload(write_lines(tmp_path / "same.jsonl", same)))
    assert len({row.key for row in read.rows["train"]}) == 10


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "has str in column 'messages'; allowed: a list of mappings"),
        (["hello"], "has list in column 'messages'; allowed: a list of mappings"),
        (said(("bot", "x")), "has role 'bot' in message 1; allowed: system"),
        (said(("user", "x")), "has no message with role assistant"),
        ([{"role": "user", "content": None}], "has null in message 1 of column 'messages'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "has list in message 1 of column"),
        ([{"role": "assistant", "tool_calls": [{}]}], "has a tool call in message 1 that is none"),
        *(
            ([{"role": "assistant", "tool_calls": [CALL | {"arguments": arguments}]}],
             "has a tool call in message 1 that is none")
            for arguments in ("[1, 2]", "[]", '[{"a": 1}]', [], "1", '"a"', "{a: 1}")
        ),
        ([{"role": "user", "content": "", "tool_calls": [CALL]}], "in message 1, of role 'user'"),
        ([{"from": "bot", "value": "x"}], "has from 'bot' in message 1; allowed: system"),
        ([{"from": "function_call", "value": "add(1)"}], "has a tool call in message 1"),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_refused(messages: Any, message: str, tmp_path: Path) -> None:
    files = write_lines(tmp_path / "chats.jsonl", [*chats(2), {"messages": messages}])
    with pytest.raises(DataError, match="row 3 of the train data ") as raised:
        rows_of(workload(files))
    assert message in str(raised.value)
    assert raised.value.path == "workload.data.messages_column"


def test_fields_that_chats_exclude(tmp_path: Path) -> None:
    files = {"train": str(tmp_path / "x.jsonl")}
    issues = list(workload(files, packing=True, generation={}).issues())
    assert [issue.path for issue in issues] == ["workload.packing", "workload.generation"]
    with pytest.raises(ValueError, match="give messages_column, or prompt_column"):
        workload(files, data={"prompt_column": "p", "answer_column": "a"})


def test_another_word_is_other_data(tmp_path: Path) -> None:
    known = prepared(tmp_path).content_hash
    rows = chats()
    rows[3]["messages"][0]["role"] = "developer"
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = {"train": str(tmp_path / "chats.jsonl")}
    assert prepare_task(workload(files), EVALUATION).content_hash != known


def test_a_greeting_makes_no_group(tmp_path: Path) -> None:
    greeting = ("system", "be kind"), ("assistant", "How can I help?")
    rows = [
        {"messages": said(*greeting, ("user", f"ask {n % 20}"), ("assistant", f"say {n}"))}
        for n in range(40)
    ]
    asked = rows_of(workload(write_lines(tmp_path / "chats.jsonl", rows))).rows["train"]
    assert len({row.key for row in asked}) == 20
    assert asked[0].key == asked[20].key
