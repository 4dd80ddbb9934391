"""One log file per rank, through Python's logging: everything in disttrain logs to the logger ``disttrain``."""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from disttrain.errors import InputError

logger = logging.getLogger("disttrain")


class _UtcFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


class _StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at the time, since a live progress bar takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass  # nobody reads standard error any more; the log file has the line


def open_log(run_dir: Path, rank: int) -> Callable[[], None]:
    """Append what is logged from now on to ``run_dir/log/rank-RANK.log``, with times in UTC.

    Returns:
        A function that ends it.

    Raises:
        InputError: the file cannot be opened.
    """
    path = run_dir / "log" / f"rank-{rank}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Python opens through a symbolic link, which might lead to anybody's file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise InputError(f"{path}: cannot be opened for writing: {reason}") from error
    handler.setLevel(logging.INFO)
    handler.setFormatter(_UtcFormatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    return _attach(handler)


def echo_warnings() -> Callable[[], None]:
    """Show warnings and errors on standard error too; for the one rank that prints.

    Returns:
        A function that ends it.
    """
    handler = _StderrHandler(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    return _attach(handler)


def _attach(handler: logging.Handler) -> Callable[[], None]:
    level_before = logger.level
    lowered = not logger.isEnabledFor(handler.level)
    if lowered:
        logger.setLevel(handler.level)
    logger.addHandler(handler)

    def detach() -> None:
        logger.removeHandler(handler)
        handler.close()
        if lowered:
            logger.setLevel(level_before)

    return detach
