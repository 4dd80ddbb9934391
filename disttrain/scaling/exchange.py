"""What an all-reduce costs: an alpha-beta model of the ring, fitted to what was measured.

A ring of ``p`` ranks makes ``2 (p - 1)`` steps, in each of which every rank sends an ``p``-th of the bytes to its neighbour
(Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"):

    seconds(n, p) = 2 (p - 1) alpha + 2 (p - 1) / p n (beta + gamma / link)

``alpha`` seconds of a message, ``beta`` seconds of a byte in the machines, ``gamma`` the bits that travel for each byte over a
link of so many bits per second: 8, and what the protocol adds. Between hosts a block of neighbours uses the link once, so it
does not matter how many ranks a host has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from disttrain.scaling.record import Exchanged

ROUNDS, NEGLIGIBLE = 10, 0.01
"""Of weighting anew, and the relative difference below which a measurement has its full weight."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A fitted model.

    Attributes:
        alpha: seconds of a message.
        beta: seconds of a byte.
        gamma: bits on the link for each byte.
        error: median of the relative differences from what it was fitted to.
    """

    alpha: float
    beta: float
    gamma: float
    error: float

    def seconds(self, size: float, ranks: int, link: float | None = None) -> float:
        """Of an all-reduce of ``size`` bytes; ``link`` in bits per second, None where it is part of beta."""
        features = _features(size, ranks, link)
        return float(features @ np.array([self.alpha, self.beta, self.gamma]))

    def per_byte(self, link: float | None = None) -> float:
        """Seconds of a byte over that link."""
        return self.beta + (self.gamma / link if link else 0.0)


def fit_ring(measured: Sequence[Exchanged]) -> Ring | None:
    """Least squares of relative differences, with no negative number, weighted anew until they are least absolute ones: on a busy
    machine some all-reduces take many times as long as they would. None without a measurement on several ranks."""
    points = [m for m in measured if m.ranks > 1 and m.seconds > 0]
    if not points:
        return None
    seconds = np.array([m.seconds for m in points])
    rows = np.stack([_features(m.bytes, m.ranks, m.link_bits_per_second) for m in points]) / seconds[:, None]
    weights = np.ones(len(points))
    for _ in range(ROUNDS):
        found = _nonnegative(rows * weights[:, None], weights)
        weights = 1 / np.sqrt(np.maximum(np.abs(rows @ found - 1), NEGLIGIBLE))
    error = float(np.median(np.abs(rows @ found - 1)))
    alpha, beta, gamma = map(float, found)
    return Ring(alpha, beta, gamma, error)


def _features(size: float, ranks: int, link: float | None) -> NDArray[np.float64]:
    share = 2 * (ranks - 1) / ranks * size
    return np.array([2.0 * (ranks - 1), share, share / link if link else 0.0])


def _nonnegative(rows: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares with no negative coefficient: the best of all subsets of columns whose own solution has none."""
    columns = rows.shape[1]
    best, least = np.zeros(columns), float(wanted @ wanted)
    for count in range(1, columns + 1):
        for chosen in map(list, combinations(range(columns), count)):
            solved, *_ = np.linalg.lstsq(rows[:, chosen], wanted, rcond=None)
            rest = float(((rows[:, chosen] @ solved - wanted) ** 2).sum())
            if (solved >= 0).all() and rest < least * (1 - 1e-9):
                best, least = np.zeros(columns), rest
                best[chosen] = solved
    return best
