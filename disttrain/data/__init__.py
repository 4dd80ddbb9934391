"""Data: the global order of samples, its shares for the ranks, datasets and loaders.

Importing the package does not import torch; only :class:`ArrayDataset` does, when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disttrain.data.loader import Batch, Loader, MicroBatch, loader
from disttrain.data.order import GlobalShuffle, Order, Partition, Sequential, WithReplacement
from disttrain.data.position import Position
from disttrain.data.selection import Selection, held_out
from disttrain.data.shares import share

if TYPE_CHECKING:
    from disttrain.data.arrays import ArrayDataset

__all__ = [
    "ArrayDataset",
    "Batch",
    "GlobalShuffle",
    "Loader",
    "MicroBatch",
    "Order",
    "Partition",
    "Position",
    "Selection",
    "Sequential",
    "WithReplacement",
    "held_out",
    "loader",
    "share",
]


def __getattr__(name: str) -> Any:
    if name == "ArrayDataset":
        from disttrain.data.arrays import ArrayDataset

        return ArrayDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
