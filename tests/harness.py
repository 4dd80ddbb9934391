"""Real ranks for tests: start them under any launcher, bound their time, and hand back what they said."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LAUNCHERS = ("torchrun", "horovodrun", "mpirun", "mpirun-horovod")


@dataclass(frozen=True)
class Result:
    """What a job left behind."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    def check(self) -> Result:
        assert self.code == 0, f"exit code {self.code}\n{self.text[-6000:]}"
        return self


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, fit for ranks on two cores."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "HOROVOD_"))}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PATH": f"{BIN}{os.pathsep}{env['PATH']}"}
    env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    if os.geteuid() == 0:
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env | dict(extra or {})


def command(launcher: str, size: int, program: Sequence[str]) -> list[str]:
    """``program`` (a script and its arguments, or ``-m module ...``) under ``launcher``."""
    match launcher:
        case "none":
            return [sys.executable, *program]
        case "torchrun":
            return ["torchrun", "--standalone", f"--nproc_per_node={size}", *program]
        case "horovodrun":
            return ["horovodrun", "--gloo", "-np", str(size), sys.executable, *program]
        case "mpirun" | "mpirun-horovod":
            return ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(size), sys.executable, *program]
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
) -> subprocess.Popen[str]:
    """Start a job in a process group of its own."""
    return subprocess.Popen(
        command(launcher, size, program),
        env=environment(env),
        cwd=cwd or ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float) -> Result:
    """Wait; a job that outlasts ``timeout`` seconds is killed and fails the test."""
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"{process.args} did not end within {timeout:.0f} s\n{out[-3000:]}\n{err[-3000:]}")
    return Result(process.returncode, out, err, time.monotonic() - began)


def launch(
    launcher: str,
    size: int,
    program: Sequence[str],
    *,
    timeout: float = 90.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Start a job and wait for it."""
    return finish(start(launcher, size, program, env=env, cwd=cwd), timeout)


def disttrain(*arguments: object, timeout: float = 60.0, env: Mapping[str, str] | None = None) -> Result:
    """``python -m disttrain ARGUMENTS`` in one process."""
    return launch("none", 1, ["-m", "disttrain", *map(str, arguments)], timeout=timeout, env=env)


def train(
    launcher: str,
    size: int,
    run_dir: Path,
    *arguments: object,
    timeout: float = 90.0,
    env: Mapping[str, str] | None = None,
) -> Result:
    """``disttrain train`` under a launcher."""
    words = ["-m", "disttrain", "train", *map(str, arguments), "--run-dir", str(run_dir), *engine_options(launcher)]
    return launch(launcher, size, words, timeout=timeout, env=env)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics file."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def sample_ids(run_dir: Path) -> list[list[int]]:
    """The ordered ids of every update."""
    return [line["ids"] for line in lines(run_dir) if line.get("event") == "samples"]


def needs(launcher: str) -> list[pytest.MarkDecorator]:
    """Marks for a parameter that uses ``launcher``: skipped, with the reason, where it is not installed."""
    if launcher in ("torchrun", "none"):
        return []
    import importlib.util

    tools = {"horovodrun": "horovodrun", "mpirun": "mpirun", "mpirun-horovod": "mpirun"}
    modules = {"horovodrun": "horovod", "mpirun": "mpi4py", "mpirun-horovod": "horovod"}
    tool, module = tools[launcher], modules[launcher]
    absent = (shutil.which(tool) or (BIN / tool).exists() or None) is None or importlib.util.find_spec(module) is None
    kind = pytest.mark.mpi if launcher == "mpirun" else pytest.mark.horovod
    return [kind, pytest.mark.skipif(absent, reason=f"{tool} or {module} is not installed")]


def every_launcher(*names: str) -> list[Any]:
    """Parameters for ``pytest.mark.parametrize("launcher", ...)``."""
    return [pytest.param(name, marks=needs(name)) for name in names or LAUNCHERS]
