"""One decision on an adaptive batch."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disttrain.schedules import BatchLimits, by_noise_scale, by_norm_test

LIMITS = BatchLimits(least=64, most=4096, unit=32)
INF = math.inf


@pytest.mark.parametrize(
    ("batch", "low", "high", "expected"),
    [
        (512, 1025.0, INF, 1024),
        (512, 1024.0, INF, 512),  # not more than 2 x 512
        (512, 0.0, 255.0, 256),
        (512, 0.0, 256.0, 512),
        (512, 0.0, INF, 512),  # nothing is known
        (4096, 1e9, INF, 4096),
        (64, 0.0, 1.0, 64),
        (96, 0.0, 1.0, 64),  # 48 is no multiple of 32, and 32 is below the least
        (3072, 1e9, INF, 4096),
    ],
)
def test_the_noise_scale_decides_where_its_interval_does(batch: int, low: float, high: float, expected: int) -> None:
    found, why = by_noise_scale(batch, low, high, LIMITS)
    assert found == expected
    if found != batch:
        assert f"{batch:,}" in why


def test_the_norm_test_asks_for_the_smallest_batch_that_passes() -> None:
    assert by_norm_test(512, 512.0, 1.0, LIMITS) == (512, "")
    assert by_norm_test(512, 513.0, 1.0, LIMITS)[0] == 544  # the next multiple of 32
    assert by_norm_test(512, 700.0, 1.0, LIMITS)[0] == 704
    assert by_norm_test(512, 1e6, 1.0, LIMITS)[0] == 1024  # factor
    assert by_norm_test(512, 512.0, 1.0, LIMITS, theta=0.8)[0] == 800
    assert by_norm_test(512, 1.0, -1.0, LIMITS)[0] == 1024
    assert by_norm_test(512, -1.0, -1.0, LIMITS) == (512, "")
    assert by_norm_test(4096, 1e6, 1.0, LIMITS)[0] == 4096


@given(
    unit=st.integers(1, 40),
    units=st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50)),
    factor=st.floats(1.01, 10.0),
    wanted=st.floats(1.0, 1e5),
)
def test_batches_stay_within_their_limits(unit: int, units: tuple[int, int, int], factor: float, wanted: float) -> None:
    least, batch, most = (n * unit for n in sorted(units))
    limits = BatchLimits(least, most, unit, factor)
    larger, smaller = limits.larger(batch, wanted), limits.smaller(batch)
    assert limits.holds(larger)
    assert limits.holds(smaller)
    assert larger > batch or larger == most
    assert smaller < batch or smaller == least
    # Rounding up may add less than a unit to the wish, and one unit is always allowed.
    assert larger <= max(batch + unit, min(batch * factor * (1 + 1e-6), wanted + unit))
    assert smaller * (1 + 1e-6) >= min(batch - unit, batch / factor)
    assert larger <= batch * limits.largest_step * (1 + 1e-6)


@given(
    unit=st.integers(1, 40),
    units=st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50)),
    factor=st.floats(1.01, 4.0),
    ends=st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)),
)
def test_a_batch_that_has_grown_does_not_shrink_by_the_same_interval(
    unit: int, units: tuple[int, int, int], factor: float, ends: tuple[float, float]
) -> None:
    least, batch, most = (n * unit for n in sorted(units))
    limits, (low, high) = BatchLimits(least, most, unit, factor), sorted(ends)
    shrink_below = 1.2 / (limits.largest_step * (1 + 1e-6))
    larger, _ = by_noise_scale(batch, low, high, limits, grow_above=1.2, shrink_below=shrink_below)
    if larger > batch:
        assert by_noise_scale(larger, low, high, limits, grow_above=1.2, shrink_below=shrink_below)[0] >= larger
