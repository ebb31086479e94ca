"""Recipes and workloads that the tests train."""

from dataclasses import fields
from typing import Any

from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import (
    CausalLm,
    NoisyQuadratic,
    QuestionAnswering,
    Seq2Seq,
    TextClassification,
    TokenClassification,
)

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
DEFAULTS: dict[str, Any] = {
    "seed": 1, "world_size": 1, "batch_ramp_at_examples": (), "batch_ramp_factor": 2,
    "budget_seconds": None, "base_lr": None, "base_batch_size": None,
    "lr_scaling_rule": "none", "beta2_scaling": "none", "weight_decay_scaling": "none",
    "warmup_scaling": "steps", "warmup_steps": 0, "warmup_ratio": None,
    "warmup_examples": None, "schedule": "constant", "decay_ratio": 0.2, "decay_shape": "linear",
    "min_lr_ratio": 0.0, "optimizer": "adamw", "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999,
    "eps": 1e-8, "momentum": 0.0, "nesterov": False,
    "clip_norm": None, "clip_value": None, "clip_percentile": None, "clip_history_steps": 1000,
    "dropout": None, "label_smoothing": 0.0, "weight_average_half_life_examples": None,
    "strategy": "ddp", "precision": "fp32", "activation_checkpointing": False, "compile": False,
    "lora_rank": None,
    "branch_from_examples": None, "branch_multiple": 1, "branch_lr_factor": 1.0,
    "schedule_num_steps": None,
}  # fmt: skip


def recipe(global_batch_size: int, peak_lr: float, num_steps: int | None, **others: Any) -> Recipe:
    """A recipe with the tests' defaults; micro-batch and accumulation follow from the batch."""
    values = DEFAULTS | others | {
        "global_batch_size": global_batch_size, "peak_lr": peak_lr, "num_steps": num_steps,
    }  # fmt: skip
    share = global_batch_size // values["world_size"]
    values["micro_batch_size"] = values.get("micro_batch_size", share)
    values["grad_accum_steps"] = share // values["micro_batch_size"]
    assert values.keys() == {field.name for field in fields(Recipe)}
    return Recipe(**values)


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


def part_of_speech(num_train: int = 200) -> TextClassification:
    """Part of speech from characters with a tiny encoder."""
    data = {"source": "builtin:part_of_speech", "num_train": num_train}
    data |= {"num_validation": 60, "num_test": 60}
    return TextClassification.model_validate(
        {"task": "text_classification", "model": TINY_BERT, "data": data}
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
