"""Storage that another machine does not share is noticed."""

import platform
from pathlib import Path

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
