"""What the ids of one batch cost: sorted keys kept for an epoch, as before, against the permutation computed in blocks.

Every side walks through an epoch in batches of 256 from its beginning, so what it prepares is in the time. The sides take turns;
sorted keys stand in twice, and their ratio to themselves says how far the machine can be trusted.

    OMP_NUM_THREADS=1 python benchmarks/order.py
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from disttrain.data import GlobalShuffle
from disttrain.data.randomness import keys

BATCH = 256
ROUNDS = 41


class SortedKeys:
    """The order as it was: the epoch's ids sorted by their keys, and kept."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.kept = n, seed, (-1, np.empty(0, dtype=np.int64))

    def batch(self, epoch: int, start: int, stop: int) -> NDArray[np.int64]:
        if self.kept[0] != epoch:
            self.kept = (epoch, np.argsort(keys(self.seed, epoch, self.n)))
        return self.kept[1][start:stop].copy()


def microseconds(order: SortedKeys | GlobalShuffle, n: int, epoch: int) -> float:
    """Of one batch, on average over an epoch."""
    began = time.perf_counter()
    for start in range(0, n, BATCH):
        order.batch(epoch, start, min(start + BATCH, n))
    return 1e6 * (time.perf_counter() - began) / -(-n // BATCH)


def compare(n: int, rounds: int) -> str:
    sides = {"sorted": SortedKeys(n, 1), "again": SortedKeys(n, 1), "computed": GlobalShuffle(n, 1)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in range(rounds):
        for name, order in sides.items():
            times[name].append(microseconds(order, n, epoch))
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["sorted"], strict=True))
        for name in ("again", "computed")
    }
    middle = {name: statistics.median(values) for name, values in times.items()}
    return f"| {n:,} | {middle['sorted']:.1f} | {middle['computed']:.1f} | {ratios['computed']:.2f} | {ratios['again']:.2f} |"


def first_batch(make: Callable[[int, int], SortedKeys | GlobalShuffle], n: int) -> str:
    """Seconds and peak memory of a first batch in the middle of an epoch."""
    began = time.perf_counter()
    make(n, 1).batch(3, n // 2, n // 2 + BATCH)
    seconds = time.perf_counter() - began
    tracemalloc.start()
    make(n, 1).batch(4, n // 2, n // 2 + BATCH)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return f"| {n:,} | {make.__name__} | {1e3 * seconds:.2f} | {peak / 1e6:.2f} |"


def main() -> None:
    print(f"| samples | sorted keys, us a batch of {BATCH} | computed, us | computed/sorted | sorted/sorted |")
    print("|---|---|---|---|---|")
    for n, rounds in ((1437, 501), (60_000, ROUNDS), (1_281_167, 5)):
        print(compare(n, rounds), flush=True)
    print("\n| samples | first batch in mid-epoch | ms | peak MB |\n|---|---|---|---|")
    print(first_batch(SortedKeys, 10_000_000))
    for n in (10_000_000, 1_000_000_000):
        print(first_batch(GlobalShuffle, n))


if __name__ == "__main__":
    main()
