"""Arrays of NumPy, in memory or on disk, as a data set."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from disttrain.data.dataset import spread
from disttrain.data.files import file_size, reading
from disttrain.data.tree import Tensors
from disttrain.errors import DataError, InputError

Array = NDArray[Any]
_ROWS = 1024


class NumpyDataset:
    """Arrays whose first dimension counts the samples: ``.npy`` files, which stay on disk, memory maps or arrays.

    ``NumpyDataset("x.npy", "y.npy")`` has samples ``(x, y)``; ``NumpyDataset(x="x.npy", y="y.npy")`` dicts.

    Raises:
        InputError: none, or both kinds; or the numbers of samples differ.
        DataError: a file cannot be read, is damaged or holds objects; or an array holds no numbers or has no dimension.
    """

    rowwise = True

    def __init__(self, *arrays: Array | str | PathLike[str], **named: Array | str | PathLike[str]) -> None:
        if bool(arrays) == bool(named):
            raise InputError(
                "NumpyDataset needs arrays or paths, either by place (samples are tuples) or by name (dicts)"
            )
        given = named or {str(place): array for place, array in enumerate(arrays)}
        self.arrays = {name: _opened(name, array) for name, array in given.items()}
        self.named = bool(named)
        counts = {name: len(array) for name, array in self.arrays.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"the arrays of NumpyDataset hold {counts} samples; expected equal numbers")

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, index: int) -> Tensors:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        return self._built({name: torch.tensor(array[index]) for name, array in self.arrays.items()})

    def gather(self, ids: NDArray[np.int64], epoch: int = 0) -> Tensors:
        """The samples ``ids`` (n,), as new tensors (n, ...). Nothing depends on the epoch."""
        return self._built({name: torch.from_numpy(np.asarray(array[ids])) for name, array in self.arrays.items()})

    def fingerprint(self) -> str:
        """SHA-256 (hex) of types and shapes, and of up to 1024 samples spread over the set."""
        ids = spread(len(self), _ROWS)
        digest = hashlib.sha256()
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array[ids]).data)
        return digest.hexdigest()

    def _built(self, fields: dict[str, Any]) -> Tensors:
        return fields if self.named else tuple(fields.values())


def _opened(name: str, given: Array | str | PathLike[str]) -> Array:
    array = given if isinstance(given, np.ndarray) else open_npy(Path(given), "an array of numbers")
    what = f"array {name}" if isinstance(given, np.ndarray) else str(given)
    if array.dtype.kind not in "biuf" or not array.dtype.isnative:
        raise DataError(f"{what}: holds {array.dtype}; expected numbers in the byte order of this machine")
    if array.ndim == 0:
        raise DataError(f"{what}: holds a single number; expected (samples, ...)")
    return array


def open_npy(path: Path, expected: str) -> Array:
    """A ``.npy`` file as a read-only memory map. Nothing is unpickled.

    Raises:
        DataError: it cannot be read, is damaged or holds objects; the message says what was ``expected``.
    """
    size = file_size(path)
    with reading(path):
        try:
            # Unlike numpy.load, this knows neither pickles nor archives.
            array = open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            raise DataError(f"{path}: no usable .npy file ({error}); expected {expected}, not pickled") from error
    if array.offset + array.nbytes != size:
        raise DataError(
            f"{path}: has {size} bytes, but its header declares {array.offset + array.nbytes}; it is damaged"
        )
    mapped: Array = array
    return mapped
