"""Which Ray a study starts or joins, and the folder of its own."""

import os
import socket
import stat
from pathlib import Path

import pytest

from scaling.runner.cluster import not_started
from scaling.runner.own_ray import PrivateSession
from scaling.runner.preflight import starts_here


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_cluster_of_this_user_is_joined(temporary: Path) -> None:
    assert starts_here(None)
    (temporary / "ray").mkdir()
    file = temporary / "ray" / "ray_current_cluster"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        file.write_text(f"127.0.0.1:{listener.getsockname()[1]}")
        assert not starts_here(None)
        assert starts_here("local")
    assert starts_here(None), "a cluster that was killed leaves the file"
    assert not starts_here("127.0.0.1:6379")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("part", ["", "ray_current_cluster"])
def test_a_cluster_that_another_user_names_is_not(temporary: Path, part: str) -> None:
    (temporary / "ray").mkdir()
    (temporary / "ray" / "ray_current_cluster").write_text("127.0.0.1:6379")
    os.chown(temporary / "ray" / part, 65534, 65534)
    assert starts_here(None)


def test_a_session_is_its_users_alone_and_goes(temporary: Path) -> None:
    session = PrivateSession.make()
    for path in (session.folder, *session.folder.iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077
    session.remove()
    assert not list(temporary.iterdir())


def test_what_a_killed_process_left_goes_with_the_next_session(temporary: Path) -> None:
    killed, running = PrivateSession.make(), PrivateSession.make()
    killed.lock.close()
    for session in (killed, running):
        os.utime(session.folder, (0, 0))
    other = PrivateSession.make()
    assert set(temporary.iterdir()) == {running.folder, other.folder}
    for session in (running, other):
        session.remove()


def test_a_session_that_another_process_removes_just_now_is_passed_over(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda folder, _pattern: [folder / "removed"])
    PrivateSession.make().remove()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("load", "words"), [(15.4, "15 processes at work on 2 CPUs"), (0.5, "")])
def test_a_ray_that_is_given_up_says_what_to_do(load: float, words: str) -> None:
    """By the clock: the wait is longer on a busy machine than the limit in the code."""
    said = not_started(119.6, load, 2)
    assert "within 120 s" in said
    assert words in said
    assert "start the study again" in said


def test_a_session_that_was_killed_before_its_lock_goes_if_it_is_empty(temporary: Path) -> None:
    bare = temporary / "scaling-ray-cccccccc"
    bare.mkdir()
    os.utime(bare, (0, 0))
    empty, full = temporary / "scaling-ray-aaaaaaaa", temporary / "scaling-ray-bbbbbbbb"
    for folder in (empty, full):
        for part in ("ray", "rendezvous"):
            (folder / part).mkdir(parents=True)
    (full / "ray" / "session").touch()
    for folder in (empty, full):
        os.utime(folder, (0, 0))
    PrivateSession.make().remove()
    assert list(temporary.iterdir()) == [full]
