"""Starting a few ranks on this machine, for commands that compare runs with each other."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from disttrain.errors import InputError, RankError, StopRequested
from disttrain.verify.hosts import Place, handed_on, torch_variables

LAUNCHER_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
LAUNCHER_PREFIXES = ("TORCHELASTIC_", "OMPI_", "PMI_", "PMIX_", "HOROVOD_", "SLURM_", "MPI_LOCAL")


def run_ranks(
    arguments: Sequence[str],
    size: int,
    engine: str,
    *,
    log_dir: Path,
    timeout_seconds: float = 600.0,
    module: str = "disttrain",
    hosts: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run ``python -m disttrain ARGUMENTS`` on ``size`` ranks and wait for them.

    Args:
        engine: ``local`` (size 1), ``ddp``, ``horovod`` (its Gloo controller) or ``horovod-mpi``.
        log_dir: the ranks' output goes to files below it.
        module: what is run instead of ``disttrain``.
        hosts: machines that share the ranks evenly, in blocks, and are reached as :mod:`disttrain.verify.hosts` says; none: this
            one has them all.
        stop: asked all the time whether to end them now.

    Raises:
        InputError: the launcher of that engine is not installed, or the ranks say that the input is wrong.
        StopRequested: ``stop`` said so.
        RankError: a rank failed or the time was up; the message has the end of its output.
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", module, *arguments]
    base = clean_environment()
    slots = ",".join(f"{host}:{size // len(hosts)}" for host in hosts)
    if engine == "horovod":
        where = ["-H", slots] if hosts else []
        commands = [([_tool("horovodrun"), "--gloo", "-np", str(size), *where, *program], base)]
    elif engine == "horovod-mpi":
        where = ["-H", slots, *(word for name in handed_on(base) for word in ("-x", name))] if hosts else []
        mpirun = [_tool("mpirun"), "--oversubscribe", "--bind-to", "none", "-np", str(size), *where]
        # Open MPI refuses to run as root, as in a container, unless told twice.
        as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
        commands = [([*mpirun, *program], base | as_root)]
    else:
        port = str(_free_port())
        ranks = [(at := Place.of(rank, size, hosts), torch_variables(at, port)) for rank in range(size)]
        commands = [(at.command(program, base, own), base | own) for at, own in ranks]
    _wait(commands, log_dir, timeout_seconds, stop)


def clean_environment() -> dict[str, str]:
    """This process's environment without what a launcher put there, with one thread a rank unless it says otherwise."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(LAUNCHER_PREFIXES)
    }
    env.setdefault("OMP_NUM_THREADS", "1")
    return env


def _wait(
    commands: Sequence[tuple[list[str], Mapping[str, str]]],
    log_dir: Path,
    timeout_seconds: float,
    stop: Callable[[], bool],
) -> None:
    logs = [log_dir / f"process-{i}.log" for i in range(len(commands))]
    processes = []
    for (command, env), log in zip(commands, logs, strict=True):
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=dict(env), stdout=out, stderr=out, start_new_session=True)
        processes.append(process)
    deadline = time.monotonic() + timeout_seconds
    try:
        while any(p.poll() is None for p in processes):
            failed = next((i for i, p in enumerate(processes) if p.poll()), None)
            if failed is not None:
                time.sleep(1.0)  # the other ranks' last words
                break
            if stop():
                raise StopRequested("stopped on request; what has ended is kept, and the same command goes on")
            if time.monotonic() > deadline:
                raise RankError(f"{' '.join(commands[0][0])}: not done after {timeout_seconds:.0f} s\n{_tail(logs[0])}")
            time.sleep(0.02)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    codes = [p.returncode for p in processes]
    if any(codes):
        first = next(i for i, code in enumerate(codes) if code not in (0, -9))
        if codes[first] == InputError.exit_code:
            raise InputError(_tail(logs[first]).removeprefix("disttrain: "))
        raise RankError(f"{' '.join(commands[first][0])}: exit code {codes[first]}\n{_tail(logs[first])}")


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise InputError(
            f"{name} is not installed: build Horovod with launch/install-horovod.sh, or leave this engine out"
        )
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
