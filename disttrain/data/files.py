"""Opening files so that whatever is wrong with them becomes one clear DataError."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disttrain.errors import DataError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of the operating system (missing, no permission, a loop of links) into DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def file_size(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        DataError: it does not exist, cannot be reached, or is something else than a regular file: reading a
            directory fails obscurely, reading a pipe waits for ever.
    """
    with reading(path):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise DataError(f"{path}: is {kind}; expected a file")
    return status.st_size


def check_folder(path: Path, advice: str) -> None:
    """Raise DataError unless ``path`` is a folder that can be read; ``advice`` says what to do when it is
    missing."""
    with reading(path):
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such folder; {advice}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path}: is not a folder; {advice}")


def is_there(path: Path) -> bool:
    """Whether the folder has this entry. A link counts even when it leads nowhere, so that reading it says what is
    wrong with it. Raises DataError when the folder may not be searched."""
    with reading(path):
        try:
            path.lstat()
        except FileNotFoundError:
            return False
    return True
