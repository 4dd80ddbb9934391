"""The order in which an epoch visits the samples. No order knows the number of ranks.

Every order is a pure function of its arguments, so a run can be resumed anywhere on any cluster from the
position alone. Shuffled orders are computed at the positions that are asked for (see :mod:`disttrain.data.permutation`):
1e9 samples take 3 MB, and a first batch in the middle of an epoch some milliseconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from disttrain.data.permutation import Ids, permuted
from disttrain.data.randomness import uniform
from disttrain.data.selection import Selection
from disttrain.errors import InputError

BLOCK = 8192
"""Positions that are worked out at once: all of them, where the permutation is a sorted one."""
_HELD = 2
"""Blocks that are kept: a batch may lie across the border of two."""


class Order(Protocol):
    """What a loader needs of an order."""

    @property
    def num_samples(self) -> int:
        """Positions in an epoch."""
        ...

    @property
    def dataset_samples(self) -> int:
        """Samples of the dataset that the ids belong to; more than ``num_samples`` where a part of it is visited."""
        ...

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """(stop - start,) sample ids of the epoch's positions [start, stop), so arranged that contiguous
        shares are what each worker reads."""
        ...


class Sequential:
    """The samples as they stand, the same in every epoch."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = self.dataset_samples = _count("num_samples", num_samples)

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The ids start to stop - 1."""
        _check_range(start, stop, self.num_samples)
        return np.arange(start, stop, dtype=np.int64)


class _InBlocks(ABC):
    """An order that works out a block of positions at once, because single batches would cost several times as much.

    Args:
        num_samples: positions in an epoch.
        seed: decides the order, together with the epoch.
        chosen: the samples of the dataset that are visited; None: all of them.
    """

    def __init__(self, num_samples: int, seed: int, chosen: Selection | None = None) -> None:
        self.num_samples = _count("num_samples", num_samples)
        if chosen is not None and len(chosen) != num_samples:
            raise InputError(f"the order is over {num_samples} samples, and {len(chosen)} are chosen")
        self.dataset_samples = num_samples if chosen is None else chosen.total
        self.seed = seed
        self.chosen = chosen
        self._held: dict[tuple[int, int], Ids] = {}

    @abstractmethod
    def _at(self, epoch: int, positions: Ids) -> Ids:
        """(n,) the samples at ``positions`` (n,) of the epoch, counted from 0 to num_samples - 1."""

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """(stop - start,) the ids at the positions [start, stop) of the epoch."""
        _check_range(start, stop, self.num_samples)
        if start == stop:
            return np.empty(0, dtype=np.int64)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        return np.concatenate(
            [
                self._block(epoch, number)[max(start - number * BLOCK, 0) : stop - number * BLOCK]
                for number in range(first, last + 1)
            ]
        )

    def _block(self, epoch: int, number: int) -> Ids:
        found = self._held.get((epoch, number))
        if found is None:
            found = self._at(epoch, np.arange(number * BLOCK, min((number + 1) * BLOCK, self.num_samples)))
            if self.chosen is not None:
                found = self.chosen.ids(found)
            if len(self._held) == _HELD:
                del self._held[next(iter(self._held))]
            self._held[epoch, number] = found
        return found


class WithReplacement(_InBlocks):
    """Position i of epoch e is a draw from the whole set, a pure function of (seed, e, i).

    Draws are independent, so each worker's share is itself a draw with replacement from the whole set.
    """

    def _at(self, epoch: int, positions: Ids) -> Ids:
        u = uniform(self.seed, epoch, positions, stream="replacement")[:, 0]
        return np.floor(u * self.num_samples).astype(np.int64)


class GlobalShuffle(_InBlocks):
    """One random permutation of the whole set per epoch, a pure function of (seed, epoch)."""

    def _at(self, epoch: int, positions: Ids) -> Ids:
        return permuted(positions, self.num_samples, seed=self.seed, epoch=epoch, stream="permutation")


class Partition(_InBlocks):
    """The set is shuffled once and split into ``parts``; each worker then reads one part.

    Epoch 0 reads every part in the order of the split, later epochs reshuffle within the part. Position j of
    an epoch is taken from part ``j % parts``; the first ``num_samples % parts`` parts hold one sample more,
    so that all parts end together.

    ``batch`` sorts the ids of a batch by part. When the batch is a multiple of ``parts`` and ``parts`` is the
    number of ranks, the share of rank r is exactly part r's samples. Otherwise (a short last batch, another
    number of ranks) shares are still contiguous and a few samples at their borders come from a neighbouring
    part. The order itself depends on ``parts``, which the recipe fixes, and never on the ranks.
    """

    def __init__(self, num_samples: int, seed: int, parts: int, chosen: Selection | None = None) -> None:
        super().__init__(num_samples, seed, chosen)
        self.parts = _count("parts", parts)

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The ids of the positions [start, stop), sorted by part and in their order within each part."""
        ids = super().batch(epoch, start, stop)
        return ids[np.argsort(np.arange(start, stop) % self.parts, kind="stable")]

    def _at(self, epoch: int, positions: Ids) -> Ids:
        smaller, longer = divmod(self.num_samples, self.parts)
        element, part = np.divmod(positions, self.parts)
        if epoch > 0:
            sizes = smaller + (part < longer)
            element = permuted(
                element, -(-self.num_samples // self.parts), seed=self.seed, epoch=epoch, stream="within part",
                lanes=part, sizes=sizes,
            )  # fmt: skip
        slots = part * smaller + np.minimum(part, longer) + element
        return permuted(slots, self.num_samples, seed=self.seed, epoch=0, stream="partition")


def _count(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1")
    return value


def _check_range(start: int, stop: int, num_samples: int) -> None:
    if not 0 <= start <= stop <= num_samples:
        raise ValueError(f"positions [{start}, {stop}) do not lie in an epoch of {num_samples} samples")
