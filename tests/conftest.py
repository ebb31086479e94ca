"""Fixtures that many tests use."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_limits
from xdist.scheduler import LoadScopeScheduling

from tests.analysed_once import analyse_once
from tests.drawn_once import draw_figures_once
from tests.gpus import hide_gpus, why_no_gpu
from tests.read_once import read_builtin_data_once
from tests.result_cache import share_in

read_builtin_data_once()
draw_figures_once()
analyse_once()
# Its matrices are small, and where other processes hold the cores, threads of BLAS wait for each
# other eight times as long as they compute.
threadpool_limits(1, user_api="blas")
# Ray's workers are the most polite processes of a machine; beside other tests they would starve.
# And a test that asks Ray something does not start a Ray of its own by that, but fails.
os.environ.update(RAY_worker_niceness="0", RAY_ENABLE_AUTO_CONNECT="0")


TESTS = Path(__file__).parent
USE_RAY = {
    f"tests/{path.relative_to(TESTS)}"
    for path in TESTS.rglob("test_*.py")
    if "pytest.mark.ray" in path.read_text(encoding="utf-8")
}
"""Files of tests that run on Ray."""


class ByFile(LoadScopeScheduling):
    """In parallel, all files that use Ray are one queue, and each other file is one of its own.

    So whatever a session or a module has in common is made once, and Ray never runs twice at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if file in USE_RAY else file


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all other tests, and let the processes of a run in parallel share results.

    The first process starts the others.
    """
    hide_gpus(config.getoption("markexpr"))
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="result-cache-")
        share_in(folder)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ray's queue first; the files of training, which take longest, are last by name.

    Whoever shares the session's study or cluster is in that queue, or it would be run twice.
    """
    for item in items:
        if item.get_closest_marker("gpu") and (why := why_no_gpu()):
            item.add_marker(pytest.mark.skip(why))
        shared = {"finished", "cluster"} & set(getattr(item, "fixturenames", ()))
        if (
            shared
            and TESTS / "end_to_end" in item.path.parents
            and item.nodeid.partition("::")[0] not in USE_RAY
        ):
            raise pytest.UsageError(f"{item.nodeid} uses {min(shared)}: mark its file ray")
    items.sort(
        key=lambda item: (item.nodeid.partition("::")[0] in USE_RAY, item.path), reverse=True
    )


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


_CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright.

    A test is skipped where one of them is missing, unless REQUIRE_BROWSER is set, as in .ci/run.
    """
    absent = pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("Playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        absent("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=[*_CHROMIUM_FLAGS])
        yield opened
        opened.close()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny models are faster on one thread, and give the same numbers on every machine."""
    torch.set_num_threads(1)
