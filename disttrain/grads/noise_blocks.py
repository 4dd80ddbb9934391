"""What a running noise scale remembers: blocks of consecutive readings, more of them to a block where more are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import reduce
from itertools import groupby, pairwise
from operator import add
from typing import Any

MOST_BLOCKS = 64
FEWEST_BLOCKS = MOST_BLOCKS // 2
WHOLE_EPOCHS = 8
"""From so many on, whole epochs are what is compared."""
ENOUGH, PLENTY = 1 / 8, 1 / 16
"""Standard error of ``|G|^2``, as a share of it, from which on memory no longer grows, and from which on it shrinks."""
DRIFT = 2.5
"""Standard errors by which the older half of the memory has to differ from the newer one to be forgotten."""
FEWEST_COMPARED = 8
"""Blocks below which nothing is forgotten."""
INDEPENDENT = -1
"""Stands for the number of the epoch where batches are independent draws."""


@dataclass(frozen=True, slots=True)
class Block:
    """Sums over consecutive readings, each weighed with the samples of its batch.

    Attributes:
        readings: how many.
        weight: samples of their batches.
        square: sum of weight times ``|G|^2``.
        trace: sum of weight times ``tr(Sigma)``.
        first: epoch of the first reading, or :data:`INDEPENDENT`.
        last: epoch of the last.
    """

    readings: int
    weight: float
    square: float
    trace: float
    first: int
    last: int

    def __add__(self, after: Block) -> Block:
        return Block(
            self.readings + after.readings,
            self.weight + after.weight,
            self.square + after.square,
            self.trace + after.trace,
            self.first,
            after.last,
        )


class Blocks:
    """The latest readings, in at most 64 blocks.

    A block holds up to ``length`` readings of one epoch, or, once an epoch is one block, ``span`` epochs. Where 64 blocks are
    too few to tell ``|G|^2``, neighbours are merged and new blocks are twice as long, so memory grows with the square of noise
    scale / batch, as the variance does; else the oldest makes room for the newest. Where the older half differs from the newer
    one by more than chance, the weights have moved on, and the oldest is forgotten: an average over both would be of neither,
    and |G|^2, which falls in training, would be that of the beginning.
    """

    def __init__(self) -> None:
        self.length = self.span = 1
        self.all: list[Block] = []

    def add(self, reading: Block) -> None:
        """Take in one reading."""
        if self.all and self._open_to(reading.first):
            self.all[-1] += reading
            return
        self._forget()
        error = relative_error(self.clusters())
        if error < PLENTY and self.length > 1:
            self._shrink()
        while len(self.all) >= MOST_BLOCKS:
            if error > ENOUGH or self._lacks_epochs():
                self._merge()
            else:
                self._drop()
        self.all.append(reading)

    def clusters(self) -> list[Block]:
        """What may be taken for independent: whole epochs if there are eight, else blocks.

        Over a whole epoch every sample counts once, so the part of the noise that is linear in the samples' gradients cancels
        while the weights stand still: whole epochs vary less than their readings, and the unfinished one more. Blocks within
        an epoch leave that out, so fewer epochs than eight, but most of one or more, give an interval that is too wide.
        """
        if self._whole_epochs() < WHOLE_EPOCHS:
            return self.all
        return [reduce(add, group) for _, group in groupby(self.all, lambda block: block.first)][:-1]

    def state(self) -> list[list[float]]:
        """(64, 6) the blocks as plain numbers, with rows of zeros where there are none."""
        rows = [list(astuple(block)) for block in self.all]
        return rows + [[0.0] * 6 for _ in range(MOST_BLOCKS - len(rows))]

    def load(self, length: int, span: int, rows: Sequence[Sequence[Any]]) -> None:
        """Go on from :meth:`state`."""
        self.length, self.span = int(length), int(span)
        self.all = [Block(int(n), w, s, t, int(a), int(b)) for n, w, s, t, a, b in rows if n]

    def _open_to(self, epoch: int) -> bool:
        last = self.all[-1]
        return last.first <= epoch < last.first + self.span and (last.first != epoch or last.readings < self.length)

    def _whole_epochs(self) -> int:
        """How many, or blocks of them: all but the latest, which goes on. None where batches are independent."""
        return len({block.first for block in self.all}) - 1

    def _lacks_epochs(self) -> bool:
        """Whether the memory is a few epochs long, which is the worst to judge by, or would be without its oldest."""
        return 2 <= self._whole_epochs() <= WHOLE_EPOCHS

    def _forget(self) -> None:
        """Drop the oldest while the halves differ; where few are left, new blocks are half as long, to be quicker next time."""
        forgotten = False
        while len(self.all) >= 2 * FEWEST_COMPARED and _differ(self.all):
            self.all.pop(0)
            forgotten = True
        if forgotten and len(self.all) <= FEWEST_BLOCKS:
            self.length, self.span = max(self.length // 2, 1), max(self.span // 2, 1)

    def _shrink(self) -> None:
        """Drop two where one is about to be added, down to half the blocks, of which new ones are then half as long."""
        for _ in range(2):
            if len(self.all) > FEWEST_BLOCKS and not self._lacks_epochs():
                self._drop()
        if len(self.all) <= FEWEST_BLOCKS:
            self.length, self.span = max(self.length // 2, 1), max(self.span // 2, 1)

    def _drop(self) -> None:
        """Drop the oldest block, or the oldest epoch if epochs are compared."""
        first = self.all.pop(0).first
        while self._whole_epochs() >= WHOLE_EPOCHS and self.all[0].first == first:
            del self.all[0]

    def _merge(self) -> None:
        """Merge neighbours in pairs: within epochs, or where none has two blocks, of two epochs."""
        within = any(a.first == b.first for a, b in pairwise(self.all))
        if within:
            self.length *= 2
        else:
            self.span, self.length = 2 * self.span, max(block.readings for block in self.all)
        merged: list[Block] = []
        alone = False
        for block in self.all:
            if alone and (merged[-1].first == block.first or not within):
                merged[-1] += block
                alone = False
            else:
                merged.append(block)
                alone = True
        self.all = merged


def _differ(blocks: Sequence[Block]) -> bool:
    """Whether ``|G|^2`` or the trace of the older half differs from that of the newer one by :data:`DRIFT` standard errors."""
    halves = blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
    for values in (lambda block: block.square, lambda block: block.trace):
        (old, old_error), (new, new_error) = (_mean(half, values) for half in halves)
        rounding = (1e-9 * max(abs(old), abs(new))) ** 2
        if (old - new) ** 2 > DRIFT**2 * (old_error + new_error) + rounding:
            return True
    return False


def _mean(blocks: Sequence[Block], of: Callable[[Block], float]) -> tuple[float, float]:
    """Weighted mean over blocks, and its squared standard error."""
    weight, total = sum(b.weight for b in blocks), sum(map(of, blocks))
    spread = sum((of(b) - total * b.weight / weight) ** 2 for b in blocks)
    return total / weight, spread * len(blocks) / (len(blocks) - 1) / weight**2


def relative_error(clusters: Sequence[Block]) -> float:
    """Standard error of the mean ``|G|^2`` over clusters, as a share of it; infinite where it is not positive."""
    if len(clusters) < 2:
        return math.inf
    mean, error = _mean(clusters, lambda block: block.square)
    return math.sqrt(error) / mean if mean > 0.0 else math.inf
