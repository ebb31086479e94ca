"""Text to token ids: a vocabulary of characters (or a source's own units), or a trained one."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from scaling.tasks.data.chat import (
    ChatTokens,
    default_parts,
    default_text,
    require_no_tool_calls,
    templated_text,
)
from scaling.tasks.data.rows import Row
from scaling.tasks.errors import DataError
from scaling.tasks.extras import pretrained_folder
from scaling.tasks.loading import library_errors, require_no_custom_code

ROWS_A_CALL = 1000  # of a fast tokenizer, which takes many in less time than one after another
PAD, END, SEPARATOR, UNKNOWN, START = "<pad>", "<end>", "<sep>", "<unk>", "<start>"


@dataclass(frozen=True)
class Joined:
    """A prompt and its text, read as one.

    Attributes:
        prompt: Ids before the text; empty without a prompt.
        text: Ids of the text, nothing added; behind a prompt, as it goes on with that.
        num_bytes: UTF-8 bytes that each of them stands for.
    """

    prompt: list[int]
    text: list[int]
    num_bytes: list[int]


@dataclass(frozen=True)
class UnitTokenizer:
    """One id for each character, or for each of the units that the source defines.

    Ids are in [0, vocab_size), here as of `TrainedTokenizer`, which has the same methods.

    Attributes:
        joint: What stands between two units of a text: nothing between characters.
    """

    ids: dict[str, int]
    joint: str = ""

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "UnitTokenizer":
        """A vocabulary of every unit in the training rows, sorted."""
        units: set[str] = set()
        has_units = False
        for row in rows:
            units.update(_units(row), row.prompt or (), row.pair or ())
            has_units = has_units or row.text_units is not None
        names = (PAD, END, SEPARATOR, UNKNOWN, *sorted(units))
        return cls({name: index for index, name in enumerate(names)}, " " if has_units else "")

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.ids)

    @property
    def pad_id(self) -> int:
        """Id that fills a batch; it counts nowhere."""
        return self.ids[PAD]

    @property
    def end_id(self) -> int:
        """Id after the last unit of a text."""
        return self.ids[END]

    def _encode(self, units: Sequence[str]) -> list[int]:
        unknown = self.ids[UNKNOWN]
        return [self.ids.get(unit, unknown) for unit in units]

    def joined(self, rows: Iterable[Row]) -> Iterator[Joined]:
        """Of each row a prompt's characters and a separator, and the text's units.

        A unit's bytes are with the joint before all but the first.
        """
        for row in rows:
            sizes = [len((self.joint + unit).encode()) for unit in _units(row)]
            if sizes:
                sizes[0] -= len(self.joint.encode())
            yield Joined(self._prompt_ids(row), self._encode(_units(row)), sizes)

    def _prompt_ids(self, row: Row) -> list[int]:
        return [] if row.prompt is None else [*self._encode(row.prompt), self.ids[SEPARATOR]]

    def classifier_ids(
        self, rows: Iterable[Row], max_length: int | None
    ) -> list[tuple[list[int], list[int] | None]]:
        """Of each row a separator (the position that a classifier reads), then the text's ids.

        Before those of a second text is another one; of two, the longer one is cut first. There are
        no types.
        """
        return [self._classifier_ids(row, max_length) for row in rows]

    def _classifier_ids(self, row: Row, max_length: int | None) -> tuple[list[int], None]:
        separator = self.ids[SEPARATOR]
        text = self._encode(_units(row))
        if row.pair is None:
            return [separator, *text][:max_length], None
        pair = self._encode(row.pair)
        room = max((max_length or len(text) + len(pair) + 2) - 2, 0)
        num_text = min(len(text), max(room - len(pair), (room + 1) // 2))
        return [separator, *text[:num_text], separator, *pair[: room - num_text]], None

    def chat(self, row: Row) -> ChatTokens:
        """Ids of a chat's characters, with an end behind each text of the assistant.

        Raises:
            DataError: If tools are called in it.
        """
        require_no_tool_calls(row.turns)
        ids: list[int] = []
        counts: list[int] = []
        num_bytes: list[int] = []
        for part, is_counted in default_parts(row.turns):
            added = [*self._encode(part), *[self.end_id] * is_counted]
            ids += added
            counts += [int(is_counted)] * len(added)
            sizes = [len(character.encode()) for character in part] if is_counted else []
            num_bytes += [*sizes, *[0] * (len(added) - len(sizes))]
        return ChatTokens(ids, counts, num_bytes)

    def source_ids(self, rows: Iterable[Row], max_length: int | None) -> list[list[int]]:
        """Of each row the ids of the prompt's characters and a separator."""
        return [self._prompt_ids(row)[:max_length] for row in rows]

    def target_ids(self, rows: Iterable[Row], max_length: int | None) -> list[list[int]]:
        """Of each row the ids of the text and its end."""
        return [[*self._encode(_units(row)), self.end_id][:max_length] for row in rows]

    def written(self, ids: Sequence[int]) -> str:
        """The units of generated ids up to the first end."""
        names = list(self.ids)
        units: list[str] = []
        for number in ids:
            if number == self.end_id:
                break
            if names[number] not in (PAD, SEPARATOR):
                units.append(names[number])
        return self.joint.join(units)


def _units(row: Row) -> Sequence[str]:
    return row.text if row.text_units is None else row.text_units


def _before_text(row: Row) -> str:
    """The prompt, with a blank behind where there is none before the text: "" without one."""
    prompt = row.prompt or ""
    is_apart = prompt[-1:].isspace() or row.text[:1].isspace()
    return prompt if is_apart or not prompt else f"{prompt} "


def _in_parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows as they are encoded together."""
    left = iter(rows)
    while part := list(islice(left, ROWS_A_CALL)):
        yield part


def _joined(row: Row, before: str, ids: list[int], ends: list[int]) -> Joined:
    """A row's tokens, of which `ends` says where each ends in `before` + text."""
    num_prompt = sum(end <= len(before) for end in ends) if before else 0
    marks = [0, *(end - len(before) for end in ends[num_prompt:])]
    if len(marks) > 1:
        marks[-1] = len(row.text)  # blanks behind the last token are text too
    num_bytes = [len(row.text[start:end].encode()) for start, end in pairwise(marks)]
    return Joined(ids[:num_prompt], ids[num_prompt:], num_bytes)


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer that came with a model.

    Attributes:
        keeps_start: Whether a target keeps the tokens that some tokenizers put first, as its model
            learnt to write them; a decoder from scratch reads a start of its own.
    """

    tokenizer: Any
    keeps_start: bool = True

    @classmethod
    def load(cls, name: str, path: str, **options: bool) -> "TrainedTokenizer":
        """Load from a folder or the hub, with options of its class.

        Raises:
            DataError: If there is none of that name, or it brings code of its own or has no token
                to pad with; `path` is the dotted path that named it.
        """
        from transformers import AutoTokenizer

        folder = pretrained_folder(name)
        require_no_custom_code(folder, name, path)
        with library_errors(path, f"cannot load a tokenizer from {name}"):
            loaded = cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options))
        if loaded.pad_id is None:
            raise DataError(path, f"the tokenizer of {name} has no token to pad or to end with")
        return loaded

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return len(self.tokenizer)

    @property
    def end_id(self) -> int:
        """Id after the last token of a text."""
        end = self.tokenizer.eos_token_id
        return end if end is not None else self.tokenizer.sep_token_id

    @property
    def pad_id(self) -> int:
        """Id that fills a batch; models without one are padded with the end id."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.end_id

    def joined(self, rows: Iterable[Row]) -> Iterator[Joined]:
        """Of each row the prompt and the text, read as one, and the text's bytes.

        A token that holds a part of the text, and be it with the blank before it, is the text's.
        Its bytes are those from the end of the token before; a split character counts at its first
        one. Where a tokenizer does not say which characters a token is, the prompt's tokens are
        those that it also has without the text, and bytes are all 0.
        """
        if not self.tokenizer.is_fast:
            yield from map(self._joined_by_ids, rows)
            return
        for part in _in_parts(rows):
            befores = [_before_text(row) for row in part]
            found = self.tokenizer(
                [before + row.text for before, row in zip(befores, part, strict=True)],
                add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
                return_token_type_ids=False,
            )  # fmt: skip
            for row, before, ids, offsets in zip(
                part, befores, found["input_ids"], found["offset_mapping"], strict=True
            ):
                yield _joined(row, before, ids, [end for _, end in offsets])

    def _joined_by_ids(self, row: Row) -> Joined:
        before = _before_text(row)
        ids: list[int] = self.tokenizer(before + row.text, add_special_tokens=False)["input_ids"]
        alone: list[int] = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        num_prompt = len(os.path.commonprefix([ids, alone]))  # noqa: RUF071  # of two lists
        return Joined(ids[:num_prompt], ids[num_prompt:], [0] * (len(ids) - num_prompt))

    def classifier_ids(
        self, rows: Iterable[Row], max_length: int | None
    ) -> list[tuple[list[int], list[int] | None]]:
        """Of each row the text, or both, with the model's own special tokens.

        And, of two, which of them a token is of; None where the model is not told. Of two, the
        longer one is cut first.
        """
        made: list[tuple[list[int], list[int] | None]] = []
        for part in _in_parts(rows):
            texts = [row.text for row in part]
            if part[0].pair is None:
                made += [(ids, None) for ids in self._whole_or_cut(max_length, text=texts)]
                continue
            found = self.tokenizer(
                texts, [row.pair for row in part], max_length=max_length,
                truncation=False if max_length is None else "longest_first",
            )  # fmt: skip
            types = found.get("token_type_ids") or [None] * len(part)
            made += zip(found["input_ids"], types, strict=True)
        return made

    def chat(self, row: Row) -> ChatTokens:
        """Ids of a chat by the tokenizer's template, or by ours where it has none.

        A token that holds a part of what the assistant has to write is the assistant's.

        Raises:
            DataError: If the tokenizer does not say which characters a token is, or its template
                cannot be used.
        """
        self.require_fast()
        if self.tokenizer.chat_template is None:
            require_no_tool_calls(row.turns)
            end = self.tokenizer.convert_ids_to_tokens(self.end_id)
            text, spans = default_text(row.turns, end)
        else:
            text, spans = templated_text(self.tokenizer, row.turns)
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoding["input_ids"]
        specials = set(self.tokenizer.all_special_ids)
        counts: list[int] = []
        num_bytes: list[int] = []
        end_before = 0
        for token, (start, end) in zip(ids, encoding["offset_mapping"], strict=True):
            is_counted = any(start < last and first < end for first, last in spans)
            counts.append(int(is_counted))
            is_text = is_counted and token not in specials
            num_bytes.append(len(text[end_before:end].encode()) if is_text else 0)
            end_before = max(end, end_before)
        return ChatTokens(ids, counts, num_bytes)

    def word_sizes(self, words: Sequence[str]) -> list[int]:
        """Sub-tokens of each word of a text."""
        encoding = self.tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
        sizes = [0] * len(words)
        for word in encoding.word_ids():
            sizes[word] += 1
        return sizes

    def source_ids(self, rows: Iterable[Row], max_length: int | None) -> list[list[int]]:
        """Of each row the prompt with the model's own special tokens."""
        parts = _in_parts(rows)
        texts = ([row.prompt or "" for row in part] for part in parts)
        return [ids for part in texts for ids in self._whole_or_cut(max_length, text=part)]

    def target_ids(self, rows: Iterable[Row], max_length: int | None) -> list[list[int]]:
        """Of each row the text with the model's own special tokens, and an end if it has none."""
        [whole] = self._whole_or_cut(None, text_target=["a"])
        alone = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        place = next((n for n, token in enumerate(whole) if token in alone), 0)
        num_start = 0 if self.keeps_start else place
        has_end = self.end_id in whole[place:]  # before the text it is a start, as OPT's is
        longest = None if max_length is None else max_length + num_start
        texts = ([row.text for row in part] for part in _in_parts(rows))
        found = (ids for part in texts for ids in self._whole_or_cut(longest, text_target=part))
        end = [] if has_end else [self.end_id]
        return [ids[num_start:] + end * (len(ids) != longest) for ids in found]

    def _whole_or_cut(self, max_length: int | None, **texts: list[str]) -> list[list[int]]:
        is_cut = max_length is not None
        return self.tokenizer(**texts, truncation=is_cut, max_length=max_length)["input_ids"]

    def require_fast(self) -> None:
        """Check that it says which characters a token is.

        Raises:
            DataError: If it does not.
        """
        if not self.tokenizer.is_fast:
            raise DataError(
                "workload.data.tokenizer",
                f"{type(self.tokenizer).__name__} does not say which characters a token is; name "
                "one that has a tokenizer.json",
            )

    def written(self, ids: Sequence[int]) -> str:
        """The text of generated ids, special ones left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()


Tokenizer = UnitTokenizer | TrainedTokenizer
"""Encodes rows, and decodes what a model writes."""
