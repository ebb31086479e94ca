"""Chats as text: a template joins their turns, and of the assistant's what it has to write counts.

Source of the marks of templates: https://huggingface.co/docs/transformers/chat_templating.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scaling.tasks.data.columns import CellReader, UnfitRowError
from scaling.tasks.data.rows import Row, Turn
from scaling.tasks.errors import DataError
from scaling.tasks.loading import library_errors

ROLES = ("system", "developer", "user", "assistant", "tool")
FIELD = "messages_column"
_PATH = f"workload.data.{FIELD}"
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTokens:
    """A chat as a model reads it.

    Attributes:
        ids: Of its tokens.
        counts: As long, 1 where the token is the assistant's to write, else 0.
        num_bytes: As long, UTF-8 bytes that a token which counts stands for; 0 for the others and
            for those that end a turn.
    """

    ids: list[int]
    counts: list[int]
    num_bytes: list[int]


def chat_row(cells: CellReader, messages: Any) -> Row:
    """A row of messages with role and content; chats that begin alike are on one side of a split.

    Raises:
        UnfitRowError: If they are none, or none is the assistant's.
    """
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise UnfitRowError(
            FIELD, f"has {type(messages).__name__} in column {cells.columns[FIELD]!r}; allowed: a "
            "list of mappings with role and content",
        )  # fmt: skip
    turns = tuple(_turn(cells, number, one) for number, one in enumerate(messages, start=1))
    roles = [role for role, _ in turns]
    if "assistant" not in roles:
        raise UnfitRowError(FIELD, "has no message with role assistant, which the loss counts")
    text = "".join(part for part, _ in default_parts(turns))
    start = default_parts(turns[: roles.index("assistant")])
    return Row(text=text, turns=turns, group="".join(part for part, _ in start) or text)


def _turn(cells: CellReader, number: int, message: dict[str, Any]) -> Turn:
    role = message.get("role")
    if role not in ROLES:
        raise UnfitRowError(
            FIELD, f"has role {role!r} in message {number}; allowed: {', '.join(ROLES)}"
        )
    if message.get("tool_calls"):
        raise UnfitRowError(
            FIELD, f"has tool_calls in message {number}, which are not read; allowed: role and "
            "content",
        )  # fmt: skip
    return role, cells.text(FIELD, message.get("content"), f" message {number} of")


def default_parts(turns: Sequence[Turn]) -> list[tuple[str, bool]]:
    """Texts where a tokenizer has no template, and whether each is the assistant's to write.

    A turn is a line, `user: Hello`; behind a text of the assistant is also the tokenizer's end.
    """
    parts: list[tuple[str, bool]] = []
    for role, content in turns:
        if role == "assistant":
            parts += [(f"{role}: ", False), (content, True), ("\n", False)]
        else:
            parts.append((f"{role}: {content}\n", False))
    return parts


Spans = list[tuple[int, int]]
"""Of a text's characters, from the first to before the last."""


def default_text(turns: Sequence[Turn], end: str) -> tuple[str, Spans]:
    """The text of `default_parts` with its ends, and where it is the assistant's to write."""
    text, spans = "", Spans()
    for part, is_counted in default_parts(turns):
        if is_counted:
            spans.append((len(text), len(text) + len(part) + len(end)))
        text += part + end * is_counted
    return text, spans


def templated_text(tokenizer: Any, turns: Sequence[Turn]) -> tuple[str, Spans]:
    """The text of a chat by a tokenizer's own template, and where it is the assistant's to write.

    That is what the template marks by {% generation %}; where it marks nothing, what a turn of the
    assistant adds to the turns before it and the prompt for one, without blanks behind it.

    Raises:
        DataError: If the template refuses the chat, or writes a turn otherwise once others follow.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": role, "content": content} for role, content in turns]
    what = f"the tokenizer's chat template refuses the chat that begins with {turns[0][1][:40]!r}"
    with library_errors(_PATH, what):
        template = tokenizer.get_chat_template()
        if _MARKED.search(template):
            rendered: Any = render_jinja_template(
                conversations=[messages], chat_template=template, return_assistant_tokens_mask=True,
                **tokenizer.special_tokens_map,
            )  # fmt: skip
            (text,), (spans,) = rendered
            return text, spans
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        added = [
            (
                tokenizer.apply_chat_template(
                    messages[:number], tokenize=False, add_generation_prompt=True
                ),
                tokenizer.apply_chat_template(messages[: number + 1], tokenize=False),
            )
            for number, (role, _) in enumerate(turns)
            if role == "assistant"
        ]
    return whole, list(_added_spans(whole, added))


def _added_spans(whole: str, added: Sequence[tuple[str, str]]) -> Iterator[tuple[int, int]]:
    """Where texts after a turn go on from those before it."""
    for before, after in added:
        if not (after.startswith(before) and whole.startswith(after.rstrip())):
            raise DataError(
                _PATH, "the tokenizer's chat template writes a turn otherwise once others follow, "
                "so that the assistant's cannot be told; allowed: one that does not, or that marks "
                "them by {% generation %}",
            )  # fmt: skip
        yield len(before), max(len(after.rstrip()), len(before))
