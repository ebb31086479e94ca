"""One text as its source has it."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

Split = str
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Turn(NamedTuple):
    """A message of a chat.

    Attributes:
        content: What it says; empty where it only calls tools.
        more: What a template may read besides (tool_calls, tool_call_id, name), as JSON; empty for
            nothing.
    """

    role: str
    content: str
    more: str = ""


class Row(NamedTuple):
    """One text as its source has it. A tuple, as a source may have very many.

    Attributes:
        text: What is read (text_classification, token_classification), generated (causal_lm,
            seq2seq) or searched for an answer (question_answering).
        label: The class of text_classification; None for the others, and where a text has several
            classes or a number.
        number: What regression predicts of a text; None for the others.
        turns: A chat, of which `text` is a plain form (causal_lm); none for the others.
        pair: A second text that is read after `text` (text_classification); None for none.
        prompt: Text before `text` whose tokens do not count in the loss; the source of seq2seq;
            the question of question_answering; None where there is none.
        text_units: The tokens of `text` where the source defines them (phones, or the words of
            token_classification); None leaves them to the tokenizer.
        tags: One for each of `text_units` (token_classification), or the classes of a text that may
            have several (text_classification), sorted.
        answers: Where each right answer starts in `text`, in characters, and what it is; none
            for a question that the text does not answer.
        group: What rows must share to be on one side of a split, beside equal texts.
        ends_document: False for a line after which its document goes on with the next row; such
            rows stay in order, and no end follows their text.
    """

    text: str
    label: str | None = None
    prompt: str | None = None
    text_units: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    answers: tuple[tuple[int, str], ...] = ()
    group: str | None = None
    ends_document: bool = True
    number: float | None = None
    pair: str | None = None
    turns: tuple[Turn, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row."""
        return tuple(text for text in (self.text, self.prompt, self.pair) if text is not None)

    @property
    def key(self) -> str:
        """What must not be on two sides of a split: the input, in lower case and one form.

        Runs of blanks count as one, and a letter with its accent is the same in one character and
        in two (Unicode's NFC).
        """
        if self.group is not None:
            return _one_form(self.group)
        text = _one_form(self.text if self.prompt is None else self.prompt)
        return text if self.pair is None else f"{text}\0{_one_form(self.pair)}"


def _one_form(text: str) -> str:
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return " ".join(composed.lower().split())


def tagged(words: Sequence[str], tags: Sequence[str]) -> Row:
    """A sentence and its tags."""
    return Row(text=" ".join(words), text_units=tuple(words), tags=tuple(tags))
