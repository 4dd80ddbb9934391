"""Predictions as a file: JSON lines, or one NumPy array."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from disttrain.errors import InputError
from disttrain.inference.predict import Rows
from disttrain.telemetry.jsonl import to_line


class JsonLines:
    """``{"id": 0, "class": 3, ...}`` a line, and ``name`` where samples have names; what is not finite is null."""

    def __init__(self, file: IO[bytes], total: int, names: list[str]) -> None:
        self._file, self._names = file, names

    def write(self, rows: Rows) -> None:
        columns = {name: values.tolist() for name, values in rows.columns.items()}
        for i, number in enumerate(rows.ids.tolist()):
            named = {"name": self._names[number]} if self._names else {}
            record = {"id": number, **named, **{name: values[i] for name, values in columns.items()}}
            self._file.write(to_line(record).encode())


class Array:
    """A structured array of as many rows as there are samples: ``numpy.load(path)["class"]``."""

    def __init__(self, file: IO[bytes], total: int, names: list[str]) -> None:
        self._file, self._total = file, total
        self._dtype: np.dtype[np.void] | None = None

    def write(self, rows: Rows) -> None:
        fields = [("id", np.dtype(np.int64), ()), *((n, v.dtype, v.shape[1:]) for n, v in rows.columns.items())]
        dtype = np.dtype(fields)
        if self._dtype is None:
            self._dtype = dtype
            header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (self._total,)}
            npy.write_array_header_1_0(self._file, header)
        if dtype != self._dtype:
            raise InputError(
                f"the predictions differ in shape from batch to batch ({self._dtype}, then {dtype}), so they are no array: "
                "write .jsonl"
            )
        table = np.empty(len(rows.ids), dtype)
        table["id"] = rows.ids
        for name, values in rows.columns.items():
            table[name] = values
        self._file.write(table.tobytes())


WRITERS: dict[str, type[JsonLines] | type[Array]] = {".jsonl": JsonLines, ".npy": Array}


def write(path: Path, suffix: str, found: Iterable[Rows], total: int, names: list[str]) -> int:
    """Write all rows to ``path`` in the form of ``suffix``. Returns how many there were."""
    count = 0
    with path.open("xb") as file:
        writer = WRITERS[suffix](file, total, names)
        for rows in found:
            writer.write(rows)
            count += len(rows.ids)
    return count
