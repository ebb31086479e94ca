"""Small tasks whose models are tried before they are trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.spec.workloads import CausalLm, TextClassification
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.tasks.text_task import TextTask
from scaling.tasks.trainable import require_trainable
from tests.recipes import EVALUATION


def write_texts(path: Path, num_rows: int = 60, longest: int = 12) -> dict[str, str]:
    """Texts of single letters, with a label and as questions and answers."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(num_rows):
        words = rng.choice(list("abcdefghij"), size=3 + i % (longest - 2)).tolist()
        rows.append({"text": " ".join(words), "label": "xy"[i % 2]})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {"train": str(path)}


def causal(tmp_path: Path, model: Any, **others: Any) -> TextTask:
    data = {"files": write_texts(tmp_path / "rows.jsonl"), "max_length": 16}
    data |= others.pop("data", {})
    workload = {"task": "causal_lm", "model": model, "data": data, **others}
    task = prepare_task(CausalLm.model_validate(workload), EVALUATION)
    assert isinstance(task, TextTask)
    return task


def classifying(tmp_path: Path, model: Any, **data: Any) -> Task:
    data = {"files": write_texts(tmp_path / "rows.jsonl"), "max_length": 16} | data
    workload = {"task": "text_classification", "model": model, "data": data}
    return prepare_task(TextClassification.model_validate(workload), EVALUATION)


def refused(task: Task, path: str, match: str, **options: Any) -> None:
    with pytest.raises(DataError, match=match) as raised:
        require_trainable(task, 0, **options)
    assert raised.value.path == path
    assert len(str(raised.value).splitlines()) == 1
