"""The permutations: that they are some, that they look like random ones, and that they are those described."""

from __future__ import annotations

from itertools import permutations
from math import factorial, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from permutation_by_hand import permuted_by_hand

from disttrain.data.permutation import permuted, rectangle

Ids = NDArray[np.int64]


def many(n: int, keys: int, epoch: int = 0) -> Ids:
    """(keys, n) so many permutations, each in a lane of its own."""
    positions, lanes = np.tile(np.arange(n), keys), np.repeat(np.arange(keys), n)
    return permuted(positions, n, seed=7, epoch=epoch, stream="test", lanes=lanes).reshape(keys, n)


def excess(counts: Ids, cells: int) -> float:
    """Chi-square of counts that should be equal, in standard deviations above its mean."""
    expected = counts.sum() / cells
    chi = float(((counts - expected) ** 2 / expected).sum())
    return (chi - (cells - 1)) / sqrt(2 * (cells - 1))


@given(st.integers(1, 20_000), st.integers(0, 2**63 - 1), st.integers(0, 9))
@settings(max_examples=60)
def test_every_position_has_its_own_place(n: int, seed: int, epoch: int) -> None:
    found = permuted(np.arange(n), n, seed=seed, epoch=epoch, stream="test")
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == list(range(n))


@given(st.integers(1, 6000), st.integers(0, 2**63 - 1), st.integers(0, 9), st.integers(0, 2**30 - 1), st.data())
@settings(max_examples=60)
def test_against_the_description(n: int, seed: int, epoch: int, lane: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(max(1, n // 2), n))
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))
    k = len(places)
    found = permuted(
        np.array(places), n, seed=seed, epoch=epoch, stream="s", lanes=np.full(k, lane), sizes=np.full(k, size)
    )
    assert found.tolist() == [permuted_by_hand(place, n, seed, epoch, "s", lane, size) for place in places]


@given(st.integers(1, 20_000), st.integers(0, 2**63 - 1), st.data())
@settings(max_examples=60)
def test_one_lane_alone_against_the_description(n: int, seed: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=5))
    found = permuted(np.array(places, dtype=np.int64), n, seed=seed, epoch=4, stream="s")
    assert found.tolist() == [permuted_by_hand(place, n, seed, 4, "s") for place in places]


@pytest.mark.parametrize("n", [10**9, 2**40 + 1, 10**13])
def test_against_the_description_where_there_are_very_many(n: int) -> None:
    places = [0, 1, n // 2, n - 1]
    found = permuted(np.array(places), n, seed=3, epoch=2, stream="s").tolist()
    assert found == [permuted_by_hand(place, n, 3, 2, "s") for place in places]


def test_lanes_of_different_sizes_are_each_a_permutation() -> None:
    sizes = np.array([7, 6, 6])
    lanes = np.repeat(np.arange(3), sizes)
    positions = np.concatenate([np.arange(size) for size in sizes])
    found = permuted(positions, 7, seed=1, epoch=1, stream="s", lanes=lanes, sizes=sizes[lanes])
    assert [sorted(found[lanes == lane].tolist()) for lane in range(3)] == [list(range(size)) for size in sizes]


@given(st.integers(1, 10**12))
def test_the_rectangle_holds_all_and_hardly_more(n: int) -> None:
    high, low = rectangle(n)
    assert high % 2 == 0
    assert n <= high * low < n + high
    assert high <= sqrt(n) + 2


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_of_few_samples_all_permutations_are_equally_likely(n: int) -> None:
    found = many(n, 100_000) @ n ** np.arange(n)
    codes = sorted(int(np.array(p) @ n ** np.arange(n)) for p in permutations(range(n)))
    counts = np.array([(found == code).sum() for code in codes]) if n < 6 else np.unique(found, return_counts=True)[1]
    assert len(counts) == factorial(n)
    assert excess(counts, factorial(n)) < 4


@pytest.mark.parametrize(("n", "keys"), [(10, 20_000), (100, 4_000), (1000, 600), (5000, 200)])
def test_every_place_is_equally_likely_at_every_position(n: int, keys: int) -> None:
    found = many(n, keys)
    bins = min(n, 50)
    cells = np.zeros((bins, bins), dtype=np.int64)
    np.add.at(cells, (np.broadcast_to(np.arange(n) * bins // n, found.shape), found * bins // n), 1)
    # Rows and columns of the table have fixed sums, so the degrees of freedom are (bins - 1)^2.
    expected = found.size / bins**2
    chi, freedom = float(((cells - expected) ** 2 / expected).sum()), (bins - 1) ** 2
    assert abs(chi - freedom) / sqrt(2 * freedom) < 4


@pytest.mark.parametrize(("n", "keys"), [(10, 20_000), (100, 4_000), (1000, 1_000), (5000, 300), (60_000, 30)])
def test_neighbours_come_to_lie_at_random_distances(n: int, keys: int) -> None:
    found = many(n, keys)
    for apart in (1, 2, rectangle(n)[1]):
        distance = (found - np.roll(found, apart, axis=1)) % n
        assert distance.min() > 0
        bins = min(n - 1, 100)
        counts = np.bincount(((distance - 1) * bins // (n - 1)).ravel(), minlength=bins)
        sizes = np.bincount(np.arange(n - 1) * bins // (n - 1), minlength=bins)
        chi = float(((counts - distance.size * sizes / (n - 1)) ** 2 / (distance.size * sizes / (n - 1))).sum())
        assert (chi - (bins - 1)) / sqrt(2 * (bins - 1)) < 4


@pytest.mark.parametrize(("n", "keys"), [(10, 4_000), (100, 2_000), (1000, 400), (5000, 200), (60_000, 30)])
def test_cycles_and_fixed_points_are_as_many_as_in_random_permutations(n: int, keys: int) -> None:
    found = many(n, keys)
    fixed = (found == np.arange(n)).sum(axis=1)
    # The number of fixed points has mean 1 and variance 1; of cycles, mean H_n and variance H_n - H_n^(2).
    assert abs(fixed.mean() - 1) < 4 / sqrt(keys)
    assert abs((fixed == 0).mean() - np.exp(-1)) < 4 * sqrt(0.24 / keys)
    h1, h2 = (1 / np.arange(1.0, n + 1)).sum(), (1 / np.arange(1.0, n + 1) ** 2).sum()
    assert abs(np.mean([cycles(p) for p in found]) - h1) < 4 * sqrt((h1 - h2) / keys)


@pytest.mark.parametrize("n", [10, 1000, 60_000])
def test_epochs_are_independent(n: int) -> None:
    """Where two epochs put the same position: the rank correlation of n pairs has mean 0 and variance 1 / (n - 1)."""
    keys = 300_000 // n
    found = [np.corrcoef(a, b)[0, 1] for a, b in zip(many(n, keys, 0), many(n, keys, 1), strict=True)]
    assert abs(np.mean(found)) < 4 / sqrt(keys * (n - 1))


def cycles(permutation: Ids) -> int:
    """The number of cycles, by following each."""
    following, left, count = permutation.tolist(), set(range(len(permutation))), 0
    while left:
        place, count = left.pop(), count + 1
        while (place := following[place]) in left:
            left.remove(place)
    return count
