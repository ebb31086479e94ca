"""Extractive question answering: the span of a context that answers a question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import QuestionAnswering
from scaling.tasks.baselines import HELD_OUT, position_losses
from scaling.tasks.data.columns import CellReader, RowFormat, UnfitRowError
from scaling.tasks.data.overview import DataSummary, summarize
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.data.splits import SplitRows, read_splits
from scaling.tasks.data.tokens import TrainedTokenizer, aligned_tokenizer_for
from scaling.tasks.model.architectures import build_model
from scaling.tasks.scores import ANSWER_METRICS, answer_f1, exact_match
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel, at_least_float32

EVALUATION_BATCH_SIZE = 50
ENCODED_AT_ONCE = 1000  # questions; tokenizers' own lists of a large data set would fill memory
NO_SPAN = 0  # the position, a special token's, that windows without the answer point at


def row_format(workload: QuestionAnswering) -> RowFormat:  # noqa: ARG001  # one for all
    """A question, the text that is searched, and where its answers are."""
    return RowFormat(_row)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    """A question with its answers where they say they are."""
    answers = values["answers_column"]
    context = cells.text("context_column", values["context_column"])
    texts, starts = (
        (answers.get("text"), answers.get("answer_start"))
        if isinstance(answers, dict)
        else (None, None)
    )
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise UnfitRowError(
            "answers_column", "needs a mapping of text and answer_start, lists of equal length"
        )
    found = tuple(zip(starts, texts, strict=True))
    for start, text in found:
        if not isinstance(text, str) or not text or type(start) is not int or start < 0:
            raise UnfitRowError(
                "answers_column", f"has {text!r} at {start!r}; needs a text and a place from 0"
            )
        if context[start : start + len(text)] != text:
            raise UnfitRowError(
                "answers_column", f"says that {text!r} starts at {start}; there the context "
                f"has {context[start : start + len(text)]!r}",
            )  # fmt: skip
    question = cells.text("question_column", values["question_column"])
    return Row(text=context, prompt=question, answers=found, group=context)


@dataclass(frozen=True)
class Windows:
    """Windows of one split, those of a question one after another.

    Attributes:
        tokens: Special tokens, the question and a part of the context.
        types: As long, which of the two texts a token is of; None where the model is not told.
        first_chars, last_chars: As long, the characters of the context that a token stands for,
            from the first to before the last; both 0 for a token that is not of the context.
        spans: [N, 2] first and last token of the answer; NO_SPAN twice where it is elsewhere.
        questions: [N] which of the split's questions a window is of, rising.
    """

    tokens: Ragged
    types: Ragged | None
    first_chars: Ragged
    last_chars: Ragged
    spans: IntArray
    questions: IntArray

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and, for some models, `token_type_ids` [B, L].

        And `spans` [B, 2], and `in_context` [B, L].
        """
        values_bl, real_bl = self.tokens.padded(indices, pad)
        last_chars_bl, _ = self.last_chars.padded(indices, 0)
        batch = {
            "input_ids": torch.from_numpy(values_bl),
            "attention_mask": torch.from_numpy(real_bl.astype(np.int64)),
            "spans": torch.from_numpy(self.spans[indices]),
            "in_context": torch.from_numpy(last_chars_bl > 0),
        }
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(self.types.padded(indices, 0)[0])
        return batch


class Prediction(NamedTuple):
    """The best span of one window; a tuple, since workers exchange it as JSON.

    Attributes:
        score: Sum of its two logits; of two windows the larger one is believed.
        no_span_score: The same for NO_SPAN.
        first_char, last_char: Its characters in the context, from the first to before the last.
    """

    score: float
    no_span_score: float
    first_char: int
    last_char: int


def prepare(workload: QuestionAnswering, evaluation: Evaluation) -> "QuestionAnsweringTask":
    """Read, split and encode; raises DataError."""
    split = read_splits(workload.data, row_format(workload))
    tokenizer = aligned_tokenizer_for(
        workload.model, workload.data, split.rows["train"], reads_words=False
    )
    windows = {name: _encode(rows, tokenizer, workload) for name, rows in split.rows.items()}
    return QuestionAnsweringTask(
        workload, tokenizer, split.rows, windows, evaluation.num_examples,
        split.content_hash, split.num_dropped, _summary(split, windows, tokenizer, workload),
    )  # fmt: skip


@dataclass(frozen=True)
class QuestionAnsweringTask:
    """See `scaling.tasks.task.Task`; an example is a window, and each window is one target.

    A context that is longer than `max_length` is cut into windows that share `stride` tokens.
    The loss of a window is the mean of the cross entropies of the span's first and last token,
    over all of the window's real tokens; a window without the (first) answer points at NO_SPAN.
    So a question counts as often as it has windows, in the loss and in the batch size.

    Source: Devlin et al. 2019 (arXiv:1810.04805) sec. 4.2 and 4.3.
    """

    workload: QuestionAnswering
    tokenizer: TrainedTokenizer
    rows: Mapping[Split, Sequence[Row]]
    windows: Mapping[Split, Windows]
    num_examples: int
    content_hash: str
    num_dropped: int
    data_summary: DataSummary
    splits: tuple[Split, ...] = SPLITS
    targets_per_example: float = 1.0
    baseline: str = "answer-position frequencies"

    @property
    def token_model(self) -> TokenModel:
        """Its model, tokenizer and data."""
        return TokenModel(self.workload.model, self.workload.data, self.tokenizer)

    @property
    def num_models(self) -> int:
        """One."""
        return 1

    @property
    def num_train(self) -> int:
        """Training windows."""
        return len(self.windows["train"].questions)

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens of a training window, those of its question included."""
        return float(self.windows["train"].tokens.lengths.mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A reader with the weights that this seed starts from."""
        return build_model(
            self.workload.model, head="question_answering", tokenizer=self.tokenizer,
            max_length=self.workload.data.max_length, num_labels=2, seed=seed,
            dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """One for each window."""
        return len(indices)

    def num_tokens(self, indices: Indices) -> int:
        """Tokens of these training windows."""
        return int(self.lengths(indices).sum())

    def lengths(self, indices: Indices) -> Indices:
        """Tokens of each window."""
        return self.windows["train"].tokens.lengths[indices]

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training windows as tensors."""
        return self.windows["train"].batch(indices, self.tokenizer.pad_id)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        label_smoothing: float = 0.0,  # noqa: ARG002  # refused: a place has no fixed rivals
    ) -> Tensor:
        """Loss summed over windows, in nats."""
        return _losses(_logits(model, batch), batch).sum()

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of guessing both ends of an answer by where they are in the training split."""
        evaluated: dict[Split, tuple[IntArray, IntArray]] = {}
        for split in HELD_OUT:
            windows, count = self.windows[split], self.num_evaluated(split)
            evaluated[split] = windows.spans[:count], windows.tokens.lengths[:count]
        return position_losses(self.windows["train"].spans, evaluated)

    def num_evaluated(self, split: Split) -> int:
        """Windows in a split's fixed subset: of whole questions, at least one."""
        questions = self.windows[split].questions
        if len(questions) <= self.num_examples:
            return len(questions)
        # Windows before the question that the limit cuts, or all of the first one.
        whole = int(np.searchsorted(questions, questions[self.num_examples]))
        return whole or int(np.searchsorted(questions, questions[0], side="right"))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single windows of the fixed subset; predictions are each one's best span."""
        windows = self.windows[split]
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, correct = np.zeros(len(numbers)), np.zeros(len(numbers))
        predictions: list[Any] = [None] * len(numbers)
        for group in by_length(windows.tokens.lengths[numbers], EVALUATION_BATCH_SIZE):
            batch = windows.batch(numbers[group], self.tokenizer.pad_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logits_b2l = _logits(model, batch)
            losses[group] = _losses(logits_b2l, batch).double().cpu().numpy()
            hits_b = (logits_b2l.argmax(-1) == batch["spans"]).all(1)
            correct[group] = hits_b.double().cpu().numpy()
            found = self._best_spans(logits_b2l, batch, windows, numbers[group])
            for place, prediction in zip(group, found, strict=True):
                predictions[place] = prediction
        return ExampleLosses(losses, np.ones(len(numbers)), correct, tuple(predictions))

    def _best_spans(
        self, logits_b2l: Tensor, batch: Batch, windows: Windows, numbers: IntArray
    ) -> Iterator[Prediction]:
        """Each window's most likely span of the context of at most `max_answer_length` tokens."""
        length = logits_b2l.shape[-1]
        outside_bl = ~batch["in_context"]
        first_bl = logits_b2l[:, 0].masked_fill(outside_bl, -torch.inf)
        last_bl = logits_b2l[:, 1].masked_fill(outside_bl, -torch.inf)
        is_span_ll = torch.ones(length, length, dtype=torch.bool, device=first_bl.device)
        is_span_ll = is_span_ll.triu().tril(self.workload.max_answer_length - 1)
        scores_bll = first_bl[:, :, None] + last_bl[:, None, :]
        scores_bll = scores_bll.masked_fill(~is_span_ll, -torch.inf)
        best_b = scores_bll.flatten(1).max(1)
        no_span_b = logits_b2l[:, :, NO_SPAN].sum(1)
        first_chars, last_chars = windows.first_chars, windows.last_chars
        for number, score, place, no_span in zip(
            numbers, best_b.values.tolist(), best_b.indices.tolist(), no_span_b.tolist(),
            strict=True,
        ):  # fmt: skip
            start = first_chars.starts[number]
            yield Prediction(
                score,
                no_span,
                int(first_chars.flat[start + place // length]),
                int(last_chars.flat[start + place % length]),
            )

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Exact match and F1 of whole questions, and the share of windows with the right span."""
        windows = Metric(
            "window accuracy", "Share of windows whose likeliest span is the right one, or none "
            "where the window has no answer.",
            unit="fraction", direction="maximize",
        )  # fmt: skip
        return {"window_accuracy": windows, **ANSWER_METRICS}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Exact match and F1 of whole questions, and the share of windows with the right span."""
        found = self.answers("validation", [Prediction(*span) for span in validation.predictions])
        rights = [[text for _, text in row.answers] for row in self.rows["validation"]]
        pairs = list(zip(found, rights[: len(found)], strict=True))
        return {
            "window_accuracy": validation.accuracy,
            "exact_match": sum(exact_match(ours, right) for ours, right in pairs) / len(pairs),
            "answer_f1": sum(answer_f1(ours, right) for ours, right in pairs) / len(pairs),
        }

    def answers(self, split: Split, predictions: Sequence[Prediction]) -> list[str]:
        """The answer to each question, from the window whose span has the largest score.

        Empty where the training data have questions without an answer and no span is likelier
        in any window than none in the window least sure of that (Devlin et al., sec. 4.3).
        """
        of_question: dict[int, list[Prediction]] = {}
        for question, prediction in zip(
            self.windows[split].questions[: len(predictions)].tolist(), predictions, strict=True
        ):
            of_question.setdefault(question, []).append(prediction)
        may_be_none = any(not row.answers for row in self.rows["train"])
        answers: list[str] = []
        for question, own in of_question.items():
            best = max(own, key=lambda prediction: prediction.score)
            no_span = min(prediction.no_span_score for prediction in own)
            text = self.rows[split][question].text[best.first_char : best.last_char]
            answers.append("" if may_be_none and no_span > best.score else text.strip())
        return answers


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """[B, 2, L] of the span's first and last token; −inf at padding, so that it never counts."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    output = model(**{name: batch[name] for name in names if name in batch})
    logits_b2l = at_least_float32(torch.stack([output.start_logits, output.end_logits], 1))
    return logits_b2l.masked_fill(batch["attention_mask"][:, None] == 0, -torch.inf)


def _losses(logits_b2l: Tensor, batch: Batch) -> Tensor:
    """[B] nats."""
    return functional.cross_entropy(
        logits_b2l.transpose(1, 2), batch["spans"], reduction="none"
    ).mean(1)  # fmt: skip


def _encode(
    rows: Sequence[Row], tokenizer: TrainedTokenizer, workload: QuestionAnswering
) -> Windows:
    """The windows of all questions, in order."""
    parts = [
        _encode_chunk(rows[first : first + ENCODED_AT_ONCE], first, tokenizer, workload)
        for first in range(0, len(rows), ENCODED_AT_ONCE)
    ]
    windows = [window for part in parts for window in part]
    types = [window.types for window in windows if window.types is not None]
    return Windows(
        Ragged.of([window.tokens for window in windows]),
        Ragged.of(types) if types else None,
        Ragged.of([window.chars[:, 0] for window in windows]),
        Ragged.of([window.chars[:, 1] for window in windows]),
        np.array([window.span for window in windows], dtype=np.int64),
        np.array([window.question for window in windows], dtype=np.int64),
    )


@dataclass(frozen=True)
class _Window:
    """One window; `chars` are [L, 2], where its tokens begin and end in the context."""

    tokens: IntArray
    types: IntArray | None
    chars: IntArray
    span: tuple[int, int]
    question: int


def _encode_chunk(
    rows: Sequence[Row], first: int, tokenizer: TrainedTokenizer, workload: QuestionAnswering
) -> list[_Window]:
    """The windows of some questions, numbered from `first`."""
    max_length = workload.data.max_length
    encoding = tokenizer.tokenizer(
        _within([row.prompt or "" for row in rows], tokenizer, _most_of_question(max_length)),
        [row.text for row in rows],
        truncation="only_second", max_length=max_length, stride=workload.stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    windows: list[_Window] = []
    for number, row in enumerate(encoding["overflow_to_sample_mapping"]):
        is_context = np.array([text == 1 for text in encoding.sequence_ids(number)])
        chars = np.where(is_context[:, None], np.array(encoding["offset_mapping"][number]), 0)
        types = encoding.get("token_type_ids")
        windows.append(
            _Window(
                np.array(encoding["input_ids"][number], dtype=np.int64),
                None if types is None else np.array(types[number], dtype=np.int64),
                chars,
                _span(chars, rows[row]),
                first + row,
            )
        )
    return windows


def _most_of_question(max_length: int) -> int:
    """Tokens of a question at most; what is longer loses its end."""
    return max_length // 2 - 1


def _summary(
    split: SplitRows,
    windows: Mapping[Split, Windows],
    tokenizer: TrainedTokenizer,
    workload: QuestionAnswering,
) -> DataSummary:
    most = _most_of_question(workload.data.max_length)
    num_truncated = {
        name: sum(
            len(ids) > most
            for ids in tokenizer.tokenizer(
                [row.prompt or "" for row in rows], add_special_tokens=False
            )["input_ids"]
        )
        for name, rows in split.rows.items()
    }
    lengths = {name: part.tokens.lengths for name, part in windows.items()}
    return summarize(split.rows, lengths, num_truncated, split.notes)


def _within(questions: list[str], tokenizer: TrainedTokenizer, num_tokens: int) -> list[str]:
    """The beginnings of questions, at most so many tokens each."""
    encoding = tokenizer.tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question if len(chars) <= num_tokens else question[: chars[num_tokens - 1][1]]
        for question, chars in zip(questions, encoding["offset_mapping"], strict=True)
    ]


def _span(chars: IntArray, row: Row) -> tuple[int, int]:
    """First and last token of the first answer; NO_SPAN twice where the window lacks a part."""
    if not row.answers:
        return NO_SPAN, NO_SPAN
    start, answer = row.answers[0]
    last = start + len(answer) - 1
    of_first = np.flatnonzero((chars[:, 0] <= start) & (start < chars[:, 1]))
    of_last = np.flatnonzero((chars[:, 0] <= last) & (last < chars[:, 1]))
    if not len(of_first) or not len(of_last):
        return NO_SPAN, NO_SPAN
    return int(of_first[0]), int(of_last[-1])
