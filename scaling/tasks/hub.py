"""The Hugging Face hub, where a study names something on it and this machine does not reach it.

Imports neither torch nor the hub's client, which reads its settings when it is imported.
"""

import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from scaling.spec.models import Pretrained
from scaling.spec.workloads import NoisyQuadratic, Workload

HUB = "https://huggingface.co"


def is_on_hub(workload: Workload) -> bool:
    """Whether the data, the model or the tokenizer are named on a hub."""
    if isinstance(workload, NoisyQuadratic):
        return False
    names: list[str] = []
    if isinstance(workload.model, Pretrained):
        names.append(workload.model.pretrained)
    if workload.data.tokenizer not in (None, "characters", "subwords"):
        names.append(workload.data.tokenizer)
    is_named = any(not name.startswith("builtin:") and not Path(name).is_dir() for name in names)
    return is_named or (workload.data.source or "").startswith("hub:")


def use_cache_where_unreachable(workload: Workload) -> None:
    """Go by the hub's cache alone, here and in workers, where the hub's host has no address.

    Its client would try each file six times over 23 seconds before it looks into the cache.
    """
    if not is_on_hub(workload) or urllib.request.getproxies():
        return
    url = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    try:
        socket.getaddrinfo(url.hostname, url.port or 443)
    except OSError:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
