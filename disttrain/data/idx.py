"""IDX files: the format of MNIST and its relatives, plain or compressed with gzip.

Layout: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then the
values, big-endian. Reference: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section
"File formats".

Nothing in the file is believed: not a byte more is decompressed than the header declares, plus one to see
that the file ends there, and memory grows with what is really read.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from disttrain.data.files import file_size, reading
from disttrain.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"
# zlib's technical notes: deflate cannot expand by more than 1032 to 1.
_MAX_EXPANSION = 1032
_CHUNK = 1 << 20


@dataclass(frozen=True)
class IdxHeader:
    """What an IDX file declares."""

    dtype: np.dtype[np.generic]
    """Big-endian, as stored."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the values, without the header."""
        return math.prod(self.shape) * self.dtype.itemsize


def header(path: str | PathLike[str]) -> IdxHeader:
    """Read the header alone.

    Raises:
        DataError: the file cannot be read, or does not begin like an IDX file.
    """
    path = Path(path)
    with _opened(path) as (stream, _):
        return _header(path, stream)


def read_idx(path: str | PathLike[str]) -> NDArray[np.generic]:
    """Read a whole IDX file.

    Returns:
        An array of the declared shape, in the machine's byte order.

    Raises:
        DataError: the file cannot be read, does not begin like an IDX file, or holds more or less than it
            declares.
    """
    path = Path(path)
    size = file_size(path)
    with _opened(path) as (stream, compressed):
        declared = _header(path, stream)
        shape = "x".join(map(str, declared.shape))
        width, total = declared.dtype.itemsize, declared.num_bytes
        wanted = f"the header declares {shape} values of {width} bytes, {total} in all"
        room = size * _MAX_EXPANSION if compressed else size
        if declared.num_bytes > room:
            raise DataError(
                f"{path}: {wanted}, but the file of {size} bytes cannot hold that many: it is cut off or damaged"
            )
        values = bytearray()
        while len(values) < declared.num_bytes:
            chunk = stream.read(min(_CHUNK, declared.num_bytes - len(values)))
            if not chunk:
                raise DataError(f"{path}: {wanted}, but it ends after {len(values)}: it is cut off")
            values += chunk
        # In a compressed file this read also reaches the checksum.
        if stream.read(1):
            raise DataError(f"{path}: {wanted}, but more bytes follow: it is damaged or no IDX file")
    try:
        array = np.frombuffer(values, dtype=declared.dtype).reshape(declared.shape)
    except ValueError as error:
        raise DataError(f"{path}: {wanted}, which no array can have: {error}") from error
    return array.astype(declared.dtype.newbyteorder("="), copy=False)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """The uncompressed contents, and whether they were compressed. Decided by the contents, not by the
    name."""
    size = file_size(path)
    with reading(path), path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if start != _GZIP:
            if path.suffix == ".gz":
                raise DataError(
                    f"{path}: begins with {start.hex(' ') or 'nothing'} ({size} bytes); a gzip file begins with 1f 8b"
                )
            yield raw, False
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream, True  # type: ignore[misc]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip file of {size} bytes: {error}") from error


def _header(path: Path, stream: BinaryIO) -> IdxHeader:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(f"{path}: ends after {len(magic)} bytes; an IDX file begins with a magic number of 4")
    zeros, code, dims = magic[:2], magic[2], magic[3]
    if zeros != b"\0\0":
        raise DataError(f"{path}: begins with {magic.hex(' ')}; an IDX file begins with two zero bytes")
    if code not in _TYPES:
        allowed = ", ".join(f"{known:#04x}" for known in _TYPES)
        raise DataError(f"{path}: the IDX type code is {code:#04x}; it must be one of {allowed}")
    if dims == 0:
        raise DataError(f"{path}: the IDX header declares no dimension; it must declare at least 1")
    sizes = stream.read(4 * dims)
    if len(sizes) < 4 * dims:
        raise DataError(f"{path}: ends in its header: {dims} dimensions need {4 * dims} bytes, {len(sizes)} are there")
    shape = tuple(int(n) for n in np.frombuffer(sizes, dtype=">u4"))
    return IdxHeader(np.dtype(_TYPES[code]), shape)
