"""Fixtures that many tests use."""

import socket

import pytest
import torch


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
