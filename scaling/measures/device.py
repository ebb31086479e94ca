"""What a worker computes on."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.cuda import nccl

GPU_FACTS = ("gpu", "version_cuda", "version_nccl", "version_gpu_driver")
"""What an environment says of GPUs."""
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Device:
    """A worker's device, as a study's record has it.

    Attributes:
        name: torch's, as in cuda:0.
        facts: The GPU's name and the versions of what drives it, by `GPU_FACTS`; empty of a CPU.
    """

    name: str
    facts: dict[str, str] = field(default_factory=dict[str, str])


def describe_device(device: torch.device) -> Device:
    """A device of this process, with what its results may depend on."""
    if device.type != "cuda":
        return Device(str(device))
    facts = {
        "gpu": torch.cuda.get_device_name(device),
        "version_cuda": str(torch.version.cuda or torch.version.hip),
        "version_nccl": ".".join(map(str, nccl.version())),
    }
    if _DRIVER.exists() and (driver := driver_version(_DRIVER.read_text(encoding="utf-8"))):
        facts["version_gpu_driver"] = driver
    return Device(str(device), facts)


def driver_version(text: str) -> str | None:
    """The version in what NVIDIA's kernel module says of itself; None where there is none."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", text)
    return found and found[1]
