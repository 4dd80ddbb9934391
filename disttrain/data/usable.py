"""What cannot be a data set, said in one line before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from disttrain.data.tree import a_kind
from disttrain.errors import InputError


def require_usable(dataset: Any, what: str) -> None:
    """Raise InputError unless the samples of ``dataset`` can be counted and read by number.

    Args:
        what: where it comes from, for the message.
    """
    if isinstance(dataset, torch.utils.data.DataLoader):
        raise InputError(f"{what} is a DataLoader; expected the data set in it: disttrain makes the batches itself")
    if isinstance(dataset, torch.Tensor):
        raise InputError(f"{what} is a Tensor; expected a data set: disttrain.data.ArrayDataset(inputs, targets)")
    if isinstance(dataset, np.ndarray):
        raise InputError(f"{what} is an array; expected a data set: disttrain.data.NumpyDataset(inputs, targets)")
    if isinstance(dataset, Mapping):
        raise InputError(
            f"{what} is {a_kind(dataset)} with {', '.join(map(str, dataset))}; expected one data set, a split of it"
        )
    if type(dataset).__name__ == "DataFrame":
        raise InputError(f'{what} is a DataFrame; expected a data set: disttrain.data.Table(frame, "TARGET COLUMN")')
    if dataset is None:
        raise InputError(f"{what} is None; expected a data set")
    reads = any(hasattr(dataset, name) for name in ("gather", "sample", "__getitem__"))
    if isinstance(dataset, torch.utils.data.IterableDataset) or not (reads and hasattr(dataset, "__len__")):
        raise InputError(
            f"{what} is {a_kind(dataset)}, which has no length or cannot read a sample by its number; samples are read in a "
            "global order that every rank cuts alike, so a stream cannot be used: give a data set with __len__ and __getitem__ "
            "(Hugging Face: streaming=False), or write the stream to .npy or Parquet files once and use "
            "disttrain.data.NumpyDataset or Table"
        )
