"""Extractive question answering: the span of a context that answers a question."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric, Unit
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import QuestionAnswering
from scaling.tasks.baselines import position_losses
from scaling.tasks.batch import at_least_float32
from scaling.tasks.data.columns import CellReader, RowFormat, UnfitRowError
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.squad import squad_questions
from scaling.tasks.data.tokenizer_choice import aligned_tokenizer_for
from scaling.tasks.data.tokens import TrainedTokenizer
from scaling.tasks.scores import ANSWER_METRICS, answer_f1, exact_match, share
from scaling.tasks.task import Batch, ExampleLosses, TokenModel
from scaling.tasks.text_task import BatchLosses, Forward, Sizes, TextTask, read_tokens, summary_of

FORWARD = Forward(predictions=("start_logits", "end_logits"))
ENCODED_AT_ONCE = 1000  # questions; tokenizers' own lists of a large data set would fill memory
NO_SPAN = 0  # the position, a special token's, that windows without the answer point at


def row_format(workload: QuestionAnswering) -> RowFormat:
    """A question, the text that is searched, and where its answers are."""
    asked = workload.data.question_column
    return RowFormat(_row, records_of=lambda record: squad_questions(record, asked))


def _answers(cell: Any) -> list[tuple[Any, Any]]:
    """Place and text of each answer: a mapping of two lists, or a list of mappings, as in SQuAD."""
    match cell:
        case {"text": [*texts], "answer_start": [*starts]} if len(texts) == len(starts):
            return list(zip(starts, texts, strict=True))
        case [*answers] if all(
            isinstance(answer, dict) and {"text", "answer_start"} <= answer.keys()
            for answer in answers
        ):
            return [(answer["answer_start"], answer["text"]) for answer in answers]
    raise UnfitRowError(
        "answers_column", "needs a mapping of text and answer_start, lists of equal length, or a "
        "list of mappings with both",
    )  # fmt: skip


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    """A question with its answers where they say they are."""
    context = cells.text("context_column", values["context_column"])
    found: list[tuple[int, str]] = []
    for start, text in _answers(values["answers_column"]):
        if not isinstance(text, str) or not text.strip() or type(start) is not int or start < 0:
            raise UnfitRowError(
                "answers_column", f"has {text!r} at {start!r}; needs a text and a place from 0"
            )
        if context[start : start + len(text)] != text:
            raise UnfitRowError(
                "answers_column", f"says that {text!r} starts at {start}; there the context "
                f"has {context[start : start + len(text)]!r}",
            )  # fmt: skip
        # No token stands for a blank at an end.
        found.append((start + len(text) - len(text.lstrip()), text.strip()))
    question = cells.text("question_column", values["question_column"])
    return Row(text=context, prompt=question, answers=tuple(found), group=context)


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

    @property
    def sizes(self) -> Sizes:
        """A target each; those of a question are evaluated together."""
        lengths = self.tokens.lengths
        return Sizes(lengths, np.ones_like(lengths), lengths, lengths, groups=self.questions)

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` and, where they are of use, `attention_mask` and `token_type_ids` [B, L].

        And `spans` [B, 2], and `in_context` [B, L].
        """
        last_chars_bl, _ = self.last_chars.padded(indices, 0)
        return read_tokens(self.tokens, indices, pad, self.types) | {
            "spans": torch.from_numpy(self.spans[indices]),
            "in_context": torch.from_numpy(last_chars_bl > 0),
        }

    def text(self, number: int, span: "Prediction", context: str) -> str:
        """What a span of a window says."""
        start = self.tokens.starts[number]
        first_char = self.first_chars.flat[start + span.first]
        return context[first_char : self.last_chars.flat[start + span.last]].strip()


class Prediction(NamedTuple):
    """The best span of one window; a tuple, since workers exchange it as JSON.

    Attributes:
        score: Sum of its two logits; of two windows the larger one is believed.
        no_span_score: The same for NO_SPAN.
        first, last: Its first and last token in the window.
    """

    score: float
    no_span_score: float
    first: int
    last: int


def prepare(workload: QuestionAnswering, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError."""
    data = workload.data
    split = read_splits(data, row_format(workload))
    tokenizer = aligned_tokenizer_for(workload.model, data, split.rows["train"], reads_words=False)
    windows = {name: _encode(rows, tokenizer, workload) for name, rows in split.rows.items()}
    most = _most_of_question(data.max_length)
    num_truncated: dict[Split, int] = {}
    for name, rows in split.rows.items():
        questions = [row.prompt or "" for row in rows]
        ids = tokenizer.tokenizer(questions, add_special_tokens=False)["input_ids"]
        num_truncated[name] = sum(len(question) > most for question in ids)
    notes = tuple(
        f"Answers of the {name} data that fit into no window: {lost:,}. They count as no answer; a "
        "larger stride or max_length may keep them."
        for name, rows in split.rows.items()
        if (lost := _num_lost(rows, windows[name]))
    )
    return TextTask(
        TokenModel(workload.model, data, tokenizer), "question_answering",
        SpanObjective(windows, split.rows, workload.max_answer_length), split.content_hash,
        split.num_dropped, summary_of(split, windows, num_truncated, notes),
        baseline="answer-position frequencies", num_examples=evaluation.num_examples,
        evaluated_at_once=50, num_labels=2,
    )  # fmt: skip


@dataclass(frozen=True)
class SpanObjective:
    """The answer's place; see `scaling.tasks.text_task.Objective`. Each window is one target.

    A context that is longer than `max_length` is cut into windows that share `stride` tokens.
    The loss of a window is the mean of the cross entropies of the span's first and last token,
    over all of the window's real tokens; a window without the (first) answer points at NO_SPAN.
    So a question counts as often as it has windows, in the loss and in the batch size.

    Source: Devlin et al. 2019 (arXiv:1810.04805) sec. 4.2 and 4.3.
    """

    examples: Mapping[Split, Windows]
    rows: Mapping[Split, Sequence[Row]]
    max_answer_length: int
    loss_unit: Unit = "nats"

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        label_smoothing: float,  # noqa: ARG002  # refused: a place has no fixed rivals
    ) -> Tensor:
        """Loss summed over windows, in nats."""
        return _losses(_logits(model, batch), batch).sum()

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing both ends of an answer by where they are in the training split."""
        windows = self.examples
        evaluated = {
            split: (windows[split].spans[:count], windows[split].tokens.lengths[:count])
            for split, count in counts.items()
        }
        return position_losses(windows["train"].spans, evaluated)

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single windows; predictions are each one's best span."""
        logits_b2l = _logits(model, batch)
        hits_b = (logits_b2l.argmax(-1) == batch["spans"]).all(1)
        spans = self._best_spans(logits_b2l, batch["in_context"])
        return BatchLosses(_losses(logits_b2l, batch), hits_b, list(spans))

    def _best_spans(self, logits_b2l: Tensor, in_context_bl: Tensor) -> Iterator[Prediction]:
        """Each window's most likely span of the context of at most `max_answer_length` tokens."""
        length = logits_b2l.shape[-1]
        first_bl = logits_b2l[:, 0].masked_fill(~in_context_bl, -torch.inf)
        last_bl = logits_b2l[:, 1].masked_fill(~in_context_bl, -torch.inf)
        is_span_ll = torch.ones(length, length, dtype=torch.bool, device=first_bl.device)
        is_span_ll = is_span_ll.triu().tril(self.max_answer_length - 1)
        scores_bll = first_bl[:, :, None] + last_bl[:, None, :]
        scores_bll = scores_bll.masked_fill(~is_span_ll, -torch.inf)
        best_b = scores_bll.flatten(1).max(1)
        no_span_b = logits_b2l[:, :, NO_SPAN].sum(1)
        for score, place, no_span in zip(
            best_b.values.tolist(), best_b.indices.tolist(), no_span_b.tolist(), strict=True
        ):
            yield Prediction(score, no_span, place // length, place % length)

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Exact match and F1 of whole questions, and the share of windows with the right span."""
        windows = share(
            "window accuracy", "Share of windows whose likeliest span is the right one, or none "
            "where the window has no answer.",
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
        windows = self.examples[split]
        of_question: dict[int, list[int]] = {}
        for number, question in enumerate(windows.questions[: len(predictions)].tolist()):
            of_question.setdefault(question, []).append(number)
        may_be_none = any(not row.answers for row in self.rows["train"])
        answers: list[str] = []
        for question, numbers in of_question.items():
            best = max(numbers, key=lambda number: predictions[number].score)
            no_span = min(predictions[number].no_span_score for number in numbers)
            text = windows.text(best, predictions[best], self.rows[split][question].text)
            is_none = may_be_none and no_span > predictions[best].score
            answers.append("" if is_none else text)
        return answers


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """[B, 2, L] of the span's first and last token; −inf at padding, so that it never counts."""
    output = FORWARD(model, batch)
    logits_b2l = at_least_float32(torch.stack([output.start_logits, output.end_logits], 1))
    if "attention_mask" not in batch:
        return logits_b2l
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
    max_length = workload.data.max_length
    tokens: list[IntArray] = []
    types: list[IntArray] = []
    chars: list[IntArray] = []  # [L, 2] each, where its tokens begin and end in the context
    spans: list[tuple[int, int]] = []
    questions: list[int] = []
    for first in range(0, len(rows), ENCODED_AT_ONCE):
        asked = rows[first : first + ENCODED_AT_ONCE]
        encoding = tokenizer.tokenizer(
            _within([row.prompt or "" for row in asked], tokenizer, _most_of_question(max_length)),
            [row.text for row in asked],
            truncation="only_second", max_length=max_length, stride=workload.stride,
            return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        tokens += [np.array(ids, dtype=np.int64) for ids in encoding["input_ids"]]
        types += [np.array(of, dtype=np.int64) for of in encoding.get("token_type_ids", ())]
        for number, row in enumerate(encoding["overflow_to_sample_mapping"]):
            is_context = np.array([text == 1 for text in encoding.sequence_ids(number)])
            offsets = np.array(encoding["offset_mapping"][number])
            chars.append(np.where(is_context[:, None], offsets, 0))
            spans.append(_span(chars[-1], asked[row]))
            questions.append(first + row)
    return Windows(
        Ragged.of(tokens),
        Ragged.of(types) if types else None,
        Ragged.of([of_window[:, 0] for of_window in chars]),
        Ragged.of([of_window[:, 1] for of_window in chars]),
        np.array(spans, dtype=np.int64),
        np.array(questions, dtype=np.int64),
    )


def _most_of_question(max_length: int) -> int:
    """Tokens of a question at most; what is longer loses its end."""
    return max_length // 2 - 1


def _within(questions: list[str], tokenizer: TrainedTokenizer, num_tokens: int) -> list[str]:
    """The beginnings of questions, at most so many tokens each."""
    encoding = tokenizer.tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question if len(chars) <= num_tokens else question[: chars[num_tokens - 1][1]]
        for question, chars in zip(questions, encoding["offset_mapping"], strict=True)
    ]


def _num_lost(rows: Sequence[Row], windows: Windows) -> int:
    """Questions whose (first) answer is whole in no window."""
    held = {int(n) for n in windows.questions[windows.spans[:, 1] != NO_SPAN]}
    return sum(bool(row.answers) and n not in held for n, row in enumerate(rows))


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
