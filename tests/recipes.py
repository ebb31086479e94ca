"""Recipes and workloads that the tests train."""

from dataclasses import fields, replace
from importlib import import_module
from typing import Any

from scaling.records.recipe import Hyperparameters, Layout, Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.own_training import Custom
from scaling.spec.workloads import (
    CausalLm,
    NoisyQuadratic,
    QuestionAnswering,
    Seq2Seq,
    TextClassification,
    TextWorkload,
    TokenClassification,
)
from scaling.tasks.data.reading import ReadRows, read_rows

TINY_LLAMA = {
    "architecture": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
TINY_BERT = {
    **TINY_LLAMA, "architecture": "bert",
    "config": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}  # fmt: skip
TINY_MBART = {
    **TINY_LLAMA, "architecture": "mbart",
    "config": {"init_std": 0.1, "scale_embedding": False, "dropout": 0.0},
}  # fmt: skip
EVALUATION = Evaluation(every_steps=5, num_examples=50)


def recipe(global_batch_size: int, peak_lr: float, num_steps: int | None, **others: Any) -> Recipe:
    """A recipe with the tests' defaults; micro-batch and accumulation follow from the batch."""
    share = global_batch_size // others.get("world_size", 1)
    micro_batch_size = others.pop("micro_batch_size", share)
    return changed(
        Recipe(
            1,
            Hyperparameters(
                global_batch_size=global_batch_size, peak_lr=peak_lr, num_steps=num_steps,
                weight_decay=0.01,
            ),
            Layout(micro_batch_size=micro_batch_size, grad_accum_steps=share // micro_batch_size),
        ),
        **others,
    )  # fmt: skip


def changed(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe with other values, each in the part that has it."""
    parts: dict[str, dict[str, Any]] = {"hyperparameters": {}, "layout": {}, "origin": {}}
    for part, values in parts.items():
        known = {field.name for field in fields(getattr(recipe, part))}
        values.update({name: changes.pop(name) for name in known & changes.keys()})
    inside = {part: replace(getattr(recipe, part), **values) for part, values in parts.items()}
    return replace(recipe, **inside, **changes)


def quadratic(**sizes: int) -> NoisyQuadratic:
    """Noisy quadratics."""
    return NoisyQuadratic(task="noisy_quadratic", **sizes)


def pronunciation(num_train: int = 200, **others: Any) -> CausalLm:
    """Grapheme to phoneme with a tiny decoder."""
    data = {"source": "builtin:grapheme_to_phoneme", "num_train": num_train}
    data |= {"num_validation": 60, "num_test": 60}
    return CausalLm.model_validate(
        {"task": "causal_lm", "model": TINY_LLAMA, "data": data, **others}
    )


def part_of_speech(num_train: int = 200, **others: Any) -> TextClassification:
    """Part of speech from characters with a tiny encoder."""
    data = {"source": "builtin:part_of_speech", "num_train": num_train}
    data |= {"num_validation": 60, "num_test": 60}
    return TextClassification.model_validate(
        {"task": "text_classification", "model": TINY_BERT, "data": data, **others}
    )


def tagging(num_train: int = 100, **others: Any) -> TokenClassification:
    """Part of speech of the words of sentences with a tiny encoder."""
    data = {"source": "builtin:part_of_speech_treebank", "num_train": num_train}
    data |= {"num_validation": 60, "num_test": 60, "max_length": 64, **others}
    return TokenClassification.model_validate(
        {"task": "token_classification", "model": TINY_BERT, "data": data}
    )


def questions(files: dict[str, str], **others: Any) -> QuestionAnswering:
    """Questions and contexts in files, read by a tiny encoder in short windows."""
    data = {"files": files, "max_length": 40, "tokenizer": "subwords", "vocab_size": 200}
    return QuestionAnswering.model_validate(
        {"task": "question_answering", "model": TINY_BERT, "stride": 8, "data": data, **others}
    )


def python_questions(num_train: int = 60) -> QuestionAnswering:
    """Questions about the standard library, read by a tiny encoder in short windows."""
    data = {"source": "builtin:python_questions", "num_train": num_train, "max_length": 40}
    data |= {"num_validation": 20, "num_test": 20, "tokenizer": "subwords", "vocab_size": 200}
    return QuestionAnswering.model_validate(
        {"task": "question_answering", "model": TINY_BERT, "stride": 8, "data": data}
    )


def spelling(num_train: int = 200, **others: Any) -> Seq2Seq:
    """Grapheme to phoneme with a tiny encoder-decoder."""
    data = {"source": "builtin:grapheme_to_phoneme", "num_train": num_train}
    data |= {"num_validation": 60, "num_test": 60}
    return Seq2Seq.model_validate({"task": "seq2seq", "model": TINY_MBART, "data": data, **others})


def own_sequences(**options: int) -> Custom:
    """A convolution and attention of a user's own, over sequences of unequal lengths."""
    factory = "tests.own.conv_attention:build"
    return Custom.model_validate({"task": "custom", "factory": factory, "options": options})


def rows_of(workload: TextWorkload) -> ReadRows:
    """All rows of a workload's source, as its family reads them."""
    family = import_module(f"scaling.tasks.{workload.task}")
    return read_rows(workload.data, family.row_format(workload))
