"""The laws by which hyper-parameters are carried to another batch, against their limits."""

from __future__ import annotations

import pytest

from disttrain import schedules


def test_a_mean_forgets_as_much_over_the_same_samples() -> None:
    for small in (0.5, 0.9, 0.999):
        assert schedules.keep_half_life(small, 8) == pytest.approx(small**8)
        assert schedules.keep_half_life(small, 0.25) ** 4 == pytest.approx(small)
    # Malladi's rule to first order, and beyond where that one ends.
    malladi = schedules.scale_adam(8, lr=1.0, betas=(0.999, 0.9999), eps=1.0).betas
    assert [schedules.keep_half_life(beta, 8) for beta in (0.999, 0.9999)] == pytest.approx(malladi, rel=1e-4)
    assert 0.0 < schedules.keep_half_life(0.9, 64) < 0.01


def test_the_rate_of_signs_is_largest_at_the_noise_scale() -> None:
    def rate(batch: float) -> float:
        return schedules.surge_scaling(batch, 64, 500)

    assert rate(64) == 1.0
    assert rate(250) == pytest.approx(rate(1000))  # the same on both sides, in logarithms
    assert rate(499) < rate(500) > rate(501)
    assert schedules.surge_scaling(4, 1, 1e9) == pytest.approx(schedules.sqrt_scaling(4), rel=1e-6)
    assert schedules.surge_scaling(4e9, 1e9, 1.0) == pytest.approx(1 / schedules.sqrt_scaling(4), rel=1e-6)


def test_sgds_rate_saturates_at_the_noise_scale() -> None:
    assert schedules.saturating_scaling(64, 64, 500) == 1.0
    assert schedules.saturating_scaling(4, 1, 1e9) == pytest.approx(schedules.linear_scaling(4), rel=1e-6)
    # Half of the largest rate at the noise scale.
    assert schedules.saturating_scaling(500, 64, 500) * 2 == pytest.approx(schedules.saturating_scaling(1e12, 64, 500))
