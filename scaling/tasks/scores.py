"""How predictions compare with references: classes, entities, answers and texts."""

import re
import string
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from scaling.records.metrics import Metric

PERPLEXITY = Metric(
    "perplexity", "exp of the validation loss, which is in nats per token: the number of equally "
    "likely tokens that would be as hard to guess.",
    direction="minimize", over_seeds="geometric_mean",
)  # fmt: skip


def share(label: str, help: str) -> Metric:
    """A metric between 0 and 1, of which more is better."""
    return Metric(label, help, unit="fraction", direction="maximize", least=0, most=1)


MACRO_F1 = share("macro-F1", "Mean of F1 over the classes that occur among labels or predictions.")

CLASS_METRICS: Mapping[str, Metric] = {
    "macro_f1": MACRO_F1,
    "mcc": Metric(
        "Matthews correlation", "Correlation of labels and predictions, −1 … 1; 0 where all are of "
        "one class (for several classes R_K, Gorodkin 2004).",
        direction="maximize", least=-1, most=1,
    ),
}  # fmt: skip
"""Of `class_scores`."""


def class_scores(labels: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Macro-F1 and Matthews' correlation coefficient of single-class predictions.

    Source: by scikit-learn; the coefficient for several classes is R_K, Gorodkin 2004,
        Computational Biology and Chemistry 28.
    """
    return {"macro_f1": macro_f1(labels, predicted), "mcc": _mcc(labels, predicted)}


def macro_f1(labels: Sequence[int], predicted: Sequence[int]) -> float:
    """Mean of F1 over the classes that occur among labels or predictions."""
    from sklearn.metrics import f1_score

    with _few_examples():
        return float(f1_score(labels, predicted, average="macro", zero_division=0.0))  # pyright: ignore[reportArgumentType]  # its stubs want a string


MULTI_LABEL_METRICS: Mapping[str, Metric] = {
    "exact_match": share("exact match", "Share of texts of which all classes are right."),
    "micro_f1": share(
        "micro-F1", "F1 over all texts and classes together: 2 × hits over marks of the labels and "
        "of the predictions.",
    ),
    "macro_f1": share("macro-F1", "Mean of F1 over the classes; 0 for one that nothing has."),
}  # fmt: skip
"""Of texts with any number of classes."""


def multi_label_f1(labels: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> dict[str, float]:
    """F1 over all classes together, and its mean over them; 0 where nothing is marked.

    Args:
        labels: [N, C] which classes each text has.
        predicted: [N, C] those predicted.
    """
    hits = (labels & predicted).sum(0)
    marks = labels.sum(0) + predicted.sum(0)
    each = 2 * hits / np.maximum(marks, 1)
    return {
        "micro_f1": float(2 * hits.sum() / max(marks.sum(), 1)),
        "macro_f1": float(each.mean()),
    }


REGRESSION_METRICS: Mapping[str, Metric] = {
    "rmse": Metric(
        "RMSE", "Root of the mean squared error, in the label's own unit.",
        direction="minimize", least=0,
    ),
    "pearson": Metric(
        "Pearson correlation", "Linear correlation of labels and predictions, −1 … 1; 0 where one "
        "of them is constant.",
        direction="maximize", least=-1, most=1,
    ),
    "spearman": Metric(
        "Spearman correlation", "Correlation of the ranks of labels and predictions, −1 … 1; 0 "
        "where one of them is constant.",
        direction="maximize", least=-1, most=1,
    ),
}  # fmt: skip
"""Of `regression_scores`."""


def regression_scores(
    labels: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, float]:
    """Root mean squared error and correlations; [N] labels and predictions.

    Source: Spearman's is Pearson's of the ranks, ties having their mean rank.
    """
    from scipy.stats import rankdata

    return {
        "rmse": float(np.sqrt(np.square(labels - predicted).mean())),
        "pearson": _correlation(labels, predicted),
        "spearman": _correlation(rankdata(labels), rankdata(predicted)),
    }


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _mcc(labels: Sequence[int], predicted: Sequence[int]) -> float:
    from sklearn.metrics import matthews_corrcoef

    if len(set(labels) | set(predicted)) == 1:
        return 0.0  # scikit-learn warns of it
    with _few_examples():
        return float(matthews_corrcoef(labels, predicted))


@contextmanager
def _few_examples() -> Iterator[None]:
    """Let there be more classes than half the examples, of which scikit-learn warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield


EntityScheme = Literal["BIO", "BIOES", "BILOU"]


def entity_scheme(tags: Iterable[str]) -> EntityScheme | None:
    """How tags mark entities, as in B-PER; None for tags that are not of entities.

    BIO: B- and I- at an entity's first and later words. In IOB2 every entity begins with B-; in
    IOB1 only one that follows another of its type, so that there may be none. BIOES also marks
    last words by E- and single ones by S-; BILOU by L- and U-. A word outside is O in all of them.
    """
    found = [re.fullmatch(r"O|([BIESLU])-.+", tag) for tag in tags]
    marks = {match[1] for match in found if match is not None and match[1]}
    if None in found or not marks:
        return None
    if marks <= set("BI"):
        return "BIO"
    if marks <= set("BIES"):
        return "BIOES"
    return "BILOU" if marks <= set("BILU") else None


ENTITY_METRICS: Mapping[str, Metric] = {
    "entity_precision": share(
        "entity precision", "Share of the entities found that are right in type and both ends."
    ),
    "entity_recall": share("entity recall", "Share of the entities marked that were found."),
    "entity_f1": share("entity F1", "Harmonic mean of entity precision and recall."),
}
"""Of `entity_scores`."""


def entity_scores(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: EntityScheme
) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, over all of them; 0 where there are none.

    An entity counts as found when its type and both ends are right.

    Source: by seqeval; BIO as the CoNLL-2000 script conlleval counts, which forgives an entity
        that begins with I-; BIOES (there IOBES) and BILOU strictly, where marks that make no whole
        entity are none.
    """
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import BILOU, IOBES

    given = [list(sentence) for sentence in tags], [list(sentence) for sentence in predicted]
    how: dict[str, Any] = {"zero_division": 0}
    match scheme:
        case "BIO":
            pass
        case "BIOES":
            how |= {"mode": "strict", "scheme": IOBES}
        case "BILOU":
            how |= {"mode": "strict", "scheme": BILOU}
        case _:
            assert_never(scheme)
    return {
        "entity_precision": float(precision_score(*given, **how)),  # pyright: ignore[reportArgumentType]
        "entity_recall": float(recall_score(*given, **how)),  # pyright: ignore[reportArgumentType]
        "entity_f1": float(f1_score(*given, **how)),  # pyright: ignore[reportArgumentType]
    }


ANSWER_METRICS: Mapping[str, Metric] = {
    "exact_match": share(
        "exact match", "Share of questions whose answer is one of the right ones, but for case, "
        "punctuation and articles (Rajpurkar et al. 2016).",
    ),
    "answer_f1": share(
        "answer F1", "Mean over questions of the largest F1 of the words shared with a right "
        "answer (Rajpurkar et al. 2016).",
    ),
}  # fmt: skip
"""Means of `exact_match` and `answer_f1`."""


def normalized_answer(text: str) -> str:
    """Lower case, without punctuation, articles and repeated blanks.

    Source: the evaluation script of SQuAD, Rajpurkar et al. 2016 (arXiv:1606.05250) sec. 6.1.
    """
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(predicted: str, answers: Sequence[str]) -> float:
    """1 where the prediction is one of the answers, normalized; without answers, the empty one."""
    found = normalized_answer(predicted)
    return float(any(found == normalized_answer(answer) for answer in answers or [""]))


def answer_f1(predicted: str, answers: Sequence[str]) -> float:
    """Largest F1 of the words shared with one of the answers, normalized.

    Where a normalized text has no words, both must have none (as in SQuAD 2.0).

    Source: Rajpurkar et al. 2016 (arXiv:1606.05250) sec. 6.1; 2018 (arXiv:1806.03822).
    """
    return max(_word_f1(predicted, answer) for answer in answers or [""])


def _word_f1(predicted: str, answer: str) -> float:
    ours, theirs = normalized_answer(predicted).split(), normalized_answer(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    num_shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * num_shared / (len(ours) + len(theirs))


def error_rate(predicted: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Insertions, deletions and substitutions over the units of all references; may exceed 1.

    Source: the word error rate with units in place of words; distances by rapidfuzz.
    """
    from rapidfuzz.distance import Levenshtein

    num_edits = sum(
        Levenshtein.distance(ours, theirs)
        for ours, theirs in zip(predicted, references, strict=True)
    )
    return num_edits / sum(len(reference) for reference in references)


TEXT_METRICS: Mapping[str, Metric] = {
    "bleu": Metric(
        "BLEU", "Of the corpus, 0 … 100 (Papineni et al. 2002, by sacrebleu).",
        direction="maximize", least=0, most=100,
    ),
    "chrf": Metric(
        "chrF", "Of the corpus, 0 … 100 (Popović 2015, by sacrebleu).",
        direction="maximize", least=0, most=100,
    ),
    **{
        f"rouge_{kind.lower()}": share(
            f"ROUGE-{kind}", f"Mean F1 of {what} (Lin 2004, by rouge-score without stemming)."
        )
        for kind, what in (
            ("1", "shared words"), ("2", "shared pairs of words"),
            ("L", "the longest common subsequence"),
        )
    },
    "word_error_rate": Metric(
        "word error rate", "Insertions, deletions and substitutions over the words of all "
        "references; may exceed 100%.",
        unit="fraction", direction="minimize", least=0,
    ),
}  # fmt: skip
"""Of `text_scores`."""


def text_scores(predicted: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF (0–100, of the corpus), ROUGE F1 (0–1, mean), word error rate.

    Source: Papineni et al. 2002 and Popović 2015, by sacrebleu at its defaults (Post 2018,
        arXiv:1804.08771); Lin 2004, by rouge-score without stemming, so for any script of which
        its tokenizer (a–z and 0–9) reads something.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import corpus_bleu, corpus_chrf

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds))
    rouge = [scorer.score(theirs, ours) for ours, theirs in zip(predicted, references, strict=True)]
    return {
        "bleu": corpus_bleu(list(predicted), [list(references)]).score,
        "chrf": corpus_chrf(list(predicted), [list(references)]).score,
        **{
            name: sum(score[kind].fmeasure for score in rouge) / len(rouge)
            for name, kind in zip(("rouge_1", "rouge_2", "rouge_l"), kinds, strict=True)
        },
        "word_error_rate": error_rate(
            [text.split() for text in predicted], [text.split() for text in references]
        ),
    }


PRONUNCIATION_METRICS: Mapping[str, Metric] = {
    "phone_error_rate": Metric(
        "phone error rate", "Insertions, deletions and substitutions over the phones of all "
        "references; may exceed 100%.",
        unit="fraction", direction="minimize", least=0,
    ),
    "word_error_rate": Metric(
        "word error rate", "Share of words with a wrong phone (Yao and Zweig 2015).",
        unit="fraction", direction="minimize", least=0, most=1,
    ),
}  # fmt: skip
"""Of `pronunciation_scores`."""


def pronunciation_scores(predicted: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Phone error rate, and word error rate: the share of words with a wrong phone.

    Source: Yao and Zweig 2015 (arXiv:1506.00196) sec. 4.
    """
    ours = [text.split() for text in predicted]
    theirs = [text.split() for text in references]
    num_wrong = sum(mine != right for mine, right in zip(ours, theirs, strict=True))
    return {
        "phone_error_rate": error_rate(ours, theirs),
        "word_error_rate": num_wrong / len(theirs),
    }
