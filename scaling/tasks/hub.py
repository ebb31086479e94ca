"""The Hugging Face hub, where a study names something on it and this machine does not reach it.

Imports neither torch nor the hub's client, which reads its settings when it is imported.
"""

import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from scaling.spec.workloads import Workload
from scaling.tasks.content import trained_names

HUB = "https://huggingface.co"


def is_on_hub(workload: Workload) -> bool:
    """Whether the data, the model or the tokenizer are named on a hub."""
    if workload.data is not None and (workload.data.source or "").startswith("hub:"):
        return True
    names = trained_names(workload)
    return any(not name.startswith("builtin:") and not Path(name).is_dir() for name in names)


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
