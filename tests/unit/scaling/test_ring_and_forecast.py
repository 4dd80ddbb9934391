"""The model of the exchange finds what made its measurements, and a forecast goes on from it."""

from __future__ import annotations

import numpy as np
import pytest

from disttrain.scaling.exchange import fit_ring
from disttrain.scaling.forecast import Measured, Unknown, seconds
from disttrain.scaling.record import Exchanged, Split

ALPHA, BETA, GAMMA = 2e-4, 1e-9, 8.4


def ring(size: float, ranks: int, link: float | None) -> float:
    per_byte = BETA + (GAMMA / link if link else 0)
    return 2 * (ranks - 1) * ALPHA + 2 * (ranks - 1) / ranks * size * per_byte


def measured(noise: float = 0.0) -> list[Exchanged]:
    random = np.random.default_rng(3)
    return [
        Exchanged(ranks, 2, link, size, ring(size, ranks, link) * float(np.exp(noise * random.standard_normal())))
        for ranks in (2, 4)
        for link in (1e9, 1e8)
        for size in (1024, 65536, 4 * 2**20)
    ]


def test_a_ring_is_found_and_says_what_was_not_measured() -> None:
    found = fit_ring(measured())
    assert found is not None
    assert (found.alpha, found.beta, found.gamma) == pytest.approx((ALPHA, BETA, GAMMA), rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.seconds(2**20, 8, 3e8) == pytest.approx(ring(2**20, 8, 3e8))
    noisy = fit_ring(measured(0.05))
    assert noisy is not None
    assert noisy.seconds(2**20, 8, 3e8) == pytest.approx(ring(2**20, 8, 3e8), rel=0.1)
    *fine, last = measured(0.02)
    spoilt = fit_ring([*fine, Exchanged(last.ranks, 2, last.link_bits_per_second, last.bytes, 30 * last.seconds)])
    assert spoilt is not None
    assert spoilt.seconds(2**20, 8, 3e8) == pytest.approx(ring(2**20, 8, 3e8), rel=0.1)
    assert fit_ring([Exchanged(1, 1, None, 1024, 1e-3)]) is None


def test_no_number_of_a_ring_is_negative() -> None:
    found = fit_ring([Exchanged(2, 1, None, 2**k, 1e-3 / (k + 1)) for k in range(10, 20)])
    assert found is not None
    assert min(found.alpha, found.beta, found.gamma) >= 0


def known(splits: dict[int, Split], buckets: tuple[int, ...] = (2**20,), **changes: object) -> Measured:
    found = fit_ring([Exchanged(m.ranks, 1, None, m.bytes, ring(m.bytes, m.ranks, None)) for m in measured()])
    assert found is not None
    given = {"shares": dict.fromkeys((1, 2, 8, 64, 512), 1), "passes": {}, "ring": found, "link": None}
    return Measured(splits=splits, buckets=buckets, **(given | changes))  # type: ignore[arg-type]


ALONE = Split(0.02, 0.001, 0.0, 0.0, 0.002, 0.0005, 0.0)


def test_a_forecast_of_what_was_measured_is_what_was_measured() -> None:
    split = Split(0.02, 0.001, 0.004, 0.0006, 0.002, 0.0005, -0.0001)
    facts = known({1: ALONE, 2: split})
    assert seconds(facts, 2, Unknown()) == pytest.approx(split.step)


def test_more_ranks_wait_longer_for_the_exchange_and_for_each_other() -> None:
    exchange = ring(2**20, 2, None)
    facts = known({1: ALONE, 2: Split(0.02, 0.001, exchange, 0.001, 0.002, 0.0005, 0.0)})
    rest = 0.0235 + ring(2**20, 64, None)
    # The largest of 64 exponential numbers lies 2 (1/2 + 1/3 + ... + 1/64) times as far from their mean as that of two.
    slowest = 2 * sum(1 / k for k in range(2, 65))
    assert seconds(facts, 64, Unknown(tail=1.0)) == pytest.approx(rest + 0.001 * slowest, rel=1e-3)
    assert seconds(facts, 64, Unknown(tail=0.0)) < seconds(facts, 64, Unknown(tail=1.0))


def test_computation_hides_all_buckets_but_the_last() -> None:
    buckets = (2**20, 2**20, 2**18)
    last = ring(2**18, 2, None)
    facts = known({2: Split(1.0, 0, last, 0, 0, 0, 0)}, buckets)
    assert seconds(facts, 8, Unknown()) == pytest.approx(1.0 + ring(2**18, 8, None), rel=1e-3)


def test_a_smaller_share_takes_as_long_as_its_passes() -> None:
    facts = known(
        {1: ALONE, 2: Split(0.012, 0.0005, 0.0, 0.0, 0.002, 0.0005, 0.0)},
        shares={1: 64, 2: 32, 8: 8},
        passes={8: 0.005, 32: 0.01, 64: 0.018},
    )
    assert seconds(facts, 8, Unknown()) == pytest.approx((0.012 + 0.0005) * 0.5 + 0.0025)


def test_a_forecast_knows_less_the_further_it_goes() -> None:
    exact = fit_ring(measured(0.1))
    assert exact is not None
    facts = known({1: ALONE, 2: Split(0.02, 0.001, 0.004, 0.0006, 0.002, 0.0005, 0.0)}, ring=exact)
    random = np.random.default_rng(0)
    draws = [Unknown(random.random(), random.standard_normal()) for _ in range(200)]
    widths = []
    for ranks in (8, 64, 512):
        low, high = np.quantile([seconds(facts, ranks, draw) for draw in draws], [0.025, 0.975])
        widths.append(high / low)
    assert widths == sorted(widths)
    assert widths[0] > 1.01
