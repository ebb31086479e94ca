"""Which tests see this machine's GPUs: those marked gpu, which are run by themselves.

All others say what a machine without one does. On one that has some they would train there, ask
for more of them than there are, and expect a CPU's numbers. What a process sees is decided once,
by its environment before torch asks the driver; Ray, and what else a test starts, sees the same.
"""

import os
import re

VARIABLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = "sees no GPU beside other tests: pytest -m gpu"


def hide_gpus(expression: str) -> None:
    """Show this process no GPU, and none that it starts, unless pytest's -m wants tests of one."""
    if not wants_gpus(expression):
        os.environ[VARIABLE] = ""


def wants_gpus(expression: str) -> bool:
    """Whether what pytest's -m selects is marked gpu."""
    words = re.sub(r"\bnot\s+gpu\b", "", expression).split()
    return "gpu" in words and "or" not in words


def are_hidden() -> bool:
    """Whether this process sees no GPU whatever the machine has."""
    return os.environ.get(VARIABLE) == ""
