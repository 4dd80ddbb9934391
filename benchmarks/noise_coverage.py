"""How often the noise scale's 95 % intervals hold the exact value: frozen weights of real networks, thousands of repeats.

    OMP_NUM_THREADS=1 python benchmarks/noise_coverage.py [--repeats 400] [--seed 1] [--to benchmarks/noise_coverage.json]
    python benchmarks/noise_coverage.py --table     # from the JSON

A network is trained on N samples and its weights are kept at three stages: noise scale half of the batch, ten times the
batch, and beyond N. There all per-sample gradients are taken in float64, and with them the exact |G_N|^2 and tr(Sigma). What
an update would read follows from their inner products, so a repeat costs no forward pass; ``tests/unit/grads`` compares
with gradients of real micro-batches. Repeats feed ``disttrain.grads.NoiseScale`` readings of disttrain's own orders, one by one,
half of them from the beginning of an epoch and half from the middle of one, and ask it after 100, 300 and 1,000 readings.

One process; goes on where it was killed: cells in the JSON are skipped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.frozen import BATCH, STAGES, Array, Frozen, stages
from disttrain.data.order import GlobalShuffle, Order, WithReplacement
from disttrain.data.shares import share
from disttrain.grads import NoiseScale

READINGS = (100, 300, 1000)


def shares_of(size: int, ranks: int) -> list[int]:
    return [hi - lo for lo, hi in (share(size, rank, ranks) for rank in range(ranks)) if hi > lo]


SLICES: dict[str, Callable[[int], list[int]]] = {
    "2 ranks": lambda size: shares_of(size, 2),
    "slices of 24": lambda size: [min(24, size - i) for i in range(0, size, 24)],
    "8 ranks": lambda size: shares_of(size, 8),
}
"""Sizes of the slices of a batch: of ranks, and of accumulation, where the last one is short."""
CONDITIONS = {"shuffled, every 1": (True, 1), "replacement, every 1": (False, 1), "shuffled, every 10": (True, 10)}
"""Independent draws are as independent ten updates apart."""


def batches(order: Order, first: int, count: int, every: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Epoch and ids of every ``every``-th global batch from number ``first`` on, ``count`` of them."""
    n = order.num_samples
    per_epoch = -(-n // BATCH)
    for i in range(count):
        epoch, number = divmod(first + (i + 1) * every - 1, per_epoch)
        yield epoch, order.batch(epoch, number * BATCH, min((number + 1) * BATCH, n))


def block_sums(products: Array, ids: NDArray[np.int64], sizes: list[int]) -> Array:
    """Of r batches (r, B), cut alike into k slices: sums (r, k, k) of the inner products between and within slices."""
    slices = np.repeat(np.arange(len(sizes)), sizes)
    i, j = np.triu_indices(ids.shape[1])
    rank = slices[i] * len(sizes) + slices[j]
    by_pair = np.argsort(rank, kind="stable")
    i, j, rank = i[by_pair], j[by_pair], rank[by_pair]
    starts = np.flatnonzero(np.diff(rank, prepend=-1))
    twice = np.where((slices[i] == slices[j]) & (i != j), 2.0, 1.0)
    found = np.take(products.ravel(), ids[:, i] * len(products) + ids[:, j]) * twice
    sums = np.zeros((len(ids), len(sizes), len(sizes)))
    first, second = np.divmod(rank[starts], len(sizes))
    sums[:, first, second] = sums[:, second, first] = np.add.reduceat(found, starts, axis=1)
    return sums


def squares(sums: Array, eighths: list[int], sizes: list[int]) -> tuple[Array, Array]:
    """From the sums of ``eighths``: squared norms (r,) of the gradients of slices of ``sizes``, their average weighed with the
    squares of the sizes, and that of the whole."""
    ends = np.cumsum(eighths)
    starts = np.searchsorted(ends, np.cumsum([0, *sizes[:-1]]), side="right")
    merged = np.add.reduceat(np.add.reduceat(sums, starts, axis=2), starts, axis=1)
    own = np.trace(merged, axis1=1, axis2=2) / np.square(sizes).sum()
    return own, sums.sum((1, 2)) / sum(sizes) ** 2


def common(size: int) -> list[int]:
    """The finest cut of a batch that all of :data:`SLICES` are unions of."""
    borders = sorted({0, *(int(c) for cut in SLICES.values() for c in np.cumsum(cut(size)))})
    return [b - a for a, b in pairwise(borders)]


def readings(frozen: Frozen, order: Order, first: int, every: int, count: int) -> dict[str, list[dict[str, Any]]]:
    """Arguments of ``NoiseScale.update`` by cut, one reading after the other; batches of a single slice give none."""
    known: list[tuple[int, int, int]] = []
    by_size: dict[int, list[NDArray[np.int64]]] = {}
    for epoch, ids in batches(order, first, count + count // 5, every):
        group = by_size.setdefault(len(ids), [])
        known.append((epoch, len(ids), len(group)))
        group.append(ids)
    sums = {size: block_sums(frozen.gram, np.stack(group), common(size)) for size, group in by_size.items()}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cut in SLICES.items():
        both = {size: squares(s, common(size), cut(size)) for size, s in sums.items() if len(cut(size)) > 1}
        found[name] = [
            {
                "small_square": float(both[size][0][at]),
                "big_square": float(both[size][1][at]),
                "small_batch": sum(part * part for part in cut(size)) / size,
                "big_batch": float(size),
                "population": order.num_samples if isinstance(order, GlobalShuffle) else None,
                "epoch": epoch if isinstance(order, GlobalShuffle) else None,
            }
            for epoch, size, at in known
            if size in both
        ][:count]
    return found


def sequences(
    frozen: Frozen, shuffled: bool, every: int, repeats: int, seed: int, counts: Sequence[int] = READINGS
) -> dict[str, dict[str, Any]]:
    """What ``repeats`` runs say after ``counts`` of readings, by cut and that number."""
    n = len(frozen.gram)
    truth = frozen.trace * (1.0 if shuffled else (n - 1) / n) / frozen.square
    said: dict[str, list[tuple[float, float, int]]] = {f"{cut}, {count}": [] for cut in SLICES for count in counts}
    for repeat in range(repeats):
        order = (GlobalShuffle if shuffled else WithReplacement)(n, 100_000 * seed + repeat)
        first = (repeat * 7) % -(-n // BATCH) if repeat % 2 else 0
        for cut, all_of_it in readings(frozen, order, first, every, counts[-1]).items():
            noise = NoiseScale()
            for arguments in all_of_it:
                noise.update(**arguments)
                if noise.count in counts:
                    found = noise.estimate()
                    said[f"{cut}, {noise.count}"].append((found.low, found.high, found.readings))
    return {cell: counted(found, truth) for cell, found in said.items()}


def counted(found: list[tuple[float, float, int]], truth: float) -> dict[str, Any]:
    two = [(low, high) for low, high, _ in found if high < math.inf]
    one = [low for low, high, _ in found if high == math.inf]
    width = float(np.median([high / low if low else math.inf for low, high, _ in found]))
    return {
        "reports": len(found),
        "held": sum(low <= truth <= high for low, high, _ in found),
        "above": sum(low > truth for low, _, _ in found),
        "below": sum(high < truth for _, high, _ in found),
        "one_sided": len(one),
        "one_sided_held": sum(low <= truth for low in one),
        "two_sided_held": sum(low <= truth <= high for low, high in two),
        "median_width": None if width == math.inf else width,
        "median_low_over_truth": float(np.median([low for low, _, _ in found])) / truth,
        "median_readings": float(np.median([readings for *_, readings in found])),
    }


def measure(path: Path, repeats: int, seed: int, names: list[str]) -> None:
    record: dict[str, Any] = (
        json.loads(path.read_text()) if path.exists() else {"batch": BATCH, "stages": {}, "cells": {}}
    )
    for name in names:
        kept = dict(stages(name))
        for stage, frozen in kept.items():
            about = {"N": len(frozen.gram), "square": frozen.square, "trace": frozen.trace}
            record["stages"][f"{name}, {stage}"] = {**about, "noise_scale": frozen.trace / frozen.square}
        for condition, (shuffled, every) in CONDITIONS.items():
            for stage, frozen in kept.items():
                key = f"{name}, {stage}, {condition}"
                if record["cells"].get(key, {}).get("seed") == seed:
                    continue
                begin = time.perf_counter()
                found = sequences(frozen, shuffled, every, repeats, seed)
                record["cells"][key] = {"seed": seed, "after": found}
                path.write_text(json.dumps(record, indent=1) + "\n")
                for cell, f in found.items():
                    held, one = f["held"] / repeats, f["one_sided"] / repeats
                    print(f"{key}, {cell}: held {held:.3f} one-sided {one:.2f} width {f['median_width']}", flush=True)
                print(f"{time.perf_counter() - begin:.0f} s", flush=True)


def pooled(cells: list[dict[str, Any]]) -> str:
    total, held, one, one_held = (sum(c[k] for c in cells) for k in ("reports", "held", "one_sided", "one_sided_held"))
    return f"{100 * held / total:.1f} | {min(100 * c['held'] / c['reports'] for c in cells):.1f} | " + (
        f"{one:,} | {100 * one_held / one:.1f}" if one else "0 | "
    )


def table(path: Path) -> None:
    """Pooled rows; every cell is in the JSON."""
    record = json.loads(path.read_text())
    cells = {f"{key}, {count}": c for key, cell in record["cells"].items() for count, c in cell["after"].items()}
    print("| pooled over | held, % | worst cell, % | one-sided | of these held, % |\n|---|---|---|---|---|")
    for what in (*STAGES, "shuffled", "replacement", "every 1", "every 10", *SLICES, *(str(c) for c in READINGS), ""):
        chosen = [c for key, c in cells.items() if not what or what in key.split(", ")]
        if chosen:
            print(f"| {what or 'everything'} | {pooled(chosen)} |")
    print(
        "\n| network, stage | noise scale | readings | median high / low | median low / exact | median readings remembered |"
    )
    print("|---|---|---|---|---|---|")
    for key, about in record["stages"].items():
        for count in READINGS:
            chosen = [c for k, c in cells.items() if k.startswith(key) and k.endswith(f", {count}")]
            if not chosen:
                continue
            widths = [c["median_width"] or math.inf for c in chosen]
            lows = [c["median_low_over_truth"] for c in chosen]
            kept = [c["median_readings"] for c in chosen]
            print(
                f"| {key} | {about['noise_scale']:,.0f} | {count:,} | {min(widths):.2f} to {max(widths):.2f} | "
                f"{min(lows):.2f} to {max(lows):.2f} | {min(kept):.0f} to {max(kept):.0f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", nargs="+", default=["digits convnet", "fashion mlp"])
    parser.add_argument("--to", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if not given.table:
        measure(given.to, given.repeats, given.seed, given.networks)
    table(given.to)


if __name__ == "__main__":
    main()
