"""Data: the global order of samples, its shares for the ranks, datasets and loaders.

Importing the package does not import torch; only the data sets, :func:`noise` and :func:`stack` do, when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from disttrain.data.loader import Batch, Loader, MicroBatch, loader
from disttrain.data.order import GlobalShuffle, Order, Partition, Sequential, WithReplacement
from disttrain.data.position import Position
from disttrain.data.selection import Selection, held_out
from disttrain.data.shares import share

if TYPE_CHECKING:
    from disttrain.data.arrays import ArrayDataset
    from disttrain.data.collate import stack
    from disttrain.data.normal_noise import noise
    from disttrain.data.numpy_files import NumpyDataset
    from disttrain.data.table import Table

__all__ = [
    "ArrayDataset",
    "Batch",
    "GlobalShuffle",
    "Loader",
    "MicroBatch",
    "NumpyDataset",
    "Order",
    "Partition",
    "Position",
    "Selection",
    "Sequential",
    "Table",
    "WithReplacement",
    "held_out",
    "loader",
    "noise",
    "share",
    "stack",
]

_WITH_TORCH = {
    "ArrayDataset": "arrays",
    "NumpyDataset": "numpy_files",
    "Table": "table",
    "noise": "normal_noise",
    "stack": "collate",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(f"disttrain.data.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
