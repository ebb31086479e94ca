"""What another user of the machine, or of its network, can do to a study that runs.

One study runs with secrets in its environment; meanwhile a real second user tries.
"""

import contextlib
import ipaddress
import json
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import environment
from tests.end_to_end.studies import QUADRATIC, write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NEIGHBOUR = "scaling-neighbour"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED0KEY0ID00",
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-aws-session",
}
# The system's Python: the tests' own may lie where only root can read.
SYSTEM_PYTHON = Path("/usr/bin/python3")
_ATTEMPT = """
import json, os, socket, sys, urllib.request, urllib.error
folder, token, ports = json.load(sys.stdin)
found = {}
def attempt(name, action):
    try:
        found[name] = repr(action())
    except OSError as error:
        found[name] = type(error).__name__
attempt("list", lambda: os.listdir(folder))
attempt("enter", lambda: os.chdir(folder + "/ray"))
attempt("replace", lambda: os.symlink("/etc/passwd", folder + "/ray/session_latest/logs/x"))
attempt("token", lambda: open(token).read())
job = json.dumps({"entrypoint": "touch /tmp/scaling-was-here"}).encode()
statuses = []
for port in ports:
    for path, data in (("/api/jobs/", job), ("/api/job_agent/jobs/", job), ("/api/version", None)):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                statuses.append((path, answer.status))
        except urllib.error.HTTPError as error:
            statuses.append((path, error.code))
        except Exception:
            pass  # speaks no HTTP
found["statuses"] = statuses
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Observed:
    """What was seen while the study ran, and where it ran."""

    folder: Path
    home: Path
    session: Path
    listening: dict[str, list[str]]
    modes: dict[str, int]
    neighbour: dict[str, Any]
    leaks: list[str]
    status: int
    output: str


@pytest.fixture(scope="module")
def neighbour() -> Iterator[pwd.struct_passwd]:
    """A second user of this machine."""
    if os.getuid() != 0:
        pytest.skip("only root can make a second user")
    with contextlib.suppress(KeyError):
        yield pwd.getpwnam(NEIGHBOUR)
        return
    subprocess.run(
        ["/usr/sbin/useradd", "--no-create-home", "--shell", "/bin/sh", NEIGHBOUR], check=True
    )
    yield pwd.getpwnam(NEIGHBOUR)
    subprocess.run(["/usr/sbin/userdel", NEIGHBOUR], check=False, capture_output=True)


@pytest.fixture(scope="module")
def observed(neighbour: pwd.struct_passwd, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    folder = tmp_path_factory.mktemp("observed")
    home = folder / "home"
    home.mkdir()
    write_study(folder, QUADRATIC | {"budget": {"seconds": 25}, "evaluation": {"every_steps": 50}})
    output = folder / "output.txt"
    with output.open("wb") as out:
        study = subprocess.Popen(
            [sys.executable, "-u", "-m", "scaling.study", "quadratic.yaml"], cwd=folder,
            env=environment() | SECRETS | {"HOME": str(home), "PYTHONPATH": str(Path.cwd())},
            stdout=out, stderr=out,
        )  # fmt: skip
    driver = psutil.Process(study.pid)
    _wait(lambda: len(_listening(driver, "ray::RayTrainWorker")) >= 2, study, output)
    _wait(lambda: "search:" in output.read_text(), study, output)
    time.sleep(5)  # in the middle of trials
    listening = _listening(driver)
    variables = _variables(driver)
    token = Path(variables["RAY_AUTH_TOKEN_PATH"])
    session = token.parent
    modes = {
        str(path.relative_to(session)): stat.S_IMODE(path.lstat().st_mode)
        for path in (session, token, *session.rglob("*"))
        if path.is_file() or path == session
    }
    tried = _attempts(neighbour, session, token, listening)
    leaks = _holding_a_secret(session) + _holding_a_secret(folder)
    status = study.wait(240)
    return Observed(
        folder, home, session, listening, modes, tried,
        leaks + _holding_a_secret(folder), status, output.read_text(),
    )  # fmt: skip


def _wait(is_true: Any, study: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + 240
    while not is_true():
        assert study.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.5)


def _processes(driver: psutil.Process) -> list[psutil.Process]:
    return [driver, *driver.children(recursive=True)]


def _listening(driver: psutil.Process, title: str = "") -> dict[str, list[str]]:
    """Addresses that each process listens on, from /proc."""
    found: dict[str, list[str]] = {}
    for process in _processes(driver):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = " ".join(process.cmdline())
            addresses = [
                f"{each.laddr.ip} {each.laddr.port}"
                for each in process.net_connections("inet")
                if each.status == psutil.CONN_LISTEN
            ]
            if addresses and words.startswith(title):
                found[f"{process.pid} {words[:80]}"] = addresses
    return found


def _variables(driver: psutil.Process) -> dict[str, str]:
    """The environment of one of Ray's processes."""
    [raylet, *_] = [p for p in _processes(driver) if p.name() == "raylet"]
    return raylet.environ()


def _attempts(
    user: pwd.struct_passwd, session: Path, token: Path, listening: dict[str, list[str]]
) -> dict[str, Any]:
    ports = sorted({int(a.split()[1]) for addresses in listening.values() for a in addresses})
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", _ATTEMPT], input=json.dumps([str(session), str(token), ports]),
        user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/", env={},
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    return json.loads(done.stdout)


def _holding_a_secret(folder: Path) -> list[str]:
    found: list[str] = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{path}: {k}" for k, v in SECRETS.items() if v.encode() in content]
    return found


def test_the_study_ends_as_it_should(observed: Observed) -> None:
    assert observed.status == 0, observed.output


def test_every_process_listens_on_loopback_alone(observed: Observed) -> None:
    assert len(observed.listening) >= 5, observed.listening  # GCS, raylet, agents, workers
    outside = {
        process: addresses
        for process, addresses in observed.listening.items()
        if not all(_is_loopback(address.split()[0]) for address in addresses)
    }
    assert not outside


def _is_loopback(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def test_another_user_gets_no_answer_from_ray(observed: Observed) -> None:
    statuses = observed.neighbour["statuses"]
    assert ["/api/jobs/", 401] in statuses  # the dashboard
    assert not [s for s in statuses if s[0] != "/api/version" and s[1] < 400]
    assert not Path("/tmp/scaling-was-here").exists()


def test_another_user_cannot_enter_rays_folder(observed: Observed) -> None:
    tried = observed.neighbour
    assert {tried[name] for name in ("list", "enter", "replace", "token")} == {"PermissionError"}


def test_what_ray_writes_is_its_users_alone(observed: Observed) -> None:
    assert observed.modes["."] == 0o700
    assert observed.modes["auth_token"] == 0o600
    others = {path for path, mode in observed.modes.items() if mode & 0o077}
    # Ray sets this one's mode itself, whatever the umask is; the folder around it keeps others out.
    assert others <= {"ray/prom_metrics_service_discovery.json"}


def test_nothing_of_ray_stays(observed: Observed) -> None:
    assert not observed.session.exists()
    assert not (observed.home / ".ray" / "auth_token").exists()


def test_no_file_holds_a_secret_of_the_environment(observed: Observed) -> None:
    assert not observed.leaks


def test_results_keep_the_users_umask(observed: Observed) -> None:
    mask = os.umask(0)
    os.umask(mask)
    written = [observed.folder / "mlflow.db", observed.folder / "reports/quadratic/summary.json"]
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
