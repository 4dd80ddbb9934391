"""Tables of numbers: CSV, Parquet, pyarrow or pandas, read into memory as inputs and a target."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttrain.data.arrays import ArrayDataset
from disttrain.data.files import file_size, reading
from disttrain.errors import DataError, InputError
from disttrain.names import did_you_mean

Column = NDArray[Any]
_SUFFIXES = {".csv": ",", ".tsv": "\t", ".parquet": "", ".pq": ""}


class Table(ArrayDataset):
    """Rows of a table as samples: (inputs (columns,) float64, target).

    Args:
        source: a ``.csv``, ``.tsv`` or ``.parquet`` file, a pyarrow table or a pandas frame.
        target: the column to be predicted: a number (float64), or with ``classes`` the place (int64) of its value in them.
        features: the columns of the inputs, in this order; None: all but the target.
        classes: values of a target that is a class, or True: all that there are, sorted.

    Attributes:
        columns: names of the inputs.
        classes: values of the target; None where it is a number.

    Raises:
        DataError: the file cannot be read; a column is not there or holds no numbers; a value is missing or not finite, or is
            none of the classes. The message names row (from 1, without the header) and column.
        InputError: pyarrow is not installed.
    """

    def __init__(
        self,
        source: Any,
        target: str,
        *,
        features: Sequence[str] | None = None,
        classes: Sequence[Any] | bool = False,
    ) -> None:
        self.source = str(source) if isinstance(source, str | PathLike) else type(source).__name__
        table = _read(source)
        names = list(table.column_names)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{self.source}: several columns are called {twice[0]}")
        self.columns = tuple(name for name in names if name != target) if features is None else tuple(features)
        for name in (target, *self.columns):
            self._require_column(name, names)
        if not self.columns or target in self.columns:
            raise DataError(f"{self.source}: expected columns beside the target {target} as inputs; got {self.columns}")
        self._require_numbers(table, self.columns)
        inputs = np.empty((table.num_rows, len(self.columns)))
        for place, name in enumerate(self.columns):
            inputs[:, place] = self._numbers(table, name)
        self.classes: tuple[Any, ...] | None = None
        targets: Column
        if classes is False:
            self._require_numbers(table, [target])
            targets = self._numbers(table, target)
        else:
            self.classes, targets = self._labels(table, target, None if classes is True else tuple(classes))
        super().__init__(torch.from_numpy(inputs), torch.from_numpy(targets))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of columns, classes and contents."""
        return hashlib.sha256(f"{self.columns} {self.classes} {super().fingerprint()}".encode()).hexdigest()

    def _require_column(self, name: str, names: list[str]) -> None:
        if name not in names:
            hint = did_you_mean(name, names)
            raise DataError(f"{self.source}: has no column {name!r}, but {', '.join(names[:20])}{hint}")

    def _require_numbers(self, table: Any, names: Sequence[str]) -> None:
        from pyarrow import types

        kinds = {name: table.schema.field(name).type for name in names}
        kinds = {
            name: kind
            for name, kind in kinds.items()
            if not (
                types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)
            )
        }
        if kinds:
            listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise DataError(
                f"{self.source}: columns that are not numbers: {listed}; leave them out (features: names those to be used), or "
                "write them as numbers"
            )

    def _numbers(self, table: Any, name: str) -> NDArray[np.float64]:
        import pyarrow as arrow

        try:
            cast = table.column(name).cast("float64")
        except arrow.ArrowInvalid as error:  # such as ids of 64 bits
            raise DataError(
                f"{self.source}: column {name}: {error}, the whole numbers that float64 holds exactly; leave it out (features: "
                "names those to be used)"
            ) from None
        values = np.array(cast.to_numpy())  # a copy that may be written to
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            missing = table.column(name)[int(wrong[0])].as_py() is None
            raise DataError(
                f"{self.source}: row {wrong[0] + 1}, column {name}: {'no value' if missing else values[wrong[0]]}; expected a "
                f"finite number ({len(wrong):,} rows of this column have none)"
            )
        return values

    def _labels(
        self, table: Any, name: str, known: tuple[Any, ...] | None
    ) -> tuple[tuple[Any, ...], NDArray[np.int64]]:
        values: list[Any] = table.column(name).to_pylist()
        for row, value in enumerate(values, 1):
            if value is None or (isinstance(value, float) and not value.is_integer()):
                raise DataError(
                    f"{self.source}: row {row}, column {name}: {'no value' if value is None else value}; expected a class (a "
                    "whole number or a text); a number is predicted by kind: regression"
                )
        classes = tuple(sorted(set(values))) if known is None else known
        places = {value: place for place, value in enumerate(classes)}
        unknown = next((row for row, value in enumerate(values, 1) if value not in places), None)
        if unknown is not None:
            raise DataError(
                f"{self.source}: row {unknown}, column {name}: {values[unknown - 1]!r} is none of the classes "
                f"{', '.join(map(str, classes[:10]))}{', ...' if len(classes) > 10 else ''}"
            )
        return classes, np.array([places[value] for value in values], dtype=np.int64)


def _read(source: Any) -> Any:
    """A pyarrow table."""
    try:
        import pyarrow as arrow
        from pyarrow import csv, parquet
    except ImportError as error:
        raise InputError(
            f"tables need pyarrow, which cannot be imported ({error}): pip install 'disttrain[tables]'"
        ) from error
    if isinstance(source, arrow.Table):
        return source
    if not isinstance(source, str | PathLike):
        return arrow.Table.from_pandas(source, preserve_index=False)
    path = Path(source)
    separator = _SUFFIXES.get(path.suffix.lower())
    if separator is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(_SUFFIXES)}")
    file_size(path)
    try:
        with reading(path):
            if not separator:
                return parquet.read_table(path, memory_map=True)
            return csv.read_csv(path, parse_options=csv.ParseOptions(delimiter=separator))
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table: {error}") from error
