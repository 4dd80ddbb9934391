"""IDX files: what is right is read exactly, and nothing wrong gets through (rows 41 to 44 and 48)."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from data_cases import CODES, idx_bytes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from disttrain.data.idx import header, read_idx
from disttrain.errors import DataError

TINY = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
@given(data=st.data())
def test_arrays_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, compressed: bool, data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from(list(CODES)))
    array = data.draw(arrays(np.dtype(dtype), array_shapes(max_dims=4, max_side=5, min_side=0)))
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compressed else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert header(path).shape == array.shape
    assert header(path).num_bytes == array.nbytes


def test_values_are_big_endian(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes([0, 0, 0x0C, 1, 0, 0, 0, 2, 0, 0, 1, 2, 255, 255, 255, 254]))
    assert read_idx(path).tolist() == [258, -2]


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_row_41_cut_off_at_every_byte(tmp_path: Path, name: str) -> None:
    whole = gzip.compress(idx_bytes(TINY)) if name.endswith("gz") else idx_bytes(TINY)
    path = tmp_path / name
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(whole)
    assert np.array_equal(read_idx(path), TINY)


def test_a_cut_off_file_says_how_much_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(TINY)[:-5]))
    assert "the header declares 3x2x2 values of 1 bytes, 12 in all, but it ends after 7" in refused(path)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"\x01\0\x08\x03", "begins with 01 00 08 03; an IDX file begins with two zero bytes"),
        (b"\0\0\x0a\x03", "the IDX type code is 0x0a; it must be one of 0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e"),
        (b"\0\0\x08\0", "the IDX header declares no dimension"),
        (b"PK\x03\x04", "begins with 50 4b 03 04"),
    ],
)
def test_row_42_wrong_magic(tmp_path: Path, start: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(start + idx_bytes(TINY)[4:])
    assert message in refused(path)
    with pytest.raises(DataError):
        header(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "shape", [(2**31,), (2**32 - 1,) * 3, (2**32 - 1,) * 255, (2**16, 2**16, 2**32 - 1, 2**32 - 1)]
)
def test_row_43_a_header_that_declares_too_much(tmp_path: Path, shape: tuple[int, ...], compressed: bool) -> None:
    data = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(64)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if compressed else data)
    tracemalloc.start()
    try:
        message = refused(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert "cannot hold that many" in message


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1, 0), (0,) * 200])
def test_row_43_a_shape_that_no_array_can_have(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
    assert "no array can have" in refused(path)


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_row_44_trailing_bytes(tmp_path: Path, name: str) -> None:
    data = idx_bytes(TINY) + b"\0"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert "but more bytes follow" in refused(path)


def test_row_48_wrong_checksum_and_every_other_damaged_byte(tmp_path: Path) -> None:
    whole = gzip.compress(idx_bytes(TINY), mtime=0)
    path = tmp_path / "file.gz"
    unseen = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = read_idx(path)
        except DataError:
            refused(path)
        else:
            assert np.array_equal(found, TINY)
            unseen.append(place)
    # The time stamp, the compression hint and the system in gzip's own header say nothing about the contents.
    assert set(unseen) <= {4, 5, 6, 7, 8, 9}
    damaged = bytearray(whole)
    damaged[-8] ^= 1
    path.write_bytes(damaged)
    assert "CRC check failed" in refused(path)


def test_row_48_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx_bytes(TINY) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        assert "but more bytes follow" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_row_48_not_gzip(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(idx_bytes(TINY))
    assert "begins with 00 00 (28 bytes); a gzip file begins with 1f 8b" in refused(path)
    path.write_bytes(b"")
    assert "begins with nothing (0 bytes)" in refused(path)
    path.write_bytes(gzip.compress(idx_bytes(TINY)) + b"more")
    assert "damaged gzip file" in refused(path)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")
