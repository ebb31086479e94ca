"""Rows that the tests of task families read."""

import json
from pathlib import Path
from typing import Any

import torch

CPU = torch.device("cpu")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Rows as the training file of a workload."""
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return {"train": str(path)}


def squad_rows(num_rows: int = 60) -> list[dict[str, Any]]:
    """Contexts of different lengths, some of several windows, with the answer at any place."""
    rows: list[dict[str, Any]] = []
    for i in range(num_rows):
        words = [f"word{(7 * i + j) % 23}" for j in range(5 + 13 * (i % 4))]
        words[(5 * i) % len(words)] = f"code-{i}"
        context = " ".join(words)
        answers = {"text": [f"code-{i}"], "answer_start": [context.index(f"code-{i}")]}
        rows.append({"question": f"which code {i}?", "context": context, "answers": answers})
    return rows
