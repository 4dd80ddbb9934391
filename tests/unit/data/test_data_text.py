"""Windows of tokens from bytes and from .npy files (rows 52 to 54 for this format)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_cases import unprivileged
from hypothesis import given
from hypothesis import strategies as st

from disttrain.data.text import TextDataset, load_text, open_tokens
from disttrain.errors import DataError, InputError


def refused(path: Path, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        load_text(path, 4, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


@given(st.integers(2, 80), st.integers(1, 20), st.data())
def test_windows_against_plain_python(count: int, length: int, data: st.DataObject) -> None:
    tokens = np.arange(count, dtype=np.uint16) * 7
    lo = data.draw(st.integers(0, count))
    hi = data.draw(st.integers(lo, count))
    row = tokens[lo:hi].tolist()
    windows = [row[i : i + length + 1] for i in range(0, len(row), length)]
    wanted = [(w[:-1], w[1:]) for w in windows if len(w) == length + 1]
    if not wanted:
        with pytest.raises(DataError, match="tokens are too few for one sequence"):
            TextDataset(tokens, length, lo, hi)
        return
    dataset = TextDataset(tokens, length, lo, hi)
    assert len(dataset) == len(wanted)
    ids = np.array(data.draw(st.permutations(range(len(wanted)))))
    inputs, targets = dataset.gather(ids, 3)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    assert inputs.tolist() == [wanted[i][0] for i in ids]
    assert targets.tolist() == [wanted[i][1] for i in ids]
    assert [part.tolist() for part in dataset[0]] == [list(part) for part in wanted[0]]


def test_tiny_shakespeare(data_root: Path) -> None:
    path = data_root / "tinyshakespeare" / "input.txt"
    text = path.read_bytes()
    train, test = load_text(path, 64)
    # 1,115,394 bytes: the last tenth, rounded to 111,539, is for testing.
    assert (train.hi, test.lo, test.hi) == (1003855, 1003855, 1115394)
    assert (len(train), len(test)) == (1003854 // 64, 111538 // 64)
    inputs, targets = train[0]
    assert bytes(inputs.tolist()) == text[:64]
    assert bytes(targets.tolist()) == text[1:65]
    assert bytes(test[0][0].tolist()) == text[1003855 : 1003855 + 64]
    assert isinstance(open_tokens(path), np.memmap)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", ">u2"])
def test_npy(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "tokens.npy"
    tokens = (np.arange(100) * 2).astype(dtype)
    np.save(path, tokens)
    train, test = load_text(path, 4, test_fraction=0.25)
    assert isinstance(train.tokens, np.memmap)
    assert train[3][0].tolist() == [24, 26, 28, 30]
    assert test[0][0].tolist() == [150, 152, 154, 156]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(9, np.int64),
        np.zeros(9, np.float32),
        np.zeros((3, 3), np.uint8),
        np.zeros(9, bool),
        np.zeros((), np.uint8),
    ],
)
def test_npy_of_another_kind(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, array)
    message = refused(path)
    assert f"holds {array.dtype} {array.shape}; expected one dimension of uint8, uint16, uint32" in message


def test_npy_cut_off_at_every_byte_or_too_long(tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    np.save(path, np.arange(20, dtype=np.uint16))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(whole + b"\0")
    assert "bytes, but its header declares" in refused(path)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("raw", [False, True])
def test_rows_52_and_53_nothing_is_unpickled(tmp_path: Path, raw: bool) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "tokens.npy"
    if raw:
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        np.save(path, np.array([Payload(marker)], dtype=object), allow_pickle=True)
    assert "not pickled" in refused(path)
    assert not marker.exists()


def test_an_archive_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "tokens.npz", a=np.zeros(9, np.uint8))
    path = (tmp_path / "tokens.npz").rename(tmp_path / "tokens.npy")
    assert "no usable .npy file" in refused(path)


@pytest.mark.parametrize(("dtype", "vocab"), [(np.uint16, 300), (np.uint8, 100)])
def test_a_token_outside_the_vocabulary(tmp_path: Path, dtype: type, vocab: int) -> None:
    path = tmp_path / "tokens.npy"
    tokens = np.full(50, vocab - 1, dtype)
    np.save(path, tokens)
    load_text(path, 4, vocab_size=vocab)
    tokens[33] = vocab
    np.save(path, tokens)
    assert f"token {vocab} at position 33; tokens must be from 0 to {vocab - 1}" in refused(path, vocab_size=vocab)


def test_the_place_of_a_wrong_token_is_right_in_later_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.data.text._CHUNK", 7)
    path = tmp_path / "text"
    path.write_bytes(b"a" * 40 + b"\xff" + b"a" * 10)
    assert "token 255 at position 40" in refused(path, vocab_size=128)


def test_too_short(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"")
    assert "is empty" in refused(path)
    path.write_bytes(b"abcd")
    assert "4 tokens are too few for one sequence of 4, which needs 5" in refused(path)
    path.write_bytes(b"a" * 20)
    assert "of 20 tokens, 18 are for training and the rest for testing; 2 tokens are too few" in refused(path)


def test_arguments_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a" * 99)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="test_fraction is"):
            load_text(path, 4, test_fraction=fraction)
    with pytest.raises(InputError, match="sequence_length is 0"):
        load_text(path, 0)
    with pytest.raises(InputError, match="vocab_size is 0"):
        load_text(path, 4, vocab_size=0)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(folder, 0o755)
    for name in ("text", "tokens.npy"):
        path = tmp_path / name
        path.write_bytes(bytes(99))
        os.chmod(path, 0)
        with unprivileged():
            assert "Permission denied" in refused(path)


def test_the_fingerprint_is_of_the_tokens(tmp_path: Path) -> None:
    tokens = np.arange(200, dtype=np.uint8)
    base = TextDataset(tokens, 4, 0, 100).fingerprint()
    assert TextDataset(tokens.copy(), 4, 0, 100).fingerprint() == base
    changed = tokens.copy()
    changed[99] ^= 1
    others = {
        TextDataset(changed, 4, 0, 100).fingerprint(),
        TextDataset(tokens, 5, 0, 100).fingerprint(),
        TextDataset(tokens, 4, 0, 99).fingerprint(),
        TextDataset(tokens.astype(np.uint16), 4, 0, 100).fingerprint(),
    }
    assert len(others | {base}) == 5
