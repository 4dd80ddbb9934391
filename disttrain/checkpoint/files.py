"""Files that are on the disk when we say so, and reads that trust nothing but the bytes that are there."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from disttrain.checkpoint.format import FileRecord
from disttrain.checkpoint.tensors import as_bytes
from disttrain.errors import CheckpointError


def write_file(path: Path, pieces: Iterable[bytes | Tensor]) -> FileRecord:
    """Write a new file and wait until it is on the disk. Its mode follows the umask.

    Returns:
        Size and sha256 of what was meant to be written, computed from memory and not from the file.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for piece in pieces:
            data = as_bytes(piece)
            file.write(data)
            digest.update(data)
            size += len(data)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def fsync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        CheckpointError: the file is larger, is no regular file, or cannot be read.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise CheckpointError(f"{path}: has {size} bytes; at most {limit} are allowed")
        return file.read(size)


def read_verified(path: Path, record: FileRecord) -> bytes:
    """The content of a file, read once, after its size and sha256 have been found to be those of ``record``.

    Raises:
        CheckpointError: they differ, or the file cannot be read.
    """
    with _open_regular(path) as file:
        _check_size(path, file, record)
        try:
            data = file.read(record.size)
        except MemoryError:
            raise CheckpointError(f"{path}: its {record.size} bytes do not fit into memory") from None
    _check_digest(path, hashlib.sha256(data).hexdigest(), record)
    return data


def verify_file(path: Path, record: FileRecord) -> None:
    """Like `read_verified`, but in constant memory."""
    with _open_regular(path) as file:
        _check_size(path, file, record)
        _check_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), record)


@contextmanager
def _open_regular(path: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file: never through a symbolic link, and without waiting on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CheckpointError(f"{path}: is not a regular file")
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _check_size(path: Path, file: io.BufferedReader, record: FileRecord) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != record.size:
        raise CheckpointError(f"{path}: has {size} bytes; the manifest says {record.size}")


def _check_digest(path: Path, sha256: str, record: FileRecord) -> None:
    if sha256 != record.sha256:
        raise CheckpointError(f"{path}: is damaged: its sha256 is {sha256}; the manifest says {record.sha256}")
