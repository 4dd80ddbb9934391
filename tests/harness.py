"""Real ranks for tests: start them under any launcher, bound their time, and hand back what they said."""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LAUNCHERS = ("torchrun", "horovodrun", "mpirun", "mpirun-horovod")
PATIENCE = 240.0  # seconds; for what hangs, not for what is slow on a busy machine
MARK = "DISTTRAIN_TEST_JOB"  # a variable that every process of a job inherits


@dataclass(frozen=True)
class Result:
    """What a job left behind."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def check(self) -> Result:
        assert self.code == 0, f"exit code {self.code}\n{self.text[-6000:]}"
        return self


class Job(subprocess.Popen[str]):
    """A job that was started: its launcher, or its only process."""

    mark: str

    def kill_all(self) -> None:
        """SIGKILL every process of the job, those in other sessions and without a parent too, and see them gone."""
        wait_until(lambda: not kill_marked(self.mark), "killed processes do not go away")


def kill_marked(mark: str) -> bool:
    """Whether there were processes with this mark; all of them are sent SIGKILL."""
    found = False
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                found = True
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = PATIENCE) -> None:
    """Ask again and again until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on ``port``."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, fit for ranks on two cores."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "HOROVOD_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PATH": f"{BIN}{os.pathsep}{env['PATH']}"}
    env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    if os.geteuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env | dict(extra or {})


WARM: list[subprocess.Popen[bytes]] = []  # the warm process, once there is one


@functools.cache
def warm_socket() -> str:
    """Where the warm process of this test run listens (see ``tests/warm.py``). It ends with this process at the latest."""
    folder = tempfile.TemporaryDirectory(prefix="disttrain-tests-")
    path = f"{folder.name}/warm"
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/warm.py"), "serve", path],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    WARM.append(server)

    def end() -> None:
        server.communicate()  # closes its standard input
        folder.cleanup()

    atexit.register(end)
    assert server.stdout is not None
    if server.stdout.readline() != b"ready\n":
        pytest.fail("the warm process did not start; its error is above")
    return path


def warm(size: int = 1) -> list[str]:
    """What to write in place of ``python`` for ranks forked from the warm process."""
    return [sys.executable, "-I", "-S", str(ROOT / "tests/warm.py"), "run", warm_socket(), str(size)]


def where(tool: str) -> str | None:
    """The path of a launcher: the one installed beside this Python, or another on the path."""
    return shutil.which(tool, path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")


def command(launcher: str, size: int, program: Sequence[str], *, fresh: bool = False) -> list[str]:
    """``program`` (a script and its arguments, or ``-m module ...``) under ``launcher``.

    ``ranks`` is no launcher of this world: forked ranks with the variables that torchrun would set. With ``fresh``, every
    process is a Python of its own, as users start it.
    """
    python = [sys.executable] if fresh else warm()

    def tool(name: str) -> list[str]:
        return [*(() if fresh else warm()), str(where(name))]

    match launcher:
        case "none":
            return [*python, *program]
        case "ranks":
            if fresh:
                raise ValueError("ranks without a launcher are always forked")
            return [*warm(size), *program]
        case "torchrun":
            ours = program if fresh else ["--no-python", *python, *program]
            return [*tool("torchrun"), "--standalone", f"--nproc_per_node={size}", *ours]
        case "horovodrun":
            return [*tool("horovodrun"), "--gloo", "-np", str(size), *python, *program]
        case "mpirun" | "mpirun-horovod":
            return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(size), *python, *program]
    raise ValueError(launcher)


def engine_options(launcher: str) -> list[str]:
    """``mpirun-horovod`` is mpirun with Horovod asked for; otherwise the launcher decides."""
    return ["--engine", "horovod"] if launcher == "mpirun-horovod" else []


def start(
    launcher: str,
    size: int,
    program: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fresh: bool = False,
) -> Job:
    """Start a job in a process group of its own."""
    if "PYTHONPATH" in (env or {}) and not fresh:
        raise ValueError("Python reads PYTHONPATH when it starts: ask for a fresh one")
    mark = uuid.uuid4().hex
    job = Job(
        command(launcher, size, program, fresh=fresh),
        env=environment(env) | {MARK: mark},
        cwd=cwd or ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    job.mark = mark
    return job


def finish(job: Job, timeout: float = PATIENCE) -> Result:
    """Wait; a job that outlasts ``timeout`` seconds is killed and fails the test."""
    try:
        out, err = job.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        job.kill_all()
        out, err = job.communicate()
        pytest.fail(f"{job.args!r} did not end within {timeout:.0f} s\n{out[-3000:]}\n{err[-3000:]}")
    return Result(job.returncode, out, err)


def launch(
    launcher: str,
    size: int,
    program: Sequence[str],
    *,
    timeout: float = PATIENCE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    fresh: bool = False,
) -> Result:
    """Start a job and wait for it."""
    return finish(start(launcher, size, program, env=env, cwd=cwd, fresh=fresh), timeout)


def disttrain(
    *arguments: object, timeout: float = PATIENCE, env: Mapping[str, str] | None = None, fresh: bool = False
) -> Result:
    """``python -m disttrain ARGUMENTS`` in one process."""
    return launch("none", 1, ["-m", "disttrain", *map(str, arguments)], timeout=timeout, env=env, fresh=fresh)


def train(
    launcher: str,
    size: int,
    run_dir: Path,
    *arguments: object,
    timeout: float = PATIENCE,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Result:
    """``disttrain train`` under a launcher."""
    return finish(start_training(launcher, size, run_dir, *arguments, env=env, fresh=fresh), timeout)


def start_training(
    launcher: str,
    size: int,
    run_dir: Path,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> Job:
    words = ["-m", "disttrain", "train", *map(str, arguments), "--run-dir", str(run_dir), *engine_options(launcher)]
    return start(launcher, size, words, env=env, fresh=fresh)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics file."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def sample_ids(run_dir: Path) -> list[list[int]]:
    """The ordered ids of every update."""
    return [line["ids"] for line in lines(run_dir) if line.get("event") == "samples"]


def digest(run_dir: Path) -> dict[str, str]:
    """sha256 of each file of the newest checkpoint: weights, and everything else that a run needs to go on."""
    newest = max(run_dir.glob("checkpoints/step-*"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in newest.iterdir()}


def needs(launcher: str) -> list[pytest.MarkDecorator]:
    """Marks for a parameter that uses ``launcher``: skipped, with the reason, where it is not installed."""
    if launcher in ("torchrun", "ranks", "none"):
        return []
    import importlib.util

    tools = {"horovodrun": "horovodrun", "mpirun": "mpirun", "mpirun-horovod": "mpirun"}
    modules = {"horovodrun": "horovod", "mpirun": "mpi4py", "mpirun-horovod": "horovod"}
    tool, module = tools[launcher], modules[launcher]
    absent = where(tool) is None or importlib.util.find_spec(module) is None
    kind = pytest.mark.mpi if launcher == "mpirun" else pytest.mark.horovod
    return [kind, pytest.mark.skipif(absent, reason=f"{tool} or {module} is not installed")]


def every_launcher(*names: str) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize("launcher", ...)``."""
    return [pytest.param(name, marks=needs(name)) for name in names or LAUNCHERS]
