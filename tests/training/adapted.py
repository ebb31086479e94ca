"""A trained model in a folder, and workloads that train adapters beside it."""

from pathlib import Path
from typing import Any

from scaling.spec.workloads import CausalLm, TextClassification
from scaling.tasks.prepare import prepare_task
from tests.recipes import EVALUATION, part_of_speech, pronunciation

TARGETS = {"causal_lm": ("q_proj", "down_proj"), "text_classification": ("query", "value")}
Adapted = CausalLm | TextClassification


def adapted(family: str, folder: str, **lora: Any) -> Adapted:
    """A small task whose pretrained model is in a folder, which is filled where it is empty.

    The encoder's folder has no classifier, as a body that was trained on something else.
    """
    workload = {"causal_lm": pronunciation, "text_classification": part_of_speech}[family]()
    if not Path(folder, "config.json").exists():
        model: Any = prepare_task(workload, EVALUATION).new_model(7)
        body = model if family == "causal_lm" else model.base_model
        body.save_pretrained(folder)
    given = workload.model_dump(exclude_unset=True)
    given["data"]["tokenizer"] = "characters"
    given["model"] = {
        "pretrained": folder,
        "lora": {"rank": 2, "alpha": 8.0, "target_modules": TARGETS[family], **lora},
    }
    return type(workload).model_validate(given)
