"""Every YAML block of the pages is a study file, or sections of one, that the reader takes."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.spec.read import study_from_mapping
from tests.docs.pages import PAGES, ROOT, blocks, name_of

AROUND: dict[str, Any] = {
    "name": "own",
    "question": "?",
    "workload": {
        "task": "causal_lm",
        "model": {
            "architecture": "llama", "hidden_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "data": {"source": "builtin:grapheme_to_phoneme", "num_train": 1500},
    },
    "scientific": {"global_batch_size": [16, 64, 256]},
    "nuisance": {"peak_lr": {"log_uniform": [1e-4, 1e-2]}},
    "budget": {"examples": 100_000},
    "evaluation": {"every_examples": 2000, "num_examples": 500},
    "search": {"num_trials": 24},
}  # fmt: skip
"""Sections of a study in which those of a block take the place of their like."""
EVERY = [(page, text) for page in PAGES for text in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), EVERY, ids=[name_of(page) for page, _ in EVERY])
def test_a_block_of_yaml_is_read(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.parquet", "reviews.csv", "chats-1.jsonl", "held_out.jsonl"):
        Path(name).write_text("content of any kind", encoding="utf-8")
    shown = yaml.safe_load(text)
    if find_spec("s3fs") is None:  # of the extra s3
        shown.pop("storage", None)
    around = AROUND if "name" not in shown else {}
    if "ladder" in shown:
        around = {**around, "budget": {"tokens": 100_000}}
    spec = study_from_mapping({**around, **shown})
    assert shown.keys() <= spec.model_fields_set


def test_the_whole_study_of_the_reference_is_the_default_one() -> None:
    [whole, *_] = blocks(ROOT / "docs/reference/study-file.md", "yaml")
    default = yaml.safe_load((ROOT / "studies/lr_vs_batch.yaml").read_text(encoding="utf-8"))
    assert study_from_mapping(yaml.safe_load(whole)) == study_from_mapping(default)
