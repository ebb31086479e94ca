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


def use_cache_where_unreachable(workload: Workload) -> None:
    """Go by the hub's cache alone, here and in workers, where the hub's host has no address.

    Its client would try each file six times over 23 seconds before it looks into the cache.
    """
    source = (workload.data and workload.data.source) or ""
    models = [name for name in trained_names(workload) if not name.startswith("builtin:")]
    is_on_hub = source.startswith("hub:") or not all(Path(name).is_dir() for name in models)
    if not is_on_hub or urllib.request.getproxies():
        return
    url = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    try:
        socket.getaddrinfo(url.hostname, url.port or 443)
    except OSError:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
