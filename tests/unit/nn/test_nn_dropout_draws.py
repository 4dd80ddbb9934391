"""The draws of dropout: what they are, to the bit, and how random they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from disttrain.nn.dropout.draws import LANES, keep, lanes, sample_words, threshold, word

WORD = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """SplitMix64's finaliser on Python's whole numbers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def chained(*parts: int) -> int:
    h = 0
    for part in parts:
        h = mix(((h ^ (part & WORD)) + GAMMA) & WORD)
    return h


def lane_by_hand(seed: int, update: int, place: int, layer: int, *coordinates: int) -> int:
    """The 16 bits of one element, by the definition."""
    z = mix((chained(seed, update) + (place + 1) * GAMMA) & WORD)
    z = mix((z + layer) & WORD)
    *inner, last = coordinates
    for coordinate in (*inner, last // 4):
        z = mix((z + (coordinate + 1) * GAMMA) & WORD)
    lane = z >> (16 * (last % 4)) & 0xFFFF
    return lane - LANES if lane >= LANES // 2 else lane


@pytest.mark.parametrize("shape", [(3, 10), (2, 5, 7), (2, 3, 4, 5), (4, 1), (3,)])
def test_they_are_those_of_the_definition(shape: tuple[int, ...]) -> None:
    seed, update, first, layer, kept = 2**63 - 1, 41, 5, word(77, 2), 50000
    found = keep(sample_words(seed, update, first, shape[0], "cpu"), layer, shape, kept)
    for index in np.ndindex(shape):
        place, *coordinates = index
        lane = lane_by_hand(seed, update, first + place, layer, *(coordinates or [0]))
        assert bool(found[index]) == (lane < kept - LANES // 2), index


def test_longer_samples_keep_the_draws_of_shorter_ones() -> None:
    """So that padding to another length does not matter, in attention's weights neither."""
    words = sample_words(1, 2, 3, 2, "cpu")
    long, short = keep(words, 5, (2, 3, 9, 9), 40000), keep(words, 5, (2, 3, 6, 6), 40000)
    assert torch.equal(long[:, :, :6, :6], short)


def test_probabilities_are_the_nearest_lane() -> None:
    assert [threshold(p) for p in (0.0, 0.5, 1.0, 1e-9)] == [LANES, LANES // 2, 0, LANES]
    assert threshold(0.1) == round(0.9 * LANES)


def test_all_and_nothing() -> None:
    words = sample_words(1, 2, 3, 2, "cpu")
    assert bool(keep(words, 5, (2, 9), LANES).all())
    assert not bool(keep(words, 5, (2, 9), 0).any())


Mask = Callable[[int, int, int, int, int], NDArray[np.bool_]]
"""(seed, update, layer, samples, positions) to a mask of half the elements."""


def ours(seed: int, update: int, layer: int, samples: int, positions: int) -> NDArray[np.bool_]:
    return keep(sample_words(seed, update, 0, samples, "cpu"), word(layer, 0), (samples, positions), LANES // 2).numpy()


def xor_of_tables(seed: int, update: int, layer: int, samples: int, positions: int) -> NDArray[np.bool_]:
    """What looks as random one by one and is not together."""
    generator = np.random.default_rng([seed, update])
    rows, columns = (generator.integers(0, 2, size, dtype=np.int64) for size in (samples, positions))
    return (rows[:, None] ^ columns[None, :] ^ (layer & 1)).astype(bool)


def no_mixing_of_layers(seed: int, update: int, layer: int, samples: int, positions: int) -> NDArray[np.bool_]:
    """A layer that only moves the counter: neighbours see each other's draws."""
    long = ours(seed, update, 0, samples, positions + 4 * 8)
    return long[:, 4 * layer : 4 * layer + positions]


def deviations(mask: Mask, samples: int = 256, positions: int = 1024) -> dict[str, float]:
    """How many standard deviations each statistic is from that of fair coins."""
    base = mask(1, 1, 0, samples, positions) * 2.0 - 1.0
    others = {
        "next position": (base[:, 1:], base[:, :-1]),
        "four positions on": (base[:, 4:], base[:, :-4]),
        "next sample": (base[1:], base[:-1]),
        "next layer": (base[:, :], mask(1, 1, 1, samples, positions) * 2.0 - 1.0),
        "next layer, four positions on": (base[:, 4:], mask(1, 1, 1, samples, positions)[:, :-4] * 2.0 - 1.0),
        "next update": (base[:, :], mask(1, 2, 0, samples, positions) * 2.0 - 1.0),
        "next seed": (base[:, :], mask(2, 1, 0, samples, positions) * 2.0 - 1.0),
    }
    found = {name: abs(float((a * b).sum())) / math.sqrt(a.size) for name, (a, b) in others.items()}
    found["mean"] = abs(float(base.sum())) / math.sqrt(base.size)
    # Variance of the sums over rows and over columns: 1 each a coin; its own deviation is sqrt(2 / count).
    for name, axis in (("sums over positions", 1), ("sums over samples", 0)):
        sums = base.sum(axis=axis)
        found[name] = abs(float((sums**2).mean()) / base.shape[axis] - 1.0) / math.sqrt(2.0 / len(sums))
    # Rectangles: the product of four corners is fair unless the mask is a combination of rows and columns.
    corners = base[1:, 1:] * base[:-1, 1:] * base[1:, :-1] * base[:-1, :-1]
    found["rectangles"] = abs(float(corners.sum())) / math.sqrt(corners.size)
    return found


def test_masks_are_like_fair_coins() -> None:
    found = deviations(ours)
    assert max(found.values()) < 4.5, found


@pytest.mark.parametrize("broken", [xor_of_tables, no_mixing_of_layers])
def test_broken_masks_are_found(broken: Mask) -> None:
    assert max(deviations(broken).values()) > 20.0


def test_lanes_are_uniform() -> None:
    """Chi-square over the 65,536 values of a lane, for each of the four lanes of a word."""
    words = sample_words(3, 4, 0, 512, "cpu")
    found = lanes(words, word(9, 0), (512, 4096))
    for lane in range(4):
        counts = np.bincount(found[:, lane::4].reshape(-1).numpy().astype(np.int64) + LANES // 2, minlength=LANES)
        expected = counts.sum() / LANES
        chi = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi - (LANES - 1)) < 5.0 * math.sqrt(2.0 * LANES), (lane, chi)
