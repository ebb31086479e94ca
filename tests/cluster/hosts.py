"""Machines of one's own for `ray up`: each has its own network, processes, files and sshd.

They are namespaces of this machine, are named by their addresses, and end with the process that
holds them. A folder is at /mnt
on all of them. One is a laptop: no sshd, and where the commands are given.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

ROOT = Path(__file__).parents[2]
LAPTOP = "10.77.0.1"
_PROGRAMS = ("ip", "nsenter", "rsync", "ssh", "sshd", "ssh-keygen", "unshare")

# Every host has /root, /tmp, /run and /dev/shm for itself. The interpreter may lie in /root.
_INSIDE = """
own=$1 shared=$2 python=$3; shift 3
mkdir -p $own/root $own/tmp && cp -n /etc/skel/.bashrc /etc/skel/.profile $own/root
case $python in /root/*) mkdir -p $own$python; mount --bind $python $own$python;; esac
mount --bind $shared /mnt
mount --rbind $own/root /root
mount -t tmpfs tmpfs /run && mkdir /run/sshd
mount -t tmpfs tmpfs /dev/shm
mount --bind $own/tmp /tmp
ip link set lo up
hostname ${own##*/}
"$@"
true
"""
_SSHD = (
    "/usr/sbin/sshd", "-D", "-f/dev/null", "-h/root/host_key", "-oUsePAM=no", "-oStrictModes=no",
    "-oAuthorizedKeysFile=/root/.ssh/authorized_keys", "-oPidFile=none",
)  # fmt: skip


def missing() -> str:
    """Why there can be no hosts here; empty where there can."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.geteuid() != 0:
        return "namespaces need root"
    if absent := [name for name in _PROGRAMS if which(name, path=path) is None]:
        return f"not installed: {', '.join(absent)}"
    if ROOT.is_relative_to("/root") or ROOT.is_relative_to("/tmp"):
        return "the checkout is in a folder that each host has for itself"
    return ""


class Hosts:
    """A laptop, and hosts that are added and killed.

    Attributes:
        shared: The folder that is /mnt on all.
    """

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir()
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._given: list[subprocess.Popen[str]] = []
        self._start(LAPTOP, "sleep", "infinity")
        self._ip(LAPTOP, "link add bridge type bridge")
        self._ip(LAPTOP, f"addr add {LAPTOP}/24 dev bridge")
        self._ip(LAPTOP, "link set bridge up")
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")

    def add(self, address: str) -> None:
        """A host that answers to SSH; one that was there before has its files."""
        own = self._folder / address / "root/.ssh"
        own.mkdir(parents=True, exist_ok=True)
        key = self._folder / LAPTOP / "root/.ssh/id_ed25519"
        (own / "authorized_keys").write_bytes(key.with_suffix(".pub").read_bytes())
        host_key = own.parent / "host_key"
        host_key.write_bytes(key.read_bytes())
        host_key.chmod(0o600)
        self._start(address, *_SSHD)
        port = f"port{address.rpartition('.')[2]}"
        inner = _inner(self._running[address])
        self._ip(LAPTOP, f"link add {port} type veth peer name net0 netns {inner}")
        self._ip(LAPTOP, f"link set {port} master bridge up")
        self._ip(address, f"addr add {address}/24 dev net0")
        self._ip(address, "link set net0 up")
        self._ip(address, f"route add default via {LAPTOP}")

    def kill(self, address: str) -> None:
        """End a host as a power cut does."""
        process = self._running.pop(address)
        inner = Path(f"/proc/{_inner(process)}")
        process.kill()
        process.wait()
        while inner.exists():
            time.sleep(0.05)

    def files(self, address: str) -> Path:
        """Where its /root and /tmp are, seen from outside."""
        return self._folder / address

    def start(self, *command: str, on: str = LAPTOP) -> subprocess.Popen[str]:
        """Start a command in the checkout, as root of a host."""
        path = f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        given = {"HOME": "/root", "PATH": path, "TERM": "dumb", "RAY_AUTH_MODE": "token"}
        given["CUDA_VISIBLE_DEVICES"] = ""  # a host has the devices of this machine, and is without
        target = str(_inner(self._running[on]))
        enter = ["nsenter", "--target", target, "--mount", "--net", "--uts", "--pid"]
        process = subprocess.Popen(
            [*enter, "bash", "-c", 'cd "$0" && exec "$@"', str(ROOT), *command],
            env=given, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._given.append(process)
        return process

    def run(self, *command: str, on: str = LAPTOP, seconds: float = 600) -> str:
        """Run a command as `start` does, and return what it printed."""
        process = self.start(*command, on=on)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, f"{command} ended with {process.returncode}: {output}"
        return output

    def end(self) -> None:
        """End all that runs on the hosts and on the laptop."""
        for name in list(self._running):
            self.kill(name)
        for command in self._given:
            command.communicate()

    def _ip(self, host: str, command: str) -> None:
        target = ["nsenter", "--target", str(_inner(self._running[host])), "--net"]
        subprocess.run([*target, "ip", *command.split()], check=True)

    def _start(self, name: str, *command: str) -> None:
        unshare = [
            "unshare", "--mount", "--net", "--uts", "--pid", "--fork", "--kill-child",
            "--mount-proc",
        ]  # fmt: skip
        given = [str(self._folder / name), str(self.shared), sys.base_prefix]
        process = subprocess.Popen([*unshare, "bash", "-euc", _INSIDE, "inside", *given, *command])
        self._running[name] = process
        deadline = time.monotonic() + 60
        while not _inner(process):
            assert process.poll() is None, f"{name} ended with {process.returncode}"
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _inner(process: "subprocess.Popen[bytes]") -> int:
    """The first process of a host, once its namespaces are ready; 0 before."""
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if not task:
        return 0
    mounts = Path(f"/proc/{task[0]}/mounts").read_text()
    return int(task[0]) if " /mnt " in mounts else 0


@contextmanager
def hosts() -> Iterator[Hosts]:
    """A laptop alone, to which hosts are added."""
    with tempfile.TemporaryDirectory(dir=ROOT.anchor + "var/tmp") as folder:
        there = Hosts(Path(folder))
        try:
            yield there
        finally:
            there.end()
