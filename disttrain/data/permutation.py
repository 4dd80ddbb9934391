"""Random permutations that are computed position by position and stored nowhere, but for small ones.

The positions lie in a rectangle of a x b places, a * b >= n. Each round moves one coordinate round its circle by a hash of
the other one, so every round can be undone and all of them together are a permutation of the rectangle. A position that
lands outside [0, n) goes through the rounds again until it lands inside, which makes it a permutation of [0, n).

References: Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 17,
1988, for the rounds; Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 4 and 5, for walking on
until a value lies inside, and for rounds on a rectangle that is not a square of bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from disttrain.data.randomness import keys, word

Ids = NDArray[np.int64]
Words = NDArray[np.uint64]
Coordinates = NDArray[np.uint32]
Distances = Callable[[int, Coordinates], Coordinates]
"""From the number of a round and the one coordinate: how far the other one moves."""

SORTED = 8192
"""Up to so many positions, sorting the ids by their keys is quicker than computing."""
ROUNDS = 12
FEW = 64
"""Up to so many positions a round draws only a handful of distances, and more rounds are taken."""
ROUNDS_OF_FEW = 32
# Bits of the number that is hashed: 28 for the coordinate, then 30 for the lane, then 6 for the round.
_LANE, _ROUND, _HALF = np.uint64(28), np.uint64(58), np.uint64(32)


def permuted(
    positions: Ids,
    n: int,
    *,
    seed: int,
    epoch: int,
    stream: str,
    lanes: Ids | None = None,
    sizes: Ids | None = None,
) -> Ids:
    """Where a random permutation of [0, n), a pure function of (seed, epoch, stream), sends ``positions``.

    Args:
        positions: (k,) in [0, n), n at most 2^56.
        lanes: (k,) each lane below 2^30 has a permutation of its own; None: all are in lane 0.
        sizes: (k,) of each position's lane, at most n; its permutation is then one of [0, size).

    Returns:
        (k,) int64.
    """
    if n <= SORTED and lanes is None:
        return _sorted(n, seed, epoch, stream)[positions]
    shape = positions.shape
    lane = np.broadcast_to(np.uint64(0) if lanes is None else lanes.astype(np.uint64) << _LANE, shape)
    limit = np.broadcast_to(np.int64(n) if sizes is None else sizes, shape)
    high, low = rectangle(n)

    def shuffled(places: Ids, lane: Words) -> Ids:
        if lanes is None:
            tables = _tables(n, seed, epoch, stream)
            return _rounds(places, n, lambda number, other: tables[number].take(other))
        return _rounds(
            places,
            n,
            lambda number, other: _distances(
                word(seed, epoch, _hashed(number, other) | lane, stream=stream), low if number % 2 else high
            ),
        )

    places = shuffled(positions, lane)
    outside = np.flatnonzero(places >= limit)
    while len(outside):
        places[outside] = shuffled(places[outside], lane[outside])
        outside = outside[places[outside] >= limit[outside]]
    return places


def rectangle(n: int) -> tuple[int, int]:
    """Sides a and b, nearly equal, with a * b >= n. The side a is even: turns of an odd number of places are even
    permutations, and with both sides odd no odd one could ever come about.

    Examples:
        >>> rectangle(1), rectangle(10), rectangle(10**9)
        ((2, 1), (4, 3), (31624, 31622))
    """
    high = isqrt(n - 1) + 1
    high += high % 2
    return high, -(-n // high)


@lru_cache(maxsize=4)
def _sorted(n: int, seed: int, epoch: int, stream: str) -> Ids:
    return np.argsort(keys(seed, epoch, n, stream=stream))


def _rounds(places: Ids, n: int, distances: Distances) -> Ids:
    """``places`` (k,) of the rectangle after all rounds: even ones move the row, odd ones the column."""
    high, low = rectangle(n)
    rows = places // low
    x, y = rows.astype(np.uint32), (places - rows * low).astype(np.uint32)
    for number in range(0, _count(n), 2):
        # A sum past the end is less once the side is taken off; of any other the difference wraps round to a huge number.
        x += distances(number, y)
        np.minimum(x, x - np.uint32(high), out=x)
        y += distances(number + 1, x)
        np.minimum(y, y - np.uint32(low), out=y)
    return x.astype(np.int64) * low + y


@lru_cache(maxsize=4)
def _tables(n: int, seed: int, epoch: int, stream: str) -> list[Coordinates]:
    """All distances of lane 0, by round and coordinate: about ``ROUNDS * sqrt(n)`` numbers, which is quicker than hashing."""
    high, low = rectangle(n)
    sides = (high, low) * (_count(n) // 2)
    return [
        _distances(word(seed, epoch, _hashed(number, np.arange(high + low - side)), stream=stream), side)
        for number, side in enumerate(sides)
    ]


def _hashed(number: int, other: NDArray[np.integer]) -> Words:
    return np.uint64(number) << _ROUND | other.astype(np.uint64)


def _distances(words: Words, side: int) -> Coordinates:
    """The upper halves of the words as numbers in [0, side)."""
    return ((words >> _HALF) * np.uint64(side) >> _HALF).astype(np.uint32)


def _count(n: int) -> int:
    return ROUNDS if n > FEW else ROUNDS_OF_FEW
