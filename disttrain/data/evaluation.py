"""Batches for evaluation: every sample once over all ranks, none twice, none padded.

Ranks may have different numbers of batches, and none at all: sum totals and counts, and exchange only those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing

import torch
from numpy import arange, int64

from disttrain.data.batch import MicroBatch
from disttrain.data.collate import Collate, stack
from disttrain.data.dataset import Dataset, Ids
from disttrain.data.fetching import fetch
from disttrain.data.selection import Selection
from disttrain.data.shares import share
from disttrain.errors import InputError


def evaluation_batches(
    dataset: Dataset,
    *,
    rank: int,
    size: int,
    batch: int,
    chosen: Selection | None = None,
    workers: int = 0,
    prefetch: int = 2,
    device: str | torch.device | None = None,
    collate: Collate = stack,
) -> Generator[MicroBatch, None, None]:
    """This rank's contiguous share of the dataset in its own order, ``batch`` samples at a time (the last may
    be short).

    Args:
        chosen: the samples that are read, in the selection's order; None: all of them.
        The others are those of :class:`disttrain.data.loader.Loader`; samples are read as those of epoch 0.

    Raises:
        InputError: ``batch`` is below 1 or ``rank`` is not below ``size``.
    """
    if batch < 1:
        raise InputError(f"the evaluation batch is {batch}; it must be at least 1")
    if not 0 <= rank < size:
        raise InputError(f"rank is {rank} of {size}; it must be from 0 to {size - 1}")
    lo, hi = share(len(dataset if chosen is None else chosen), rank, size)
    pieces = (arange(start, min(start + batch, hi), dtype=int64) for start in range(lo, hi, batch))
    if lo >= hi:
        return _nothing()
    ids = pieces if chosen is None else map(chosen.ids, pieces)
    return batches_of(dataset, ids, workers=workers, prefetch=prefetch, device=device, collate=collate)


def batches_of(
    dataset: Dataset,
    pieces: Iterator[Ids],
    *,
    workers: int = 0,
    prefetch: int = 2,
    device: str | torch.device | None = None,
    collate: Collate = stack,
) -> Generator[MicroBatch, None, None]:
    """The samples of each of ``pieces``, ids (n,), as :func:`evaluation_batches` delivers them."""
    waiting: deque[Ids] = deque()

    def requests() -> Iterator[tuple[int, Ids]]:
        for ids in pieces:
            waiting.append(ids)
            yield 0, ids

    place = torch.device(device or "cpu")
    options = {"seed": 0, "workers": workers, "prefetch": prefetch}
    with closing(fetch(dataset, requests(), **options, device=place, collate=collate)) as stream:
        for tensors in stream:
            yield MicroBatch(tensors, waiting.popleft(), 1.0)


def _nothing() -> Generator[MicroBatch, None, None]:
    """Of an empty share; no worker is started for it."""
    yield from ()
