"""Language modelling on one long row of tokens that stays on disk: the bytes of a text file, or a ``.npy`` of
token ids."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.files import file_size, reading
from disttrain.data.numpy_files import open_npy
from disttrain.errors import DataError, InputError

Tokens = NDArray[np.unsignedinteger]

_DTYPES = ("uint8", "uint16", "uint32")
_CHUNK = 1 << 24


class TextDataset:
    """Windows of ``sequence_length`` tokens T that do not overlap, from ``tokens[lo:hi]``.

    Sample i is (inputs, targets), both (T,) int64: ``tokens[lo + i*T : lo + i*T + T]`` and the same one token
    later. The last window needs its last target, so there are ``(hi - lo - 1) // T`` samples.

    Raises:
        InputError: ``sequence_length`` is below 1, or [lo, hi) does not lie in the tokens.
        DataError: there are too few tokens for one sample.
    """

    rowwise = True

    def __init__(self, tokens: Tokens, sequence_length: int, lo: int = 0, hi: int | None = None) -> None:
        hi = len(tokens) if hi is None else hi
        if sequence_length < 1:
            raise InputError(f"sequence_length is {sequence_length}; it must be at least 1")
        if not 0 <= lo <= hi <= len(tokens):
            raise InputError(f"tokens [{lo}, {hi}) do not lie in the {len(tokens)} that there are")
        if hi - lo < sequence_length + 1:
            raise DataError(
                f"{hi - lo} tokens are too few for one sequence of {sequence_length}, which needs "
                f"{sequence_length + 1}; use more text or a shorter sequence_length"
            )
        self.tokens = tokens
        self.sequence_length = sequence_length
        self.lo = lo
        self.hi = hi

    def __len__(self) -> int:
        return (self.hi - self.lo - 1) // self.sequence_length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        inputs, targets = self.gather(np.array([index]))
        return inputs[0], targets[0]

    def gather(self, ids: NDArray[np.int64], epoch: int = 0) -> tuple[Tensor, Tensor]:
        """The samples ``ids`` (n,): inputs and targets, (n, T) int64 each. Nothing depends on the epoch."""
        starts = self.lo + ids[:, None] * self.sequence_length
        window = self.tokens[starts + np.arange(self.sequence_length + 1)].astype(np.int64)
        both = torch.from_numpy(window)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the token type, the sequence length and the tokens."""
        digest = hashlib.sha256(f"{self.tokens.dtype} {self.sequence_length} {self.hi - self.lo};".encode())
        for start in range(self.lo, self.hi, _CHUNK):
            digest.update(np.ascontiguousarray(self.tokens[start : min(start + _CHUNK, self.hi)]).data)
        return digest.hexdigest()


def load_text(
    path: str | PathLike[str], sequence_length: int, *, vocab_size: int = 256, test_fraction: float = 0.1
) -> tuple[TextDataset, TextDataset]:
    """The training and the test set of a file: the front part, and the last ``test_fraction`` of its tokens.

    Args:
        path: a ``.npy`` file of tokens, or any other file, whose bytes are then the tokens.
        vocab_size: tokens must be below it.

    Raises:
        InputError: ``test_fraction`` is not between 0 and 1, or ``sequence_length`` is below 1.
        DataError: the file cannot be read, is too short, or holds a token that is too large.
    """
    if not 0.0 < test_fraction < 1.0:
        raise InputError(f"test_fraction is {test_fraction}; it must be between 0 and 1")
    path = Path(path)
    tokens = open_tokens(path)
    _check_tokens(path, tokens, vocab_size)
    cut = len(tokens) - round(len(tokens) * test_fraction)
    try:
        return TextDataset(tokens, sequence_length, 0, cut), TextDataset(tokens, sequence_length, cut, len(tokens))
    except DataError as error:
        raise DataError(
            f"{path}: of {len(tokens)} tokens, {cut} are for training and the rest for testing; {error}"
        ) from error


def open_tokens(path: str | PathLike[str]) -> Tokens:
    """The tokens of a file as a read-only memory map of one dimension. Nothing is unpickled.

    Raises:
        DataError: the file cannot be read or is empty, or a ``.npy`` file is damaged, holds objects, has
            another type than uint8, uint16 or uint32, or has not one dimension.
    """
    path = Path(path)
    size = file_size(path)
    if size == 0:
        raise DataError(f"{path}: is empty")
    if path.suffix != ".npy":
        with reading(path):
            return np.memmap(path, dtype=np.uint8, mode="r")
    array: Tokens = open_npy(path, f"one dimension of {', '.join(_DTYPES)}")
    if array.ndim != 1 or array.dtype.name not in _DTYPES:
        raise DataError(f"{path}: holds {array.dtype} {array.shape}; expected one dimension of {', '.join(_DTYPES)}")
    return array


def _check_tokens(path: Path, tokens: Tokens, vocab_size: int) -> None:
    if vocab_size < 1:
        raise InputError(f"vocab_size is {vocab_size}; it must be at least 1")
    if vocab_size > np.iinfo(tokens.dtype).max:
        return
    for start in range(0, len(tokens), _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        wrong = np.flatnonzero(chunk >= vocab_size)
        if len(wrong):
            raise DataError(
                f"{path}: token {chunk[wrong[0]]} at position {start + wrong[0]}; "
                f"tokens must be from 0 to {vocab_size - 1} (vocab_size is {vocab_size})"
            )
