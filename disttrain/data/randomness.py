"""Random draws that are a pure function of (seed, epoch, sample id, stream, draw index).

A draw is a hash of its own coordinates and not the next number of a generator, so it does not depend on which
rank or worker makes it, in what order, or where a run was resumed. The hash is ours because NumPy does not
promise that the streams of its generators stay the same from one version to the next.

The hash chains the finaliser of SplitMix64 over the words.
Reference: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; the constants
are Stafford's variant 13, as in Vigna's ``splitmix64.c``.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def bits(seed: int, epoch: int, ids: ArrayLike, *, stream: str, draws: int = 1) -> NDArray[np.uint64]:
    """64 random bits for each sample and draw.

    Args:
        seed: any integer; taken modulo 2^64.
        epoch: number of the epoch.
        ids: (n,) integer sample ids.
        stream: name of the use. Draws of different streams are independent.
        draws: how many numbers each sample gets.

    Returns:
        (n, draws) uint64.
    """
    state = word(seed, epoch, np.asarray(ids).astype(np.uint64), stream=stream)
    # Array by array, because NumPy warns when a *scalar* uint64 wraps round.
    steps = np.arange(1, draws + 1, dtype=np.uint64) * np.full(draws, _GAMMA, dtype=np.uint64)
    return _mix(state[:, None] + steps)


def word(seed: int, epoch: int, ids: NDArray[np.uint64], *, stream: str) -> NDArray[np.uint64]:
    """(n,) 64 random bits for each of the ``ids`` (n,); quicker than :func:`bits`, of which it is the first half."""
    return _mix(ids ^ np.uint64(_base(int(seed), int(epoch), stream)))


def uniform(seed: int, epoch: int, ids: ArrayLike, *, stream: str, draws: int = 1) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), multiples of 2^-53. Arguments as in :func:`bits`; returns (n, draws)
    float64."""
    high = bits(seed, epoch, ids, stream=stream, draws=draws) >> np.uint64(11)
    return high.astype(np.float64) * 2.0**-53


def normal(seed: int, epoch: int, ids: ArrayLike, *, stream: str, draws: int = 1) -> NDArray[np.float64]:
    """Standard normal numbers by the Box-Muller transform. Arguments as in :func:`bits`; returns (n, draws)
    float64.

    ``log`` and ``cos`` come from the platform's mathematics library, so the last bit may differ between
    platforms.
    """
    u = uniform(seed, epoch, ids, stream=stream, draws=2 * draws)
    # 1 - u lies in (0, 1], so the logarithm is finite.
    radius = np.sqrt(-2.0 * np.log(1.0 - u[:, :draws]))
    return np.asarray(radius * np.cos(2.0 * np.pi * u[:, draws:]))


def keys(seed: int, epoch: int, n: int, *, stream: str = "permutation") -> NDArray[np.uint64]:
    """(n,) sort keys of the ids 0 to n - 1; sorting the ids by them makes epoch ``epoch``'s random permutation.

    The hash of an id is a bijection, so all keys differ and every sorting algorithm gives the same permutation.
    """
    return bits(seed, epoch, np.arange(n), stream=stream)[:, 0]


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_M1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_M2)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=256)
def _base(seed: int, epoch: int, stream: str) -> int:
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    h = 0
    for word in (seed, name, epoch):
        z = ((h ^ (word & _MASK)) + _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * _M1) & _MASK
        z = ((z ^ (z >> 27)) * _M2) & _MASK
        h = z ^ (z >> 31)
    return h
