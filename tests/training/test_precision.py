"""What torch may do to float32 inside a trial, whatever the user's code has set, and afterwards."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from scaling.spec.resources import Precision
from scaling.training.evaluation import matmul_precision

BACKENDS: Any = torch.backends
SWITCHES = {
    "all": BACKENDS, "matmul": BACKENDS.cuda.matmul, "conv": BACKENDS.cudnn.conv,
    "rnn": BACKENDS.cudnn.rnn, "mkldnn": BACKENDS.mkldnn.matmul,
}  # fmt: skip


@pytest.fixture
def _unchanged() -> Iterator[None]:
    with matmul_precision("fp32"):
        yield
        BACKENDS.fp32_precision = "none"


def now() -> dict[str, str]:
    return {name: switch.fp32_precision for name, switch in SWITCHES.items()}


@pytest.mark.usefixtures("_unchanged")
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("of_user", ["ieee", "tf32"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_the_precision_holds_whichever_switch_the_user_has_set(
    switch: str, of_user: str, precision: Precision
) -> None:
    for name in SWITCHES:
        SWITCHES[name].fp32_precision = "none"
    SWITCHES[switch].fp32_precision = of_user
    before = now()
    with matmul_precision(precision):
        inside = "tf32" if precision == "tf32" else "ieee"
        assert now() == before | dict.fromkeys(("matmul", "conv", "rnn", "mkldnn"), inside)
        # The older switches raise where they say otherwise.
        assert torch.get_float32_matmul_precision() == {"ieee": "highest", "tf32": "high"}[inside]
        assert BACKENDS.cuda.matmul.allow_tf32 == BACKENDS.cudnn.allow_tf32 == (inside == "tf32")
    assert now() == before


@pytest.mark.usefixtures("_unchanged")
@pytest.mark.parametrize("of_user", ["highest", "high", "medium"])
def test_the_older_switches_are_put_back(of_user: str) -> None:
    torch.set_float32_matmul_precision(of_user)
    BACKENDS.cudnn.allow_tf32 = of_user == "high"
    with matmul_precision("fp32"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == of_user
    assert BACKENDS.cudnn.allow_tf32 == (of_user == "high")


def read() -> list[object]:
    """What each older switch says, or that it raises."""
    found: list[object] = []
    for switch in (
        torch.get_float32_matmul_precision,
        lambda: BACKENDS.cuda.matmul.allow_tf32,
        lambda: BACKENDS.cudnn.allow_tf32,
    ):
        try:
            found.append(switch())
        except RuntimeError:
            found.append("raises")
    return found


@pytest.mark.usefixtures("_unchanged")
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@pytest.mark.parametrize("of_convolutions", [True, False])
@pytest.mark.parametrize("of_products", [None, "highest", "high", "medium"])
@pytest.mark.parametrize("allowed", [None, True, False])
def test_older_switches_that_were_set_alone_read_as_before(
    allowed: bool | None, of_products: str | None, of_convolutions: bool, precision: Precision
) -> None:
    for switch in SWITCHES.values():
        switch.fp32_precision = "none"
    torch.set_float32_matmul_precision(of_products or "highest")
    if of_products is None:
        BACKENDS.mkldnn.matmul.fp32_precision = "none"
    BACKENDS.cudnn.allow_tf32 = of_convolutions
    if allowed is not None:
        BACKENDS.cuda.matmul.allow_tf32 = allowed
    before = now(), read()
    with matmul_precision(precision):
        assert "raises" not in read()
    assert (now(), read()) == before
