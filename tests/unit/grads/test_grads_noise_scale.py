"""The noise scale of gradients whose noise is known."""

from __future__ import annotations

import numpy as np
import pytest

from disttrain.grads import NoiseScale, cost_of, efficiency, noise_scale_moments


def measured(steps: int, memory: float) -> tuple[NoiseScale, float, float]:
    """Means over 4 parts of 16 samples of gradients ~ N(mu, Sigma)."""
    generator = np.random.default_rng(3)
    mu, spread = generator.normal(size=20) * 0.4, np.linspace(0.5, 4.0, 20)
    estimate = NoiseScale(memory=memory)
    for _ in range(steps):
        parts = mu + generator.normal(size=(4, 20)) * spread / np.sqrt(16)
        small, big = (parts**2).sum(1).mean(), (parts.mean(0) ** 2).sum()
        estimate.update(float(small), float(big), small_batch=16, big_batch=64)
    return estimate, float((mu**2).sum()), float((spread**2).sum())


def test_it_recovers_what_was_put_in() -> None:
    estimate, square, trace = measured(4000, memory=4000)
    assert estimate.square_norm == pytest.approx(square, rel=0.05)
    assert estimate.trace == pytest.approx(trace, rel=0.05)
    assert estimate.value == pytest.approx(trace / square, rel=0.05)


def test_the_form_for_equal_parts_is_the_same() -> None:
    """AdaScale's (Johnson et al. 2020, section 3.3), for four parts: ``(L - T) 4 / 3`` and ``T`` less a fourth of it."""
    square, trace = noise_scale_moments(5.0, 2.0, small_batch=16, big_batch=64)
    assert trace / 16 == pytest.approx((5.0 - 2.0) * 4 / 3)
    assert square == pytest.approx(2.0 - trace / 64)


def test_one_measurement_stands_by_itself_and_negative_ones_say_nothing() -> None:
    estimate = NoiseScale(memory=50)
    assert estimate.value is None
    estimate.update(5.0, 2.0, small_batch=16, big_batch=64)
    assert (estimate.square_norm, estimate.trace) == pytest.approx(noise_scale_moments(5.0, 2.0, 16, 64))
    negative = NoiseScale()
    negative.update(5.0, 0.1, small_batch=16, big_batch=64)
    assert negative.square_norm < 0
    assert negative.value is None


def test_state_round_trip() -> None:
    estimate, _, _ = measured(10, memory=5)
    other = NoiseScale(memory=5)
    other.load_state_dict(estimate.state_dict())
    for e in (estimate, other):
        e.update(3.0, 1.0, small_batch=2, big_batch=8)
    assert other.value == estimate.value


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="small_batch=8"):
        noise_scale_moments(1.0, 1.0, 8, 8)
    with pytest.raises(ValueError, match="memory"):
        NoiseScale(memory=0.5)


def test_the_tradeoff() -> None:
    """(S / S_min - 1) (E / E_min - 1) = 1, eq. 2.11 of the paper."""
    for batch in (10.0, 300.0, 5000.0):
        updates, samples = cost_of(batch, 700.0)
        assert (updates - 1) * (samples - 1) == pytest.approx(1.0)
        assert efficiency(batch, 700.0) == pytest.approx(1 / samples)
