"""Processes forked from one that has imported torch and the rest: a rank starts in a tenth of a second instead of four.

``python tests/warm.py serve SOCKET`` is the warm process. ``python tests/warm.py run SOCKET RANKS PROGRAM...`` stands for
``python PROGRAM...``: with its environment, directory and open files, and it ends as the program ends; several ranks are
told of each other as by torchrun. It imports next to nothing, so that launchers can start it in place of Python.

A forked program ends as others do (threads joined, exit handlers run, output flushed) but for the interpreter's teardown,
which takes longer than most of the trainings here; with ``DISTTRAIN_TEST_TEARDOWN`` it goes through that too. It has every
module already, and what Python settles when it starts (hash seed, flags, ``PYTHONPATH``) it shares with all ranks. Tests of
these things, and of what becomes of a job when a process in it dies, ask the harness for a fresh start.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from typing import NamedTuple, NoReturn

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
LAST_WORDS_SECONDS = 20.0  # for the other ranks, once one has failed
IMPORTED = (
    "disttrain.cli.main",
    "disttrain.cli.job",
    "disttrain.engine.ddp",
    "disttrain.telemetry",
    "disttrain.training.session",
    "sklearn.datasets",
    "torch._dynamo",  # the first optimizer imports it
    "torch.distributed.run",
)
IMPORTED_IF_INSTALLED = ("horovod.torch", "horovod.runner.launch")


class Program(NamedTuple):
    """What a new process is to be."""

    arguments: list[str]
    directory: str
    environment: dict[str, str]


def serve(path: str) -> Program:
    """Fork for each connection, until standard input ends. Returns in the new processes only."""
    import importlib

    # scikit-learn imports pandas, and that pyarrow, where they are installed; its allocator would start a thread.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    for name in IMPORTED:
        importlib.import_module(name)
    for name in IMPORTED_IF_INSTALLED:
        with suppress(ImportError):
            importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    gc.collect()
    gc.freeze()  # a collection in a fork would write to, and so copy, every page
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        if 0 in select.select([0, listener], [], [])[0]:
            raise SystemExit(0)
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            return keep(connection)
        connection.close()


def keep(connection: socket.socket) -> Program:
    """Fork once more, tell the new process's id and how it ends; end it when nobody listens any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    (size,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
    message, files, _, _ = socket.recv_fds(connection, 1, 3)
    message += connection.recv(size - 1, socket.MSG_WAITALL)
    if (pid := os.fork()) == 0:
        os.setsid()
        connection.close()
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        return Program(*json.loads(message))
    for file in files:
        os.close(file)
    connection.send(struct.pack("!i", pid))
    end = os.pidfd_open(pid)
    if end not in select.select([0, connection, end], [], [])[0]:
        for kill in (os.killpg, os.kill):  # it may not lead a group of its own yet
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(BrokenPipeError):
        connection.send(struct.pack("!i", code))
    os._exit(0)


def become(program: Program) -> NoReturn:
    """Do what ``python`` does with its arguments, and end."""
    import random

    import numpy as np

    os.chdir(program.directory)
    os.environ.clear()
    os.environ.update(program.environment)
    sys.executable = os.environ.get("DISTTRAIN_TEST_PYTHON", sys.executable)  # what it starts is forked too
    random.seed()
    np.random.seed()
    code: object = 0
    try:
        execute(program.arguments)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    if os.environ.get("DISTTRAIN_TEST_TEARDOWN"):
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if (mpi := sys.modules.get("mpi4py.MPI")) is not None and not mpi.Is_finalized():
        mpi.Finalize()  # mpirun takes a process without it for a crash
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def execute(arguments: list[str]) -> None:
    import runpy

    match arguments:
        case ["-m", module, *words]:
            sys.path[0], sys.argv[1:] = os.getcwd(), words
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *words]:
            sys.path[0], sys.argv[1:] = os.path.dirname(os.path.abspath(script)), words
            runpy.run_path(script, run_name="__main__")


def run(path: str, size: int, arguments: list[str]) -> int:
    """Have ``size`` ranks forked and wait for them; the exit code of the first one that failed, or 0."""
    ranks: dict[socket.socket, int] = {}
    for environment in environments(size):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        message = json.dumps(Program(arguments, os.getcwd(), environment)).encode()
        connection.sendall(struct.pack("!I", len(message)))
        socket.send_fds(connection, [message[:1]], [0, 1, 2])
        connection.sendall(message[1:])
        ranks[connection] = number(connection)

    def forward(signal_number: int, _: object) -> None:
        for pid in ranks.values():
            os.kill(pid, signal_number)

    for forwarded in FORWARDED:
        signal.signal(forwarded, forward)
    failure = 0
    while ranks:
        ended = select.select(list(ranks), [], [], LAST_WORDS_SECONDS if failure else None)[0]
        if not ended:
            break  # what still runs is killed when this process ends
        for connection in ended:
            failure = failure or number(connection)
            del ranks[connection]
    return failure


def environments(size: int) -> list[dict[str, str]]:
    """This process's environment for one rank; for several, with torchrun's variables."""
    if size == 1:
        return [dict(os.environ)]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    job = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [job | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(size)]
    return [os.environ | {name: str(value) for name, value in rank.items()} for rank in ranks]


def number(connection: socket.socket) -> int:
    """What a keeper says."""
    message = connection.recv(4, socket.MSG_WAITALL)
    if len(message) < 4:
        raise SystemExit("the warm process has ended")
    return int(struct.unpack("!i", message)[0])


def main() -> None:
    match sys.argv[1:]:
        case ["serve", path]:
            become(serve(path))
        case ["run", path, size, *arguments]:
            code = run(path, int(size), arguments)
            if code < 0:  # ended by a signal
                with suppress(OSError):  # SIGKILL has no handler
                    signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            raise SystemExit(code)


if __name__ == "__main__":
    main()
