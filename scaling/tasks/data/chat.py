"""Chats as text: a template joins their turns, and of the assistant's what it has to write counts.

Messages are OpenAI's (role, content, tool_calls) or ShareGPT's (from, value). Source of the marks
of templates, and of tool calls as they read them, their arguments being mappings:
https://huggingface.co/docs/transformers/chat_templating and chat_extras.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scaling.tasks.data.columns import CellReader, UnfitRowError
from scaling.tasks.data.rows import Row, Turn
from scaling.tasks.errors import DataError
from scaling.tasks.loading import library_errors

ROLES = ("system", "developer", "user", "assistant", "tool")
SHARE_GPT_ROLES = {
    "human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool",
}  # fmt: skip
"""ShareGPT's names; of a function_call the value is the JSON of a call."""
FIELD = "messages_column"
_PATH = f"workload.data.{FIELD}"
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTokens:
    """A chat as a model reads it.

    Attributes:
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
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise UnfitRowError(FIELD, "has no message with role assistant, which the loss counts")
    text = "".join(part for part, _ in default_parts(turns))
    # A greeting before the user says anything is shared by many chats, as a system prompt is.
    asked = roles.index("user") if "user" in roles else 0
    answered = roles.index("assistant", asked if "assistant" in roles[asked:] else 0)
    start = default_parts(turns[:answered])
    return Row(text=text, turns=turns, group="".join(part for part, _ in start) or text)


def _turn(cells: CellReader, number: int, message: dict[str, Any]) -> Turn:
    is_share_gpt = "from" in message and "role" not in message
    given = message["from"] if is_share_gpt else message.get("role")
    role = SHARE_GPT_ROLES.get(given, given) if is_share_gpt and isinstance(given, str) else given
    if role not in ROLES:
        known = (*ROLES, *SHARE_GPT_ROLES) if is_share_gpt else ROLES
        raise UnfitRowError(
            FIELD, f"has {'from' if is_share_gpt else 'role'} {given!r} in message {number}; "
            f"allowed: {', '.join(known)}",
        )  # fmt: skip
    content = message.get("value" if is_share_gpt else "content")
    calls = message.get("tool_calls")
    if given == "function_call":
        content, calls = None, _parsed_calls(content)
    more = {name: message[name] for name in ("tool_call_id", "name") if message.get(name)}
    if calls:
        if role != "assistant":
            raise UnfitRowError(
                FIELD, f"has tool_calls in message {number}, of role {role!r}; allowed: assistant"
            )
        more["tool_calls"] = _tool_calls(number, calls)
        content = "" if content is None else content
    said = cells.text(FIELD, content, f" message {number} of")
    return Turn(role, said, json.dumps(more, ensure_ascii=False) if more else "")


def _parsed_calls(text: Any) -> Any:
    """The JSON of one call, or of a list of them; what is none stays as it is, to be refused."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return [text]
    return found if isinstance(found, list) else [found]


def _tool_calls(number: int, calls: Any) -> list[dict[str, Any]]:
    """Calls as templates read them, `{type, function: {name, arguments}}` with their ids."""
    read: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):  # as OpenAI's interface has them
            with suppress(ValueError):  # what is no JSON stays as it is, to be refused
                arguments = json.loads(arguments or "{}")
        if not isinstance(name, str) or not isinstance(arguments, Mapping | None):
            raise UnfitRowError(
                FIELD, f"has a tool call in message {number} that is none; allowed: function with "
                "name and arguments, a mapping or its JSON",
            )  # fmt: skip
        id_ = {"id": call["id"]} if call.get("id") else {}
        own = {"name": name, "arguments": dict(arguments or {})}
        read.append({**id_, "type": "function", "function": own})
    return read


def calls_tools(turns: Sequence[Turn]) -> bool:
    """Whether the assistant calls a tool somewhere."""
    return any('"tool_calls": ' in turn.more for turn in turns)


def require_no_tool_calls(turns: Sequence[Turn]) -> None:
    """Raises DataError where tools are called and no template says how that is written."""
    if calls_tools(turns):
        raise DataError(
            _PATH, "the chats have tool_calls, and the tokenizer has no chat template; allowed: a "
            "model whose tokenizer's template writes them",
        )  # fmt: skip


def default_parts(turns: Sequence[Turn]) -> list[tuple[str, bool]]:
    """Texts where a tokenizer has no template, and whether each is the assistant's to write.

    A turn is a line, `user: Hello`; behind a text of the assistant is also the tokenizer's end.
    """
    parts: list[tuple[str, bool]] = []
    for role, content, more in turns:
        if role == "assistant":
            parts += [(f"{role}: ", False), (content + more, True), ("\n", False)]
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
        DataError: If the template refuses the chat, leaves out its tool calls, or writes a turn
            otherwise once others follow.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [_message(turn) for turn in turns]
    begins = f"the chat that begins with {turns[0].content[:40]!r}"
    what = f"the tokenizer's chat template refuses {begins}"
    with library_errors(_PATH, what):
        template = tokenizer.get_chat_template()
        if _MARKED.search(template):
            rendered: Any = render_jinja_template(
                conversations=[messages], chat_template=template, return_assistant_tokens_mask=True,
                **tokenizer.special_tokens_map,
            )  # fmt: skip
            (text,), (spans,) = rendered
            _require_calls_written(tokenizer, turns, text, begins)
            return text, spans
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        _require_calls_written(tokenizer, turns, whole, begins)
        added = [
            (
                tokenizer.apply_chat_template(
                    messages[:number], tokenize=False, add_generation_prompt=True
                ),
                tokenizer.apply_chat_template(messages[: number + 1], tokenize=False),
            )
            for number, turn in enumerate(turns)
            if turn.role == "assistant"
        ]
    return whole, list(_added_spans(whole, added))


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.content, **json.loads(turn.more or "{}")}


def _require_calls_written(tokenizer: Any, turns: Sequence[Turn], text: str, begins: str) -> None:
    """Check that a template does not write a chat as if no tool had been called in it."""
    for number, turn in enumerate(turns):
        if not calls_tools([turn]):
            continue
        without = [_message(t if n != number else t._replace(more="")) for n, t in enumerate(turns)]
        if tokenizer.apply_chat_template(without, tokenize=False) == text:
            raise DataError(
                _PATH, f"the tokenizer's chat template leaves out the tool_calls of {begins}; "
                "allowed: a model whose tokenizer's template writes them",
            )  # fmt: skip


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
