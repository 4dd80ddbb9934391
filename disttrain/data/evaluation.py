"""Batches for evaluation: every sample once over all ranks, none twice, none padded.

Ranks may have different numbers of batches, and none at all: sum totals and counts, and exchange only those.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import torch
from numpy import arange, int64

from disttrain.data.batch import MicroBatch
from disttrain.data.dataset import Dataset, Ids
from disttrain.data.fetching import fetch
from disttrain.data.shares import share
from disttrain.errors import InputError


def evaluation_batches(
    dataset: Dataset,
    *,
    rank: int,
    size: int,
    batch: int,
    workers: int = 0,
    prefetch: int = 2,
    device: str | torch.device | None = None,
) -> Generator[MicroBatch, None, None]:
    """This rank's contiguous share of the dataset in its own order, ``batch`` samples at a time (the last may
    be short).

    The arguments are those of :class:`disttrain.data.loader.Loader`; samples are read as those of epoch 0.

    Raises:
        InputError: ``batch`` is below 1 or ``rank`` is not below ``size``.
    """
    if batch < 1:
        raise InputError(f"the evaluation batch is {batch}; it must be at least 1")
    if not 0 <= rank < size:
        raise InputError(f"rank is {rank} of {size}; it must be from 0 to {size - 1}")
    lo, hi = share(len(dataset), rank, size)
    pieces = [arange(start, min(start + batch, hi), dtype=int64) for start in range(lo, hi, batch)]
    return _deliver(dataset, pieces, workers, prefetch, torch.device(device or "cpu"))


def _deliver(
    dataset: Dataset, pieces: list[Ids], workers: int, prefetch: int, device: torch.device
) -> Generator[MicroBatch, None, None]:
    if not pieces:
        return
    requests = ((0, ids) for ids in pieces)
    with closing(fetch(dataset, requests, seed=0, workers=workers, prefetch=prefetch, device=device)) as stream:
        for ids, tensors in zip(pieces, stream, strict=True):
            yield MicroBatch(tensors, ids, 1.0)
