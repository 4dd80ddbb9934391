"""Random permutations that are computed position by position and stored nowhere.

The positions lie in a rectangle of a x b places, a * b >= n. Each round moves one coordinate round its circle by a hash of
the other one, so every round can be undone and all of them together are a permutation of the rectangle. A position that
lands outside [0, n) goes through the rounds again until it lands inside, which makes it a permutation of [0, n).

References: Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM J. Comput. 17,
1988, for the rounds; Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, sections 4 and 5, for walking on
until a value lies inside, and for rounds on a rectangle that is not a square of bits.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from disttrain.data.randomness import word

Ids = NDArray[np.int64]
Words = NDArray[np.uint64]

ROUNDS = 10
FEW = 4096
"""Up to so many positions, a round's hashes are few, and more rounds are taken."""
ROUNDS_OF_FEW = 24
_HALF = np.uint64(32)


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
        positions: (k,) in [0, n), n below 2^62.
        lanes: (k,) each lane below 2^32 has a permutation of its own; None: all are in lane 0.
        sizes: (k,) of each position's lane, at most n; its permutation is then one of [0, size).

    Returns:
        (k,) int64.
    """
    high, low = rectangle(n)
    rounds = ROUNDS if n > FEW else ROUNDS_OF_FEW
    names = [f"{stream} round {number}" for number in range(rounds)]
    lane = np.broadcast_to(np.uint64(0) if lanes is None else lanes.astype(np.uint64) << _HALF, positions.shape)
    limit = np.broadcast_to(np.uint64(n) if sizes is None else sizes.astype(np.uint64), positions.shape)

    def shuffled(places: Words, lane: Words) -> Words:
        x, y = np.divmod(places, np.uint64(low))
        for first, second in zip(names[::2], names[1::2], strict=True):
            x = _turned(x, word(seed, epoch, y | lane, stream=first), high)
            y = _turned(y, word(seed, epoch, x | lane, stream=second), low)
        return x * np.uint64(low) + y

    places = shuffled(positions.astype(np.uint64), lane)
    outside = np.flatnonzero(places >= limit)
    while len(outside):
        places[outside] = shuffled(places[outside], lane[outside])
        outside = outside[places[outside] >= limit[outside]]
    return places.astype(np.int64)


def rectangle(n: int) -> tuple[int, int]:
    """Sides a and b, nearly equal, with a * b >= n. The side a is even: turns of an odd number of places are even
    permutations, and with both sides odd no odd one could ever come about.

    >>> rectangle(1), rectangle(10), rectangle(10**9)
    ((2, 1), (4, 3), (31624, 31622))
    """
    high = isqrt(n - 1) + 1
    high += high % 2
    return high, -(-n // high)


def _turned(coordinate: Words, random: Words, side: int) -> Words:
    """``coordinate`` moved round its circle by a random distance."""
    moved = coordinate + ((random >> _HALF) * np.uint64(side) >> _HALF)
    return np.where(moved >= side, moved - np.uint64(side), moved)
