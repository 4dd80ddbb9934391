"""Orders against plain Python, and shares and micro-batches by their properties."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from permutation_by_hand import permuted_by_hand

from disttrain.data.order import BLOCK, GlobalShuffle, Order, Partition, Sequential, WithReplacement
from disttrain.data.selection import Selection
from disttrain.data.shares import ghost_borders, micro_batches, piece_sizes, pieces, share, slice_borders
from disttrain.errors import InputError

SIZES = st.integers(1, 60)


def make(kind: str, n: int, seed: int, parts: int) -> Order:
    return {
        "global": lambda: GlobalShuffle(n, seed),
        "partition": lambda: Partition(n, seed, parts),
        "replacement": lambda: WithReplacement(n, seed),
        "sequential": lambda: Sequential(n),
    }[kind]()


@given(st.sampled_from(["global", "partition", "sequential"]), SIZES, st.integers(0, 9), st.integers(1, 9))
def test_an_epoch_holds_each_sample_once(kind: str, n: int, seed: int, parts: int) -> None:
    for epoch in range(3):
        ids = make(kind, n, seed, parts).batch(epoch, 0, n)
        assert ids.dtype == np.int64
        assert sorted(ids.tolist()) == list(range(n))


@given(st.sampled_from(["global", "replacement", "sequential"]), SIZES, st.integers(0, 9), st.data())
def test_a_batch_is_a_slice_of_the_epoch(kind: str, n: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    order = make(kind, n, seed, 1)
    order.batch(4, 0, n)  # another epoch first: nothing of it may stick
    assert order.batch(2, start, stop).tolist() == make(kind, n, seed, 1).batch(2, 0, n)[start:stop].tolist()


@pytest.mark.parametrize("n", [1, 50, 9000])
def test_global_shuffle_is_the_permutation_of_its_seed_and_epoch(n: int) -> None:
    wanted = [permuted_by_hand(i, n, 3, 5, "permutation") for i in range(n)]
    assert GlobalShuffle(n, 3).batch(5, 0, n).tolist() == wanted


@pytest.mark.parametrize("kind", ["global", "partition", "replacement"])
def test_batches_across_the_borders_of_blocks_are_those_of_the_epoch(kind: str) -> None:
    n = 3 * BLOCK + 17
    whole = make(kind, n, 1, 1).batch(2, 0, n).tolist()
    order = make(kind, n, 1, 1)
    for start, stop in [(BLOCK - 3, BLOCK + 3), (0, 5), (2 * BLOCK - 1, n), (BLOCK, 2 * BLOCK), (7, 3 * BLOCK), (9, 9)]:
        assert order.batch(2, start, stop).tolist() == whole[start:stop]


@pytest.mark.parametrize("kind", [GlobalShuffle, WithReplacement, lambda n, seed, of: Partition(n, seed, 3, of)])
def test_an_order_of_chosen_samples_visits_those_alone(kind: Callable[[int, int, Selection], Order]) -> None:
    chosen = Selection(100, 30, 75)
    order = kind(45, 2, chosen)
    ids = chosen.ids(np.arange(45)).tolist()
    visited = order.batch(1, 0, 45).tolist()
    assert (order.num_samples, order.dataset_samples) == (45, 100)
    assert set(visited) <= set(ids)
    assert isinstance(order, WithReplacement) or sorted(visited) == sorted(ids)


def test_an_order_over_another_number_than_is_chosen_is_refused() -> None:
    with pytest.raises(InputError, match="the order is over 44 samples, and 45 are chosen"):
        GlobalShuffle(44, 0, Selection(100, 30, 75))


def test_a_start_in_the_middle_of_a_thousand_million_samples_needs_no_memory() -> None:
    n = 10**9
    for order in (
        GlobalShuffle(n, 1),
        Partition(n, 1, 8),
        WithReplacement(n, 1),
        GlobalShuffle(n, 1, Selection(2 * n, 0, n)),
    ):
        tracemalloc.start()
        ids = order.batch(3, n // 2, n // 2 + 256)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(set(ids.tolist())) == 256
        assert peak < 5e6


def test_epochs_and_seeds_have_different_permutations() -> None:
    seen = {tuple(GlobalShuffle(50, seed).batch(epoch, 0, 50)) for seed in range(5) for epoch in range(5)}
    assert len(seen) == 25


def test_the_order_cannot_be_changed_through_a_batch() -> None:
    order = GlobalShuffle(20, 1)
    before = order.batch(0, 0, 20).tolist()
    order.batch(0, 0, 20)[:] = 0
    assert order.batch(0, 0, 20).tolist() == before


def partition_by_hand(n: int, seed: int, parts: int, epoch: int) -> list[list[int]]:
    """The parts of an epoch, from the description of the class."""
    everything = [permuted_by_hand(i, n, seed, 0, "partition") for i in range(n)]
    cut = []
    for part in range(parts):
        size = n // parts + (1 if part < n % parts else 0)
        cut.append(everything[:size])
        everything = everything[size:]
    if epoch:
        longest = -(-n // parts)
        cut = [
            [ids[permuted_by_hand(i, longest, seed, epoch, "within part", lane, len(ids))] for i in range(len(ids))]
            for lane, ids in enumerate(cut)
        ]
    return cut


@given(SIZES, st.integers(0, 9), st.integers(1, 9), st.integers(0, 2), st.data())
def test_partition_is_what_it_says(n: int, seed: int, parts: int, epoch: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    cut = partition_by_hand(n, seed, parts, epoch)
    wanted = sorted(((j % parts, j // parts) for j in range(start, stop)), key=lambda place: place[0])
    found = Partition(n, seed, parts).batch(epoch, start, stop)
    assert found.tolist() == [cut[part][element] for part, element in wanted]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_each_worker_reads_its_own_part(world: int, each: int, batches: int, seed: int) -> None:
    n, size = world * each * batches, world * each
    order = Partition(n, seed, world)
    for epoch in range(3):
        read: list[list[int]] = [[] for _ in range(world)]
        for start in range(0, n, size):
            ids = order.batch(epoch, start, start + size)
            for rank in range(world):
                lo, hi = share(size, rank, world)
                read[rank] += ids[lo:hi].tolist()
        assert read == partition_by_hand(n, seed, world, epoch)


def test_replacement_draws_from_the_whole_set_evenly() -> None:
    n = 50000
    ids = WithReplacement(n, 2).batch(0, 0, n)
    assert ids.min() >= 0
    assert ids.max() < n
    # A draw with replacement misses 1/e of the samples; the standard deviation of the share is below 0.15 %.
    assert abs(len(np.unique(ids)) / n - (1 - np.exp(-1))) < 0.01
    counts = np.histogram(ids, bins=100, range=(0, n))[0]
    assert abs(float(((counts - 500.0) ** 2 / 500.0).sum()) - 99) < 5 * np.sqrt(2 * 99)


def test_replacement_never_draws_past_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("disttrain.data.order.uniform", lambda *a, **k: np.array([[1 - 2.0**-53]]))
    for n in (1, 3, 1000, 1281167, 2**40 + 1, 2**52 - 1):
        assert WithReplacement(n, 0).batch(0, 0, 1).tolist() == [n - 1]


def test_orders_survive_pickling() -> None:
    order = Partition(20, 1, 3)
    assert pickle.loads(pickle.dumps(order)).batch(1, 3, 9).tolist() == order.batch(1, 3, 9).tolist()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 2), (0, 11)])
@pytest.mark.parametrize("kind", ["global", "partition", "replacement", "sequential"])
def test_positions_outside_the_epoch_are_refused(kind: str, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="epoch of 10 samples"):
        make(kind, 10, 0, 2).batch(0, start, stop)


def test_row_47_an_order_over_no_samples_is_refused() -> None:
    with pytest.raises(InputError, match="num_samples is 0; it must be at least 1"):
        GlobalShuffle(0, 1)
    with pytest.raises(InputError, match="parts is 0; it must be at least 1"):
        Partition(3, 1, 0)


@given(st.integers(0, 200), st.integers(1, 20))
def test_shares_cover_everything_and_differ_by_at_most_one(count: int, size: int) -> None:
    ranges = [share(count, rank, size) for rank in range(size)]
    assert [i for lo, hi in ranges for i in range(lo, hi)] == list(range(count))
    lengths = [hi - lo for lo, hi in ranges]
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(0, 50), st.integers(0, 200), st.integers(1, 30))
def test_micro_batches_are_few_and_even(lo: int, count: int, most: int) -> None:
    pieces = micro_batches(lo, lo + count, most)
    assert [i for a, b in pieces for i in range(a, b)] == list(range(lo, lo + count))
    lengths = [b - a for a, b in pieces]
    assert len(pieces) == -(-count // most)
    assert all(1 <= length <= most for length in lengths)
    assert not lengths or max(lengths) - min(lengths) <= 1


@given(st.integers(1, 300), st.integers(2, 16), st.integers(1, 9), st.integers(16, 60))
def test_cuts_fall_between_ghosts_whatever_the_ranks_and_micro_batches(
    count: int, ghost: int, world: int, most: int
) -> None:
    borders = set(range(0, max(count // ghost, 1) * ghost, ghost)) | {count}
    covered = []
    for rank in range(world):
        lo, hi = share(count, rank, world, ghost)
        assert lo in borders
        assert hi in borders
        pieces = micro_batches(lo, hi, most, min(ghost, hi - lo) or 1)
        covered += [i for a, b in pieces for i in range(a, b)]
        for a, b in pieces:
            assert a in borders
            assert b in borders
            assert b - a <= most or b == count  # the remainder stays with the last ghost
    assert covered == list(range(count))


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 5), st.integers(1, 9))
def test_slices_are_the_same_on_any_ranks_and_made_of_whole_ghosts(
    count: int, ghost: int, ghosts: int, world: int
) -> None:
    size = ghost * ghosts
    borders = slice_borders(count, size, ghost)
    assert set(borders) <= set(ghost_borders(count, ghost))
    slices = list(pairwise(borders))
    assert all(b - a == size for a, b in slices[:-1])
    assert slices[-1][1] - slices[-1][0] < size + ghost
    found = [pieces(count, rank, world, 1, ghost, size) for rank in range(world)]
    assert [piece for mine in found for piece in mine] == slices
    for rank, mine in enumerate(found):
        lo, hi = share(count, rank, world, ghost, size)
        assert sum(b - a for a, b in mine) == hi - lo
        assert all(lo <= a < b <= hi for a, b in mine)
    assert piece_sizes(count, world, None, ghost, size) == [b - a for a, b in slices]


def test_micro_batches_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="per_rank_max is 3; it must be at least the ghost size 4"):
        micro_batches(0, 8, 3, 4)
    with pytest.raises(InputError, match="per_rank_max is 0"):
        micro_batches(0, 3, 0)
