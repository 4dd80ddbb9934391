"""Batches of a dataset, for one rank, from any position on.

Importing this module does not import torch, so that recipes can be checked and plans shown without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.order import GlobalShuffle, Order, Sequential, WithReplacement
from disttrain.data.position import Position
from disttrain.data.shares import pieces, share
from disttrain.errors import InputError

if TYPE_CHECKING:
    import torch

    from disttrain.data.collate import Collate
    from disttrain.data.dataset import Dataset

__all__ = ["Batch", "Loader", "MicroBatch", "loader"]


class Ranks(Protocol):
    """The part of a world that data needs."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...


class _Plan(NamedTuple):
    """A batch before its samples are read."""

    epoch: int
    offset: int
    size: int
    ends_epoch: bool
    global_ids: NDArray[np.int64]
    before: int
    share: int
    pieces: list[tuple[NDArray[np.int64], float]]


class Loader:
    """Iterates over one rank's batches.

    Which samples make up global batch b, and in what order, depends on the order, the batch size and the
    position alone. The rank reads a contiguous share of it. A batch never crosses the end of an epoch.

    Args:
        dataset: see :mod:`disttrain.data.dataset` for the three kinds.
        order: the order of the samples within an epoch.
        rank, size: this rank, and the number of ranks.
        batch_size: samples in a global batch; or a function of the samples passed, which are
            ``epoch * num_samples + offset``: a function of the position, so that a resumed run cuts the same
            batches.
        per_rank_max: samples in a micro-batch at most; None for no limit.
        ghost_size: shares and micro-batches consist of whole ghosts of so many samples (see :mod:`disttrain.data.shares`).
        slice_of: the number of an update, from 1, to the samples of each of its micro-batches, which are then slices of the
            global batch and do not depend on the ranks; 0: as few micro-batches as possible.
        last: "keep" makes the last batch of an epoch short, "drop" leaves it out.
        position: where to begin.
        stop_samples: no batch begins once so many samples were passed (counted as for ``batch_size``; for E
            epochs it is ``E * num_samples``). None to go on for ever.
        seed: seeds plain torch datasets, together with epoch and sample id.
        workers: processes that read samples; not used for datasets in memory.
        prefetch: micro-batches that each worker reads ahead, and that are copied ahead to a CUDA device.
        device: where the tensors are delivered; None for the CPU.
        collate: makes a batch of the list of a micro-batch's samples, to pad them for example; None:
            :func:`disttrain.data.collate.stack`.

    Raises:
        InputError: an argument is out of range, or the dataset and the order differ in length.
        DataError: while iterating, a sample could not be read.
        RankError: while iterating, a worker process died.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        *,
        rank: int,
        size: int,
        batch_size: int | Callable[[int], int],
        per_rank_max: int | None = None,
        ghost_size: int = 1,
        slice_of: Callable[[int], int] = lambda update: 0,
        last: Literal["keep", "drop"] = "keep",
        position: Position | None = None,
        stop_samples: int | None = None,
        seed: int = 0,
        workers: int = 0,
        prefetch: int = 2,
        device: str | torch.device | None = None,
        collate: Collate | None = None,
    ) -> None:
        _check(0 <= rank < size, f"rank is {rank} of {size}; it must be from 0 to {size - 1}")
        _check(last in ("keep", "drop"), f"last is {last!r}; it must be 'keep' or 'drop'")
        _check(workers >= 0, f"workers is {workers}; it must be at least 0")
        _check(prefetch >= 1, f"prefetch is {prefetch}; it must be at least 1")
        _check(ghost_size >= 1, f"ghost_size is {ghost_size}; it must be at least 1")
        _check(
            per_rank_max is None or per_rank_max >= ghost_size,
            f"per_rank_max is {per_rank_max}; it must be at least {ghost_size}, or None for no limit",
        )
        _check(
            len(dataset) == order.dataset_samples,
            f"the dataset has {len(dataset)} samples but the order is over {order.dataset_samples}",
        )
        self.position = position or Position()
        _check(
            self.position.offset < order.num_samples,
            f"position: offset is {self.position.offset}, but an epoch of this dataset has "
            f"{order.num_samples} samples; the position belongs to another dataset",
        )
        self.dataset = dataset
        self.order = order
        self.rank = rank
        self.size = size
        self.batch_size = batch_size
        self.per_rank_max = per_rank_max
        self.ghost_size = ghost_size
        self.slice_of = slice_of
        self.last = last
        self.stop_samples = stop_samples
        self.seed = seed
        self.workers = workers
        self.prefetch = prefetch
        self.device = device
        self.collate = collate
        self._global_batch(self.position.epoch * order.num_samples + self.position.offset)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Batches from ``position`` on. Closing the generator ends the worker processes."""
        import torch

        from disttrain.data.collate import stack
        from disttrain.data.fetching import fetch

        planned: deque[_Plan] = deque()

        def requests() -> Iterator[tuple[int, NDArray[np.int64]]]:
            for plan in self._plans():
                planned.append(plan)
                for ids, _ in plan.pieces:
                    yield plan.epoch, ids

        stream = fetch(
            self.dataset,
            requests(),
            seed=self.seed,
            workers=self.workers,
            prefetch=self.prefetch,
            device=torch.device(self.device or "cpu"),
            collate=self.collate or stack,
        )
        with closing(stream):
            ready: list[MicroBatch] = []
            for tensors in stream:
                plan = planned[0]
                ids, weight = plan.pieces[len(ready)]
                ready.append(MicroBatch(tensors, ids, weight))
                if len(ready) == len(plan.pieces):
                    planned.popleft()
                    yield Batch(*plan[:-1], ready)
                    ready = []

    def _plans(self) -> Iterator[_Plan]:
        num_samples = self.order.num_samples
        epoch, offset, update = self.position.epoch, self.position.offset, self.position.updates
        while self.stop_samples is None or epoch * num_samples + offset < self.stop_samples:
            wanted = self._global_batch(epoch * num_samples + offset)
            left = num_samples - offset
            if self.last == "drop" and left < wanted:
                if offset == 0:
                    raise InputError(
                        f"the global batch is {wanted} but an epoch has {num_samples} samples, and with "
                        "last='drop' no batch would ever be made; use a smaller batch or last='keep'"
                    )
                epoch, offset = epoch + 1, 0
                continue
            stop = offset + min(wanted, left)
            ends_epoch = stop == num_samples or (
                self.last == "drop" and num_samples - stop < self._global_batch(epoch * num_samples + stop)
            )
            update += 1
            yield self._plan(epoch, offset, stop, ends_epoch, self.slice_of(update))
            epoch, offset = (epoch + 1, 0) if ends_epoch else (epoch, stop)

    def _plan(self, epoch: int, start: int, stop: int, ends_epoch: bool, slice_size: int) -> _Plan:
        everything, count = self.order.batch(epoch, start, stop), stop - start
        lo, hi = share(count, self.rank, self.size, self.ghost_size, slice_size)
        cuts = pieces(count, self.rank, self.size, self.per_rank_max, self.ghost_size, slice_size)
        # More ranks than samples: the rank still has to take part in the exchange of gradients.
        found = [(everything[a:b], 1.0) for a, b in cuts] or [(everything[:1], 0.0)]
        return _Plan(epoch, start, count, ends_epoch, everything, lo, hi - lo, found)

    def _global_batch(self, passed: int) -> int:
        size = self.batch_size(passed) if callable(self.batch_size) else self.batch_size
        if size < 1:
            raise InputError(f"the global batch is {size} after {passed} samples; it must be at least 1")
        return size


def loader(
    dataset: Dataset,
    world: Ranks,
    *,
    global_batch: int,
    seed: int = 0,
    epochs: int = 1,
    position: Position | None = None,
    per_rank_max: int | None = None,
    order: Literal["global_shuffle", "replacement", "sequential"] | Order = "global_shuffle",
    last: Literal["keep", "drop"] = "keep",
    workers: int = 0,
    device: str | torch.device | None = None,
    collate: Collate | None = None,
) -> Loader:
    """The batches of ``epochs`` epochs for this rank.

    Args:
        world: anything with ``rank`` and ``size``, such as ``engine.world``.
        global_batch: samples in a batch over all ranks.
        epochs: where the batches end, counted from the beginning and not from ``position``.
        position: where they begin, such as that of a :class:`disttrain.State`; None: at the beginning.
        order: the name of an order, or an order such as ``Partition(len(dataset), seed, parts=8)``; of a part of the dataset,
            ``GlobalShuffle(len(train), seed, train)`` where ``train, validation = held_out(len(dataset), 0.1)``.
        The others are those of :class:`Loader`.

    Example::

        for batch in loader(dataset, engine.world, global_batch=512, seed=1):
            for inputs, targets in (micro.tensors for micro in batch):
                ...

    Raises:
        InputError: as :class:`Loader`, or the order is not known.
    """
    chosen = _order(order, len(dataset), seed)
    _check(epochs >= 0, f"epochs is {epochs}; it must be at least 0")
    return Loader(
        dataset,
        chosen,
        rank=world.rank,
        size=world.size,
        batch_size=global_batch,
        per_rank_max=per_rank_max,
        last=last,
        position=position,
        stop_samples=epochs * chosen.num_samples,
        seed=seed,
        workers=workers,
        device=device,
        collate=collate,
    )


def _order(order: str | Order, samples: int, seed: int) -> Order:
    match order:
        case "global_shuffle":
            return GlobalShuffle(samples, seed)
        case "replacement":
            return WithReplacement(samples, seed)
        case "sequential":
            return Sequential(samples)
        case str():
            raise InputError(
                f"order is {order!r}; it must be 'global_shuffle', 'replacement', 'sequential' or an order "
                "object (for parts: Partition(num_samples, seed, parts))"
            )
        case _:
            return order


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise InputError(message)
