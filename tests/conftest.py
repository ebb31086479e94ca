"""Fixtures that many tests use."""

import socket

import pytest
import torch

from tests.read_once import read_builtin_data_once

read_builtin_data_once()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In parallel, what uses Ray is one queue, begun first, and each other file is one of its own.

    So whatever a session or a module has in common is made once, and Ray never runs twice at once.
    """
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    # The files of training, which take longest, are last by name.
    items.sort(key=lambda item: (bool(item.get_closest_marker("ray")), item.path), reverse=True)


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models are faster on one thread, and give the same numbers on every machine."""
    torch.set_num_threads(1)
