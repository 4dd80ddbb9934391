"""The order in which an epoch visits the samples. No order knows the number of ranks.

Every order is a pure function of its arguments, so a run can be resumed anywhere on any cluster from the
position alone. Only the sequence of the current epoch is kept in memory (8 bytes a sample).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from disttrain.data.randomness import keys, uniform
from disttrain.errors import InputError

Ids = NDArray[np.int64]


class Order(Protocol):
    """What a loader needs of an order."""

    @property
    def num_samples(self) -> int:
        """Positions in an epoch, which is also the number of samples of the dataset."""
        ...

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """(stop - start,) sample ids of the epoch's positions [start, stop), so arranged that contiguous
        shares are what each worker reads."""
        ...


class Sequential:
    """The samples as they stand, the same in every epoch."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = _count("num_samples", num_samples)

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The ids start to stop - 1."""
        _check_range(start, stop, self.num_samples)
        return np.arange(start, stop, dtype=np.int64)


class WithReplacement:
    """Position i of epoch e is a draw from the whole set, a pure function of (seed, e, i).

    Draws are independent, so each worker's share is itself a draw with replacement from the whole set.
    """

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples = _count("num_samples", num_samples)
        self.seed = seed

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The draws of the positions [start, stop)."""
        _check_range(start, stop, self.num_samples)
        u = uniform(self.seed, epoch, np.arange(start, stop), stream="replacement")[:, 0]
        return np.floor(u * self.num_samples).astype(np.int64)


class _EpochSequence(ABC):
    """An order that works out a whole epoch at once and keeps the current one."""

    def __init__(self, num_samples: int, seed: int) -> None:
        self.num_samples = _count("num_samples", num_samples)
        self.seed = seed
        self._current: tuple[int, Ids] | None = None

    @abstractmethod
    def _sequence(self, epoch: int) -> Ids:
        """(num_samples,) the ids of all positions of the epoch."""

    def _positions(self, epoch: int, start: int, stop: int) -> Ids:
        _check_range(start, stop, self.num_samples)
        if self._current is None or self._current[0] != epoch:
            self._current = (epoch, self._sequence(epoch))
        return self._current[1][start:stop].copy()


class GlobalShuffle(_EpochSequence):
    """One random permutation of the whole set per epoch, a pure function of (seed, epoch)."""

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The slice [start, stop) of the epoch's permutation."""
        return self._positions(epoch, start, stop)

    def _sequence(self, epoch: int) -> Ids:
        return np.argsort(keys(self.seed, epoch, self.num_samples))


class Partition(_EpochSequence):
    """The set is shuffled once and split into ``parts``; each worker then reads one part.

    Epoch 0 reads every part in the order of the split, later epochs reshuffle within the part. Position j of
    an epoch is taken from part ``j % parts``; the first ``num_samples % parts`` parts hold one sample more,
    so that all parts end together.

    ``batch`` sorts the ids of a batch by part. When the batch is a multiple of ``parts`` and ``parts`` is the
    number of ranks, the share of rank r is exactly part r's samples. Otherwise (a short last batch, another
    number of ranks) shares are still contiguous and a few samples at their borders come from a neighbouring
    part. The order itself depends on ``parts``, which the recipe fixes, and never on the ranks.
    """

    def __init__(self, num_samples: int, seed: int, parts: int) -> None:
        super().__init__(num_samples, seed)
        self.parts = _count("parts", parts)
        self._split = np.argsort(keys(seed, 0, num_samples, stream="partition"))
        sizes = [num_samples // parts + (part < num_samples % parts) for part in range(parts)]
        self._part_of_slot = np.repeat(np.arange(parts), sizes)
        self._first_slot = np.cumsum([0, *sizes[:-1]])

    def batch(self, epoch: int, start: int, stop: int) -> Ids:
        """The ids of the positions [start, stop), sorted by part and in their order within each part."""
        ids = self._positions(epoch, start, stop)
        return ids[np.argsort(np.arange(start, stop) % self.parts, kind="stable")]

    def _sequence(self, epoch: int) -> Ids:
        slots = self._split
        if epoch > 0:
            shuffled = keys(self.seed, epoch, self.num_samples, stream="within part")[self._split]
            slots = self._split[np.lexsort((shuffled, self._part_of_slot))]
        position = np.arange(self.num_samples)
        return slots[self._first_slot[position % self.parts] + position // self.parts]


def _count(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} is {value}; it must be at least 1")
    return value


def _check_range(start: int, stop: int, num_samples: int) -> None:
    if not 0 <= start <= stop <= num_samples:
        raise ValueError(f"positions [{start}, {stop}) do not lie in an epoch of {num_samples} samples")
