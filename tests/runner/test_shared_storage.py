"""Storage that another machine does not share is noticed."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from scaling.runner.shared_storage import mark, unmark, why_not_shared


@pytest.mark.parametrize("place", ["{}/checkpoints", "memory://bucket/checkpoints"])
def test_what_is_shared_is_seen(tmp_path: Path, place: str) -> None:
    folder = place.format(tmp_path)
    host = mark(folder, "study")
    assert host == platform.node()
    assert why_not_shared(folder, "study", host) is None
    unmark(folder, "study")
    assert why_not_shared(folder, "study", host) is not None


def test_what_is_not_is_named_with_both_machines(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    reason = why_not_shared(f"{tmp_path}/there", "study", "the-head")
    assert reason is not None
    assert f"{tmp_path}/there of the-head is not what {platform.node()} has" in reason
    assert "s3://BUCKET/runs/NAME" in reason


@pytest.mark.parametrize("use", [mark, unmark])
def test_a_store_s_own_error_is_told_as_that_of_a_file(
    use: Callable[[str, str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class AwayError(Exception):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise AwayError("the bucket is away")

    folder = "memory://bucket/checkpoints"
    mark(folder, "study")
    with monkeypatch.context() as patched:
        for method in ("pipe_file", "rm_file"):
            patched.setattr(type(fsspec.filesystem("memory")), method, fail)
        with pytest.raises(OSError, match="the bucket is away"):
            use(folder, "study")
    unmark(folder, "study")
