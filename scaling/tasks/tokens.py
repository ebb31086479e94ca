"""Text to token ids: a vocabulary of characters (or a source's own units), or a trained one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scaling.issues import first_line
from scaling.spec import DataSpec, ModelSpec, Pretrained
from scaling.tasks.sources import DataError, Row

PAD, END, SEPARATOR, UNKNOWN = "<pad>", "<end>", "<sep>", "<unk>"


class Tokenizer(Protocol):
    """Encodes rows; ids are in [0, vocab_size)."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def pad_id(self) -> int:
        """Id that fills a batch; it counts nowhere."""
        ...

    @property
    def end_id(self) -> int:
        """Id after the last token of a text."""
        ...

    def text_ids(self, row: Row) -> list[int]:
        """Ids of the text, nothing added."""
        ...

    def prompt_ids(self, row: Row) -> list[int]:
        """Ids of the prompt, and of a separator where the vocabulary has one; empty without."""
        ...

    def classifier_ids(self, row: Row, max_length: int) -> list[int]:
        """Ids of the text as a classifier reads it, truncated to `max_length`."""
        ...


@dataclass(frozen=True)
class UnitTokenizer:
    """One id for each character, or for each of the units that the source defines."""

    ids: dict[str, int]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "UnitTokenizer":
        """A vocabulary of every unit in the training rows, sorted."""
        units = {unit for row in rows for unit in (*_units(row), *(row.prompt or ()))}
        names = (PAD, END, SEPARATOR, UNKNOWN, *sorted(units))
        return cls({name: index for index, name in enumerate(names)})

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

    def text_ids(self, row: Row) -> list[int]:
        """Ids of the text, nothing added."""
        return self._encode(_units(row))

    def prompt_ids(self, row: Row) -> list[int]:
        """Ids of the prompt's characters and a separator; empty without a prompt."""
        return [] if row.prompt is None else [*self._encode(row.prompt), self.ids[SEPARATOR]]

    def classifier_ids(self, row: Row, max_length: int) -> list[int]:
        """A separator (the position that a classifier reads), then the text's ids."""
        return [self.ids[SEPARATOR], *self.text_ids(row)][:max_length]


def _units(row: Row) -> Sequence[str]:
    return row.text if row.text_units is None else row.text_units


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer that came with a model."""

    tokenizer: Any

    @classmethod
    def load(cls, name: str, path: str) -> "TrainedTokenizer":
        """Load from a folder or the hub.

        Raises:
            DataError: If there is none of that name; `path` is the dotted path that named it.
        """
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(name))
        except (OSError, ValueError) as error:
            raise DataError(
                path, f"cannot load a tokenizer from {name}: {first_line(error)}"
            ) from error

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

    def text_ids(self, row: Row) -> list[int]:
        """Ids of the text, nothing added."""
        return self.tokenizer(row.text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, row: Row) -> list[int]:
        """Ids of the prompt; empty without one."""
        if row.prompt is None:
            return []
        return self.tokenizer(row.prompt, add_special_tokens=False)["input_ids"]

    def classifier_ids(self, row: Row, max_length: int) -> list[int]:
        """The text with the model's own special tokens."""
        return self.tokenizer(row.text, truncation=True, max_length=max_length)["input_ids"]


def tokenizer_for(model: ModelSpec, data: DataSpec, train: Sequence[Row]) -> Tokenizer:
    """The tokenizer that the study file names, or the one that the model implies."""
    if data.tokenizer not in (None, "characters"):
        return TrainedTokenizer.load(str(data.tokenizer), "workload.data.tokenizer")
    if data.tokenizer is None and isinstance(model, Pretrained):
        return TrainedTokenizer.load(model.pretrained, "workload.model.pretrained")
    return UnitTokenizer.of(train)
