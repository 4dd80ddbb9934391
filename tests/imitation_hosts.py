"""Several hosts imitated on one Linux machine, to try out what reaches other machines by ssh.

A host is a process in namespaces of its own: a network with one interface at 10.77.0.10 and up, a host name, processes, an
``/etc/hosts``, an ssh configuration, ``/run`` and ``/dev/shm``, and an sshd with a key that is thrown away. The hosts hang off a
bridge in one more namespace, so no packet leaves the machine, and nothing outside of the namespaces is written but a temporary
folder. Ending the first process of a host ends all that runs in it. The file system is shared.

Needs root, iproute2, util-linux (unshare, nsenter, setpriv) and OpenSSH's server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PORT = 2222
DIE_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
ENV = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "tc", "ssh", "ssh-keygen", "sshd")
INIT = r"""
set -e
hostname "$NODE"
mount --make-rprivate /
mount --bind "$D/hosts" /etc/hosts
mount --bind "$D/passwd" /etc/passwd
mount --bind "$D/ssh_config" /etc/ssh/ssh_config
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/tmp; chmod 1777 /run/tmp
ip link set lo up
for i in $(seq 200); do ip -4 addr show dev eth0 2>/dev/null | grep -q inet && break; sleep 0.05; done
"$SSHD" -f "$D/sshd_config" -E "$D/sshd.$NODE.log" -o "ListenAddress=$ADDR"
touch "$D/ready.$NODE"
trap "exit 0" TERM
while :; do sleep 3600 & wait $! || true; done
"""


BASH = ("bash", "-c", INIT)


def missing() -> str:
    """Why this machine cannot imitate hosts; empty if it can."""
    if os.geteuid() != 0:
        return "needs root"
    lacks = [tool for tool in TOOLS if shutil.which(tool, path=ENV["PATH"]) is None]
    if lacks:
        return f"needs {', '.join(lacks)}"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount", "true"], capture_output=True, env=ENV)
    return "" if tried.returncode == 0 else "namespaces are not allowed here"


class Hosts:
    """``number`` hosts, node0 and up, each sending at most ``rate`` bits per second (None: no limit). Use in a ``with``."""

    def __init__(self, number: int, rate: float | None = None) -> None:
        self.names = [f"node{i}" for i in range(number)]
        self._rate = rate
        self._place = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._first: dict[str, int] = {}
        self._switch = 0

    def __enter__(self) -> Self:
        try:
            self._write()
            switch = self._begin(["unshare", "--net", "sleep", "infinity"])
            self._switch = switch.pid
            self._until(lambda: _network(switch.pid) != _network("self"), "the switch")
            self._on_switch("ip", "link", "add", "br0", "type", "bridge")
            self._on_switch("ip", "link", "set", "br0", "up")
            for number, name in enumerate(self.names):
                self._host(number, name)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def run(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, in this directory."""
        own = {"HOSTNAME": name, "TMPDIR": "/run/tmp", "PATH": ENV["PATH"], **(env or {})}
        words = ["env", "-C", os.getcwd(), *(f"{k}={v}" for k, v in own.items()), *command]
        inside = ["nsenter", "-t", str(self._first[name]), "-m", "-u", "-i", "-n", "-p", "--", *words]
        return subprocess.run(
            inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENV, timeout=timeout
        )

    def _host(self, number: int, name: str) -> None:
        address = f"10.77.0.{10 + number}"
        init = self._begin(
            ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *BASH],
            {"NODE": name, "D": str(self._place), "ADDR": address, "SSHD": str(shutil.which("sshd", path=ENV["PATH"]))},
        )
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children")
        self._until(
            lambda: (
                bool(children.read_text().split()) and _network(children.read_text().split()[0]) != _network("self")
            ),
            name,
        )
        pid = self._first[name] = int(children.read_text().split()[0])
        port, inside = f"port{number}", ["nsenter", "-t", str(pid), "-n", "--"]
        self._on_switch("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._on_switch("ip", "link", "set", port, "master", "br0")
        self._on_switch("ip", "link", "set", port, "up")
        _do([*inside, "ip", "link", "set", "eth0", "up"])
        if self._rate is not None:
            # Two milliseconds of it: on a busy machine timers are late, and with less the link would be slower than it says. What
            # fits into that travels as if there were no limit.
            burst = int(self._rate / 8 * 2e-3)
            shape = ["root", "tbf", "rate", f"{self._rate:.0f}bit", "burst", f"{burst}b", "latency", "100ms"]
            _do([*inside, "tc", "qdisc", "replace", "dev", "eth0", *shape])
        _do([*inside, "ip", "addr", "add", f"{address}/24", "dev", "eth0"])
        self._until((self._place / f"ready.{name}").exists, f"the sshd of {name}")

    def _write(self) -> None:
        place = self._place
        for key in ("id", "hostkey"):
            _do(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(place / key)])
        known = "".join(f"10.77.0.{10 + i} {name}\n" for i, name in enumerate(self.names))
        users = Path("/etc/passwd").read_text()  # sshd wants a user of its own
        (place / "passwd").write_text(
            users + "sshd:x:74:65534::/run/sshd:/usr/sbin/nologin\n" * ("\nsshd:" not in users)
        )
        (place / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
        (place / "ssh_config").write_text(
            f"Host node*\n Port {PORT}\n User root\n IdentityFile {place}/id\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
            f" UserKnownHostsFile {place}/known_hosts\n LogLevel ERROR\n ConnectTimeout 5\n"
        )
        (place / "sshd_config").write_text(
            f"Port {PORT}\nHostKey {place}/hostkey\nAuthorizedKeysFile {place}/id.pub\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nUseDNS no\nMaxStartups 100\nMaxSessions 100\n"
        )

    def _begin(self, command: list[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self._place / "log").open("ab") as log:
            process = subprocess.Popen(
                [*DIE_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENV | dict(env or {})
            )
        self._processes.append(process)
        return process

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                raise RuntimeError(f"{what} does not come up:\n{(self._place / 'log').read_text()}")
            time.sleep(0.02)

    def _on_switch(self, *command: str) -> None:
        _do(["nsenter", "-t", str(self._switch), "-n", "--", *command])


def _do(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=ENV)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _network(pid: int | str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return _network("self")


if __name__ == "__main__":  # NUMBER RATE COMMAND ...: on node0; a rate of 0 is no limit
    with Hosts(int(sys.argv[1]), float(sys.argv[2]) or None) as hosts:
        ended = hosts.run("node0", sys.argv[3:])
        sys.stdout.write(ended.stdout)
        sys.stderr.write(ended.stderr)
        sys.exit(ended.returncode)
