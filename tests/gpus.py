"""Which tests see this machine's GPUs: those marked gpu, which are run by themselves.

All others say what a machine without one does. On one that has some they would train there, ask
for more of them than there are, and expect a CPU's numbers. What a process sees is decided once,
by its environment before torch asks the driver; Ray, and what else a test starts, sees the same.
"""

import os
import re

import torch

VARIABLE = "CUDA_VISIBLE_DEVICES"


def hide_gpus(expression: str) -> None:
    """Show this process no GPU, and none that it starts, unless pytest's -m wants tests of one."""
    if not wants_gpus(expression):
        os.environ[VARIABLE] = ""


def wants_gpus(expression: str) -> bool:
    """Whether what pytest's -m selects is marked gpu."""
    words = re.findall(r"\w+", re.sub(r"\bnot\s+gpu\b", "", expression))
    return "gpu" in words and "or" not in words


def why_no_gpu() -> str | None:
    """Why tests of a GPU cannot run in this process; None where they can."""
    if os.environ.get(VARIABLE) == "":
        return "sees no GPU beside other tests: pytest -m gpu"
    return None if torch.cuda.is_available() else "torch sees no GPU here"
