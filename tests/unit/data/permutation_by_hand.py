"""The permutation of :mod:`disttrain.data.permutation` from its description, one position at a time, in Python's integers."""

from __future__ import annotations

import hashlib
import math
from functools import cache

WORD = 2**64


def finalise(z: int) -> int:
    """Stafford's variant 13 of MurmurHash3's finaliser, as in SplitMix64."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def key(seed: int, epoch: int, stream: str) -> int:
    """Three steps of SplitMix64's chain: over the seed, 8 bytes of the SHA-256 of the stream's name, and the epoch."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    state = 0
    for number in (seed, name, epoch):
        state = finalise(((state ^ number) + 0x9E3779B97F4A7C15) % WORD)
    return state


@cache
def sorted_by_hand(n: int, seed: int, epoch: int, stream: str) -> list[int]:
    """The ids in the order of their keys, each the first output of SplitMix64 from a state that is the hashed id."""
    secret = key(seed, epoch, stream)
    return sorted(range(n), key=lambda id: finalise((finalise(id ^ secret) + 0x9E3779B97F4A7C15) % WORD))


def permuted_by_hand(
    position: int, n: int, seed: int, epoch: int, stream: str, lane: int | None = None, size: int | None = None
) -> int:
    """Where the permutation of [0, size) in a rectangle for n sends ``position``."""
    if lane is None and n <= 8192:
        return sorted_by_hand(n, seed, epoch, stream)[position]
    a = math.ceil(math.sqrt(n))
    while a * a < n:
        a += 1
    if a % 2 == 1:
        a += 1
    b = math.ceil(n / a)
    rounds = 32 if n <= 64 else 12
    secret = key(seed, epoch, stream)
    while True:
        row, column = position // b, position % b
        for number in range(rounds):
            even = number % 2 == 0
            hashed = (number * 2**30 + (lane or 0)) * 2**28 + (column if even else row)
            distance = (finalise(hashed ^ secret) // 2**32) * (a if even else b) // 2**32
            if even:
                row = (row + distance) % a
            else:
                column = (column + distance) % b
        position = row * b + column
        if position < (n if size is None else size):
            return position
