"""A test that is not marked gpu is of a machine without one, whatever this machine has."""

import pytest
import torch

from tests.gpus import wants_gpus, why_no_gpu


def test_no_gpu_is_seen() -> None:
    assert why_no_gpu() == "sees no GPU beside other tests: pytest -m gpu"
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", False), ("not slow", False), ("not slow and not gpu", False), ("slow or gpu", False),
        ("ci and not gpu", False), ("(slow or not slow) and not gpu", False),
        ("gpu", True), ("(gpu)", True), ("gpu and not slow", True), ("not slow and gpu", True),
    ],
)  # fmt: skip
def test_who_asks_for_tests_of_a_gpu(expression: str, expected: bool) -> None:
    assert wants_gpus(expression) == expected
