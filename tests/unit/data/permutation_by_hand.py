"""The permutation of :mod:`disttrain.data.permutation` from its description, one position at a time, in Python's integers."""

from __future__ import annotations

import hashlib
import math

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


def permuted_by_hand(
    position: int, n: int, seed: int, epoch: int, stream: str, lane: int = 0, size: int | None = None
) -> int:
    """Where the permutation of [0, size) in a rectangle for n sends ``position``."""
    a = math.ceil(math.sqrt(n))
    while a * a < n:
        a += 1
    if a % 2 == 1:
        a += 1
    b = math.ceil(n / a)
    rounds = 24 if n <= 4096 else 10
    while True:
        row, column = position // b, position % b
        for number in range(rounds):
            turned = key(seed, epoch, f"{stream} round {number}")
            if number % 2 == 0:
                row = (row + (finalise((lane * 2**32 + column) ^ turned) // 2**32) * a // 2**32) % a
            else:
                column = (column + (finalise((lane * 2**32 + row) ^ turned) // 2**32) * b // 2**32) % b
        position = row * b + column
        if position < (n if size is None else size):
            return position
