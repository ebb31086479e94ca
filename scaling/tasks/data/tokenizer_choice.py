"""Which tokenizer a workload has: one that is named, one of the model's, or one learnt here."""

from collections.abc import Sequence
from dataclasses import replace

from scaling.spec.data import TextData
from scaling.spec.models import ModelSpec
from scaling.tasks.data.rows import Row
from scaling.tasks.data.tokens import (
    PAD,
    SEPARATOR,
    START,
    UNKNOWN,
    Tokenizer,
    TrainedTokenizer,
    UnitTokenizer,
)
from scaling.tasks.errors import DataError


def tokenizer_for(model: ModelSpec, data: TextData, train: Sequence[Row]) -> Tokenizer:
    """The tokenizer that the study file names, or the one that the model implies."""
    return (
        _named_tokenizer(model, data)
        or (learnt_subwords(train, data.vocab_size) if data.tokenizer == "subwords" else None)
        or UnitTokenizer.of(train)
    )


def require_end(tokenizer: Tokenizer, task: str) -> None:
    """Check that there is a token to end a text with.

    Raises:
        DataError: If there is none.
    """
    if tokenizer.end_id is None:  # type: ignore[comparison]  # trained tokenizers may lack one
        raise DataError(
            "workload.data.tokenizer", f"has no token that ends a text, which task {task} needs"
        )


def aligned_tokenizer_for(
    model: ModelSpec, data: TextData, train: Sequence[Row], *, reads_words: bool
) -> TrainedTokenizer:
    """The same for families that need to know which word, or which part of a text, a token is.

    Their `characters` are subwords of one character, so that words are still told apart. Where
    the family reads lists of words, each has to look like one with a blank before it to the
    tokenizers of GPT-2 and RoBERTa, which mark that.
    """
    named = _named_tokenizer(model, data, **({"add_prefix_space": True} if reads_words else {}))
    if named is None:
        return learnt_subwords(train, data.vocab_size if data.tokenizer == "subwords" else 0)
    named.require_fast()
    return named


def _named_tokenizer(model: ModelSpec, data: TextData, **options: bool) -> TrainedTokenizer | None:
    """A trained tokenizer, where the study file names one or starts from a trained model."""
    if (name := data.named_tokenizer) is not None:
        loaded = TrainedTokenizer.load(name, "workload.data.tokenizer", **options)
        return replace(loaded, keeps_start=model.pretrained is not None)
    if data.tokenizer is None and model.pretrained is not None:
        return TrainedTokenizer.load(model.pretrained, "workload.model.pretrained", **options)
    return None


def learnt_subwords(rows: Sequence[Row], vocab_size: int) -> TrainedTokenizer:
    """Byte-pair encoding learnt from rows, inside words and punctuation marks; blanks are dropped.

    A word begins with a mark of its own (▁). The vocabulary has every character, however small
    `vocab_size` is. The same rows give the same vocabulary in every process, which WordPiece as
    `tokenizers` trains it does not: it numbers pieces in the order of a hash map.

    Source: Sennrich et al. 2016 (arXiv:1508.07909).
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": SEPARATOR}
    names = list(special.values())
    backend = Backend(models.BPE(unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=names, show_progress=False
    )  # fmt: skip
    # A text or a question that many rows share counts once.
    texts = sorted({text for row in rows for text in row.texts if text})
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {SEPARATOR}",
        pair=f"{START} $A {SEPARATOR} $B:1 {SEPARATOR}:1",
        special_tokens=[(name, names.index(name)) for name in (START, SEPARATOR)],
    )
    return TrainedTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, **special))
