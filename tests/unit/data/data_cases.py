"""Small data sets and files that several tests of the data package use."""

from __future__ import annotations

import gzip
import os
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file made by hand, value by value in big-endian order."""
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(root: Path, train: int = 6, test: int = 3, compressed: bool = False, classes: int = 10) -> Path:
    """The four files of a tiny set in MNIST's format."""
    root.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("t10k", test)):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, classes, count, dtype=np.uint8)
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            name = f"{split}-{kind}"
            if compressed:
                (root / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (root / name).write_bytes(data)
    return root


class Noisy:
    """A plain torch dataset whose samples use every global generator that transforms use."""

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, float, float, int]:
        return torch.rand(3), random.random(), float(np.random.rand()), index


class EpochAware:
    """A per-sample dataset whose samples depend on the epoch."""

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, id: int, epoch: int) -> tuple[Tensor, int]:
        return torch.full((2,), id + epoch / 10), id


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as a user who may not do everything, so that permissions count also when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
