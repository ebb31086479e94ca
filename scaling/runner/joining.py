"""Joining a Ray cluster that runs already: what an address must be, and what a failure means.

Imports no Ray, so that an address is looked at before anything is started or written.
"""

import os
import re
import socket

from scaling.files.shown_error import first_line
from scaling.runner.preflight import StartError

JOIN_SECONDS = 30.0
"""How long an address is waited for, once."""
NUM_ASKED = "RAY_NUM_REDIS_GET_RETRIES"
"""Environment variable: how often Ray asks an address, 40 seconds each where nobody answers."""

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_SUBMIT = "ray job submit --address http://HEAD:8265 -- python -m scaling.study …"
_NO_ANSWER = "Failed to connect to Ray cluster"
_REFUSED_TOKEN = "InvalidAuthToken"
_VERSIONS = re.compile(r"(Ray|Python): (\S+)")


def require_address(address: str, source: str, is_plan: bool) -> None:
    """Check that something listens at an address, HOST:PORT.

    Args:
        address: As the user gave it.
        source: The option or environment variable that gave it.
        is_plan: Whether nobody is to be asked, so that its form alone is looked at.

    Raises:
        StartError: If it is not one, or nothing listens there; says what to do.
    """
    if address.startswith("ray://"):
        raise StartError(
            f"{source}: {address} is for Ray's client, by which no study runs; give HOST:6379 on "
            f"a machine of the cluster, or from outside: {_SUBMIT}"
        )
    if address.startswith(("http://", "https://")):
        raise StartError(
            f"{source}: {address} is where jobs are submitted ({_SUBMIT}); on a machine of the "
            "cluster give HOST:6379"
        )
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise StartError(
            f"{source}: {address!r} is not the address of a Ray cluster; give HOST:PORT, auto or "
            "local"
        )
    if is_plan:
        return
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        with socket.create_connection((host, port), timeout=JOIN_SECONDS):
            return
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise StartError(
            f"no Ray cluster at {address} ({reason}); is it running? `ray status` on its head "
            "shows it, and Ray's own port is 6379"
        ) from None


def no_cluster(where: str) -> str:
    """That what listens somewhere is no cluster of Ray."""
    return (
        f"what listens at {where} does not answer as a Ray cluster does; Ray's own port is 6379, "
        f"and from outside of the cluster: {_SUBMIT}"
    )


def join_problem(error: Exception, where: str, native: str) -> str:
    """Why a cluster could not be joined, and what to do, in one line.

    Args:
        error: What `ray.init` raised.
        where: The cluster, in words.
        native: What Ray's code in C++ has written meanwhile.
    """
    text = str(error)
    if "no authentication token" in text:
        return (
            f"the Ray cluster at {where} is joined with a token, and there is none here; put the "
            "cluster's into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    if _REFUSED_TOKEN in native + text:
        if os.environ.get("RAY_AUTH_MODE", "token") != "token":
            return (
                f"the Ray cluster at {where} asks for a token; set RAY_AUTH_MODE=token and put the "
                "cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN"
            )
        return (
            f"the Ray cluster at {where} has another token than this machine; put the cluster's "
            "into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        )
    versions = [f"{name} {version}" for name, version in _VERSIONS.findall(text)]
    if "Version mismatch" in text and len(versions) == 4:
        theirs, ours = " and ".join(versions[:2]), " and ".join(versions[2:])
        return (
            f"the Ray cluster at {where} has {theirs}, this machine {ours}; install the cluster's "
            f"versions here, or run the study there: {_SUBMIT}"
        )
    if _NO_ANSWER in text:
        return no_cluster(where)
    return (
        f"cannot join the Ray cluster at {where}: {first_line(error)}; is this one of its "
        f"machines? From outside: {_SUBMIT}"
    )
