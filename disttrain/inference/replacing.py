"""Files and directories that appear whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disttrain.errors import DisttrainError, InputError


def check_free(path: Path, *, force: bool) -> None:
    """Refuse ``--to path`` before any work is done for it.

    Raises:
        InputError: it is taken and not to be replaced, or cannot be written.
    """
    if os.path.lexists(path) and not force:
        raise InputError(f"--to {path}: is there already; --force replaces it")
    if not path.parent.is_dir():
        raise InputError(f"--to {path}: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--to {path}: {path.parent} is not writable")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, whose file or directory then takes its place by a rename; after an error nothing has
    changed. A directory that is there is moved out of the way just before.

    Raises:
        DisttrainError: it cannot be written.
    """
    unique = uuid.uuid4().hex
    temporary, old = (path.with_name(f".{path.stem}-{word}-{unique}{path.suffix}") for word in ("new", "old"))
    try:
        yield temporary
        for file in [temporary, *temporary.rglob("*")]:
            _flush(file)
        if path.is_dir() and not path.is_symlink():
            os.rename(path, old)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise DisttrainError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        _remove(temporary)
        _remove(old)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # it was renamed, or never made
        path.unlink(missing_ok=True)
