"""Scores against tables worked by hand."""

import pytest

from scaling.tasks.scores import (
    EntityScheme,
    answer_f1,
    class_scores,
    entity_scheme,
    entity_scores,
    error_rate,
    exact_match,
    normalized_answer,
    pronunciation_scores,
    text_scores,
)


def test_class_scores_by_hand() -> None:
    # Class 0: 2 right of 2 labels and 3 predictions, F1 0.8; class 1: 1 of 2 and 1, F1 2/3.
    scores = class_scores([0, 0, 1, 1], [0, 0, 0, 1])
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    # (TP TN − FP FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (1·2 − 0·1) / √(1·2·2·3)
    assert scores["mcc"] == pytest.approx(2 / 12**0.5)


@pytest.mark.parametrize(("labels", "predicted"), [([1, 1], [1, 1]), ([0, 1], [1, 1])])
def test_one_class_alone_correlates_with_nothing(labels: list[int], predicted: list[int]) -> None:
    assert class_scores(labels, predicted)["mcc"] == 0


def test_more_classes_than_half_the_examples_are_no_reason_to_warn() -> None:
    assert class_scores([0, 1, 2], [0, 1, 2]) == {"macro_f1": 1.0, "mcc": 1.0}


def test_entities_count_when_type_and_both_ends_are_right() -> None:
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC", "O"]]
    scores = entity_scores(tags, predicted, "BIO")  # 1 of 3 predicted, 1 of 3 given
    assert scores == {key: pytest.approx(1 / 3) for key in scores}
    assert entity_scores([["O", "O"]], [["O", "O"]], "BIO")["entity_f1"] == 0


@pytest.mark.parametrize(("scheme", "last", "single"), [("BIOES", "E", "S"), ("BILOU", "L", "U")])
def test_entities_with_marked_ends_count_strictly(
    scheme: EntityScheme, last: str, single: str
) -> None:
    tags = [["B-PER", "I-PER", f"{last}-PER", "O", f"{single}-LOC"], ["O", f"{single}-LOC"]]
    # The first one lacks its end and is none; the second is of another type; the third is right.
    predicted = [["B-PER", "I-PER", "O", "O", f"{single}-PER"], ["O", f"{single}-LOC"]]
    scores = entity_scores(tags, predicted, scheme)
    assert scores["entity_precision"] == pytest.approx(1 / 2)
    assert scores["entity_recall"] == pytest.approx(1 / 3)
    assert scores["entity_f1"] == pytest.approx(0.4)
    assert entity_scores(tags, tags, scheme)["entity_f1"] == 1
    nothing = [["O"] * len(sentence) for sentence in tags]
    assert entity_scores(tags, nothing, scheme)["entity_f1"] == 0


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["O", "B-X", "I-X"], "BIO"), (["B-X", "B-Y"], "BIO"), (["O", "I-X"], "BIO"),
        (["O", "B-X", "E-X", "I-X", "S-Y"], "BIOES"), (["S-X", "O"], "BIOES"),
        (["O", "B-X", "L-X", "I-X", "U-Y"], "BILOU"), (["U-X", "O"], "BILOU"),
        (["NOUN", "VERB"], None), (["O", "X"], None), (["O"], None), (["B-X", "E-X", "L-X"], None),
    ],
)  # fmt: skip
def test_which_tags_are_of_entities(tags: list[str], expected: str | None) -> None:
    assert entity_scheme(tags) == expected


@pytest.mark.parametrize(
    ("predicted", "answers", "em", "f1"),
    [
        ("The Cat!", ["cat"], 1, 1),
        ("cat sat", ["the cat"], 0, 2 / 3),
        ("a b c d", ["x", "b c"], 0, 0.8),  # a is an article: {b, c} of 3 and 2 words
        ("dog", ["cat"], 0, 0),
        ("", [], 1, 1),
        ("dog", [], 0, 0),
        ("dog dog", ["dog"], 0, 2 / 3),
    ],
)
def test_answers_by_hand(predicted: str, answers: list[str], em: float, f1: float) -> None:
    assert exact_match(predicted, answers) == em
    assert answer_f1(predicted, answers) == pytest.approx(f1)


def test_answers_are_normalized_as_in_squad() -> None:
    assert normalized_answer("  An  Apple, the\tPEAR; a.b ") == "apple pear ab"


def test_error_rates_by_hand() -> None:
    references = [["K", "AE", "T"], ["D", "AO", "G"]]
    predicted = [["K", "AE", "T", "S"], ["D", "G"]]  # one insertion, one deletion
    assert error_rate(predicted, references) == pytest.approx(2 / 6)
    scores = pronunciation_scores(["K AE T", "D AA G", ""], ["K AE T", "D AO G", "S OW"])
    assert scores == {
        "phone_error_rate": pytest.approx(3 / 8), "word_error_rate": pytest.approx(2 / 3)
    }  # fmt: skip


def test_text_scores_of_the_same_and_of_other_texts() -> None:
    references = ["the cat sat on the mat", "a dog ran far away"]
    assert text_scores(references, references) == {
        "bleu": pytest.approx(100), "chrf": pytest.approx(100), "word_error_rate": 0,
        "rouge_1": 1, "rouge_2": 1, "rouge_l": 1,
    }  # fmt: skip
    scores = text_scores(["the cat sat on mat"], ["the cat sat on the mat"])
    # 5/5 words, 3/4 pairs, 2/3 triples, 1/2 fours; brevity exp(1 − 6/5).
    bleu = 100 * (3 / 4 * 2 / 3 * 1 / 2) ** 0.25 * 2.718281828459045 ** (-1 / 5)
    assert scores["bleu"] == pytest.approx(bleu)
    assert scores["rouge_1"] == pytest.approx(2 * 5 / 11)
    assert scores["rouge_2"] == pytest.approx(2 * 3 / 9)
    assert scores["rouge_l"] == pytest.approx(2 * 5 / 11)
    assert scores["word_error_rate"] == pytest.approx(1 / 6)
