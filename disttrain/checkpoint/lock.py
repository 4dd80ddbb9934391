"""One job per run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disttrain.errors import InputError

logger = logging.getLogger("disttrain")

_held: set[int] = set()
OF_A_RUN = "is using this run directory; wait for it, stop it, or give another directory with --run-dir"


def _close_in_child() -> None:
    """Let go of the locks of a parent process.

    A forked data worker that outlives its parent would otherwise keep the run directory locked for a while.
    Closing does not unlock, since the parent still has the file open.
    """
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def run_lock(run_dir: Path, busy: str = OF_A_RUN) -> Iterator[None]:
    """Hold ``run_dir/.lock`` for the duration; it is free again when this process ends, however it ends.

    Args:
        busy: what is said of a job that holds it: what it does there, and what to do.

    Raises:
        InputError: another job holds it (the message names its process and host), or it cannot be created.
    """
    path = run_dir / ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(f"{path}: cannot be created: {error.strerror}") from error
    _held.add(descriptor)
    try:
        _acquire(descriptor, run_dir, busy)
        yield
    finally:
        if descriptor in _held:  # not in a forked child that leaves the block too
            _held.remove(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _acquire(descriptor: int, run_dir: Path, busy: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{run_dir}: {_holder(descriptor)} {busy}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise InputError(f"{run_dir}: cannot be locked: {error.strerror}") from error
        logger.warning(
            "%s: its filesystem has no locks (%s); nothing stops a second job from using it",
            run_dir,
            error.strerror,
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who wrote the lock file; it is only text for a message, so whatever it holds is good enough."""
    try:
        holder = json.loads(os.pread(descriptor, 1000, 0))
        return f"process {int(holder['pid'])} on host {str(holder['host'])[:100]}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
