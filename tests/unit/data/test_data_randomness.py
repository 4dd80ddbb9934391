"""The hash against an implementation in plain Python, frozen values, and its statistics."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disttrain.data.randomness import bits, keys, normal, uniform

MASK = 2**64 - 1


def splitmix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference(seed: int, epoch: int, id: int, stream: str, draw: int) -> int:
    h = 0
    for word in (seed % 2**64, int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little"), epoch):
        h = splitmix(((h ^ word) + 0x9E3779B97F4A7C15) & MASK)
    return splitmix((splitmix(h ^ id) + (draw + 1) * 0x9E3779B97F4A7C15) & MASK)


@given(st.integers(-5, 2**70), st.integers(0, 10**6), st.lists(st.integers(0, 2**62), max_size=5), st.text(max_size=5))
def test_the_hash_is_the_one_described(seed: int, epoch: int, ids: list[int], stream: str) -> None:
    found = bits(seed, epoch, np.array(ids, dtype=np.int64), stream=stream, draws=3)
    assert found.tolist() == [[reference(seed, epoch, id, stream, draw) for draw in range(3)] for id in ids]


def test_the_values_never_change() -> None:
    """A change here changes every run that anybody resumes."""
    found = bits(1, 2, [0, 1, 5], stream="permutation", draws=2)
    assert found.tolist() == [
        [0x9B0195711B497596, 0x7F355451BC49B5F3],
        [0xE22FB940A4CFA93D, 0x53D2B7574551145B],
        [0xC4FF5D5D55280D57, 0xB5340FAD5AE9E152],
    ]


def test_a_draw_depends_on_nothing_but_its_coordinates() -> None:
    whole = uniform(7, 3, np.arange(100), stream="s", draws=4)
    picked = np.array([99, 0, 41])
    assert np.array_equal(uniform(7, 3, picked, stream="s", draws=2), whole[picked, :2])


@pytest.mark.parametrize("other", [(8, 3, "s"), (7, 4, "s"), (7, 3, "t")])
def test_seed_epoch_and_stream_each_change_everything(other: tuple[int, int, str]) -> None:
    a = uniform(7, 3, np.arange(20000), stream="s")[:, 0]
    b = uniform(other[0], other[1], np.arange(20000), stream=other[2])[:, 0]
    assert not np.any(a == b)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(20000)


def test_seed_and_epoch_do_not_trade_places() -> None:
    assert not np.array_equal(uniform(1, 2, [0], stream="s"), uniform(2, 1, [0], stream="s"))


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_uniform_is_uniform(seed: int) -> None:
    u = uniform(seed, 0, np.arange(200000), stream="s")[:, 0]
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.histogram(u, bins=1000, range=(0, 1))[0]
    chi2 = float(((counts - 200.0) ** 2 / 200.0).sum())
    # 999 degrees of freedom: mean 999, standard deviation sqrt(2 * 999) = 45.
    assert abs(chi2 - 999) < 5 * 45


def test_neighbouring_ids_and_draws_are_independent() -> None:
    u = uniform(3, 0, np.arange(100000), stream="s", draws=2)
    for a, b in ((u[:-1, 0], u[1:, 0]), (u[:, 0], u[:, 1]), (u[:-1, 1], u[1:, 0])):
        counts = np.histogram2d(a, b, bins=20, range=((0, 1), (0, 1)))[0]
        expected = len(a) / 400
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi2 - 399) < 5 * math.sqrt(2 * 399)


@pytest.mark.parametrize("bit", [0, 1, 17, 40])
def test_one_changed_bit_of_the_id_flips_half_of_the_bits(bit: int) -> None:
    ids = np.arange(20000)
    changed = bits(5, 1, ids, stream="s")[:, 0] ^ bits(5, 1, ids ^ (1 << bit), stream="s")[:, 0]
    flips = np.unpackbits(changed.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.all(np.abs(flips - 0.5) < 5 * 0.5 / math.sqrt(20000))


def test_normal_has_the_moments_of_a_normal() -> None:
    x = normal(1, 0, np.arange(100000), stream="s", draws=2)
    assert x.shape == (100000, 2)
    n = x.size
    assert abs(x.mean()) < 5 / math.sqrt(n)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs(np.corrcoef(x[:, 0], x[:, 1])[0, 1]) < 5 / math.sqrt(100000)


def test_all_keys_of_an_epoch_differ() -> None:
    assert len(np.unique(keys(1, 0, 1 << 18))) == 1 << 18


def test_every_place_of_a_permutation_is_equally_likely() -> None:
    n, trials = 10, 4000
    places = np.array([np.argsort(keys(seed, 0, n)) for seed in range(trials)])
    counts = np.array([np.bincount(places[:, place], minlength=n) for place in range(n)])
    chi2 = float(((counts - trials / n) ** 2 / (trials / n)).sum())
    # Rows and columns are fixed: (n - 1)^2 = 81 degrees of freedom.
    assert abs(chi2 - 81) < 5 * math.sqrt(2 * 81)
