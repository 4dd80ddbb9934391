"""Schedules against torch's and against formulas, at their corners."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from disttrain import schedules

MakeScheduler = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def torchs(make: MakeScheduler, steps: int, key: str = "lr") -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][key])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_restarts_are_torchs() -> None:
    for multiplier in (1, 2):
        mine = schedules.cosine_restarts(1.0, 0.1, period=10, multiplier=multiplier)
        theirs = torchs(
            lambda o, m=multiplier: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 10, m, eta_min=0.1), 80
        )
        np.testing.assert_allclose([mine(t) for t in range(80)], theirs, rtol=1e-12)


@pytest.mark.parametrize("mode", ["triangular", "triangular2"])
def test_triangles_are_torchs(mode: str) -> None:
    mine = getattr(schedules, mode)(0.1, 0.9, half_cycle=7)
    theirs = torchs(lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.1, 0.9, 7, mode=mode, cycle_momentum=False), 60)
    np.testing.assert_allclose([mine(t) for t in range(60)], theirs, rtol=1e-9)


def test_one_cycle_is_torchs_but_for_where_a_step_lies() -> None:
    """torch puts its T values on 0 to T - 1 steps with the peak one step early; ours is a function on [0, T]."""
    steps = 101
    cycle = schedules.one_cycle(1.0, samples=steps - 1, rise=0.3, start=0.04, end=4e-6)
    for key, mine in (("lr", cycle.lr), ("momentum", cycle.momentum)):
        theirs = torchs(
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, total_steps=steps, pct_start=31 / 101), steps, key
        )
        np.testing.assert_allclose([mine(t) for t in range(steps)], theirs, rtol=1e-9)
    assert cycle.lr(30) == 1.0
    assert cycle.momentum(30) == pytest.approx(0.85)
    flat = schedules.one_cycle(1.0, samples=100, momentum_high=0.9, momentum_low=0.9)
    assert {flat.momentum(t) for t in range(100)} == {0.9}


@given(st.floats(1, 1e6), st.floats(1, 4), st.floats(0, 1e7))
def test_restarts_stay_between_their_ends(period: float, multiplier: float, s: float) -> None:
    assert -1e-9 <= schedules.cosine_restarts(1.0, 0.0, period, multiplier)(s) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("shape", "left"),
    [
        ("linear", lambda t: 1 - t),
        ("sqrt", lambda t: 1 - np.sqrt(t)),
        ("cosine", lambda t: (1 + np.cos(np.pi * t)) / 2),
        ("exponential", lambda t: (0.1**t - 0.1) / 0.9),
    ],
)
def test_wsd_is_constant_and_then_its_closed_form(shape: str, left: Callable[[float], float]) -> None:
    found = schedules.wsd(3.0, 0.3, samples=1000, decay=250, shape=shape)
    for s in (-5.0, 0.0, 749.0, 750.0, 751.0, 812.5, 999.0, 1000.0, 2000.0):
        t = min(max((s - 750) / 250, 0.0), 1.0)
        assert found(s) == pytest.approx(0.3 + 2.7 * left(t), rel=1e-12)
    with pytest.raises(ValueError, match="longer than samples"):
        schedules.wsd(1.0, 0.0, samples=10, decay=11, shape=shape)


def test_corners() -> None:
    for piece in (
        schedules.linear(0.0, 1.0, 100),
        schedules.cosine(0.0, 1.0, 100),
        schedules.polynomial(0.0, 1.0, 100, 2.0),
        schedules.polynomial(0.0, 1.0, 100, 0.5),
        schedules.exponential(1e-3, 1.0, 100),
    ):
        assert piece(-1) == piece(0)
        assert piece(0) < piece(1) < piece(99) < piece(100) == piece(101) == 1.0
    warm = schedules.join([schedules.linear(0.1, 0.8, 50), schedules.polynomial(0.8, 0.0, 50, 2.0)], [50])
    assert [round(warm(s), 6) for s in (0, 49, 50, 99, 100)] == [0.1, 0.786, 0.8, 0.00032, 0.0]


def test_malladis_rule() -> None:
    scaled = schedules.scale_adam(16, lr=1e-4, betas=(0.99, 0.999), eps=1e-8)
    assert scaled.lr == pytest.approx(4e-4)
    assert scaled.betas == pytest.approx((0.84, 0.984))
    assert scaled.eps == pytest.approx(2.5e-9)
    with pytest.raises(ValueError, match=r"beta 0.9 the rule works below 10 times"):
        schedules.scale_adam(10.1, lr=1e-4, betas=(0.9, 0.999), eps=1e-8)


def test_malladis_rule_keeps_the_memory_of_the_moments_in_samples() -> None:
    """k updates of the small batch and one of the large one forget as much, to first order."""
    scaled = schedules.scale_adam(8, lr=1e-4, betas=(0.999, 0.9999), eps=1e-8)
    for small, large in zip((0.999, 0.9999), scaled.betas, strict=True):
        assert small**8 == pytest.approx(large, rel=1e-4)


def test_adascale_gain_between_its_limits() -> None:
    assert schedules.adascale_gain(1.0, 0.0, 16) == pytest.approx(16)
    assert schedules.adascale_gain(0.0, 1.0, 16) == pytest.approx(1)
    assert schedules.adascale_gain(-1.0, -1.0, 16) == 1.0
    assert schedules.adascale_gain(3.0, 2.0, 1.0) == 1.0
    assert schedules.adascale_gain(3.0, 1.0, 4) == pytest.approx((3 + 1) / (3 / 4 + 1))
    with pytest.raises(ValueError, match="at least 1"):
        schedules.adascale_gain(1.0, 1.0, 0.5)


@given(
    st.integers(8, 512),
    st.integers(1, 64),
    st.sampled_from(["cosine", "linear", "exponential", "multi_step"]),
    st.integers(0, 10000),
    st.sampled_from([1.0, 0.5]),
)
def test_growth_keeps_rate_over_a_power_of_the_batch(batch: int, factor: int, kind: str, s: int, power: float) -> None:
    """Smith et al. 2018: rate / batch is that of the decay, exactly; Seesaw: rate / sqrt(batch)."""
    decay = {
        "cosine": schedules.cosine(0.4, 0.0, 10000),
        "linear": schedules.linear(0.4, 0.04, 10000),
        "exponential": schedules.exponential(0.4, 0.004, 10000),
        "multi_step": schedules.multi_step(0.4, [3000, 6000, 9000], 0.2),
    }[kind]
    size, rate = schedules.grow_instead_of_decay(decay, batch, batch * factor, power)
    assert batch <= size(s) <= batch * factor
    assert size(s) <= size(s + 500)
    assert rate(s) / size(s) ** power == pytest.approx(decay(s) / batch**power, rel=1e-12, abs=1e-15)
    # Below the cap, and but for rounding: constant under the first law, the root of the decay under the second.
    if size(s) < batch * factor:
        expected = 0.4 * (decay(s) / 0.4) ** (1 - power)
        assert expected * (1 - 2 / batch) <= rate(s) <= expected * (1 + 1e-6)


def test_seesaw_halves() -> None:
    """Meterez et al. 2025, abstract: where the decay halves the rate, times 1 / sqrt(2), and twice the batch."""
    halving = schedules.multi_step(0.8, [100, 200, 300, 400], gamma=0.5)
    size, rate = schedules.grow_instead_of_decay(halving, 64, 512, power=0.5)
    assert [size(s) for s in (0, 100, 200, 300)] == [64, 128, 256, 512]
    assert [rate(s) for s in (0, 100, 200, 300)] == pytest.approx([0.8 * 2 ** (-k / 2) for k in range(4)], rel=1e-15)
    assert size(400) == 512  # the cap: from here on the rate falls as the decay does
    assert rate(400) == pytest.approx(rate(300) / 2, rel=1e-15)


def test_batch_schedules_at_their_corners() -> None:
    stages = schedules.staged_batch([(0, 32), (100, 64), (500, 256)])
    assert [stages(s) for s in (0, 99, 100, 499, 500, 10**9)] == [32, 32, 64, 64, 256, 256]
    ramp = schedules.linear_batch(32, 320, samples=1000, multiple_of=32)
    assert [ramp(s) for s in (0, 111, 112, 500, 999, 1000)] == [32, 32, 64, 160, 288, 320]
    for bad in ([], [(5, 32)], [(0, 32), (0, 64)]):
        with pytest.raises(ValueError, match="begin at 0"):
            schedules.staged_batch(bad)
    with pytest.raises(ValueError, match="below batch"):
        schedules.grow_instead_of_decay(schedules.constant(0.1), 64, 32)


def test_wrong_arguments() -> None:
    for make in (
        lambda: schedules.cosine_restarts(1, 0, 0),
        lambda: schedules.cosine_restarts(1, 0, 10, 0.5),
        lambda: schedules.triangular(0, 1, 0),
        lambda: schedules.exponential(0.0, 1.0, 10),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
    assert math.isfinite(schedules.linear(0.0, 1.0, 0)(0))
