"""LAMB against the paper in float64, at the edges: absent gradients, groups, narrow dtypes, extreme scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from disttrain.optim import LAMB
from tests.unit.optim import reference
from tests.unit.optim.golden import LOW, STOP_AND_GO, agree, drive, fixed, low_starts, moved, scaled, sporadic, stored
from tests.unit.optim.test_golden import LAMB_VARIANTS, RATES, gradient, starts


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("pre_normalization", ["none", "always", "clip"])
def test_absent_gradients_and_rates_of_zero(pre_normalization: Any, foreach: bool) -> None:
    """Each tensor has a step count, and so a bias correction, of its own; absent ones are not in the global norm."""
    expected = reference.lamb(starts(), sporadic, STOP_AND_GO, pre_normalization=pre_normalization)
    found = drive(
        lambda p: LAMB(p, foreach=foreach, pre_normalization=pre_normalization), starts(), sporadic, STOP_AND_GO
    )
    agree(found, expected, 1e-11)


@pytest.mark.parametrize("pre_normalization", ["always", "clip"])
def test_the_global_norm_is_over_all_groups(pre_normalization: Any) -> None:
    expected = reference.lamb(starts(), gradient, RATES, pre_normalization=pre_normalization, max_grad_norm=0.5)
    found = drive(
        lambda p: LAMB([{"params": [q]} for q in p], pre_normalization=pre_normalization, max_grad_norm=0.5),
        starts(),
    )
    agree(found, expected, 1e-11)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", LAMB_VARIANTS, ids=str)
def test_float32(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.lamb(starts(), gradient, RATES, **variant)
    agree(drive(lambda p: LAMB(p, foreach=foreach, **variant), starts(), dtype=torch.float32), expected, 1e-4)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("variant", [{}, {"bias_correction": False}, {"pre_normalization": "clip"}], ids=str)
def test_narrow_weights_and_wide_state(variant: dict[str, Any], dtype: torch.dtype, foreach: bool) -> None:
    """Nothing but the stored weights is rounded, once a step."""
    rates = [0.1 * lr for lr in RATES]
    expected = reference.lamb(low_starts(), fixed, rates, store=stored(dtype), **variant)
    found = drive(lambda p: LAMB(p, foreach=foreach, **variant), low_starts(), fixed, rates, dtype=dtype)
    agree(found, expected, 4 * LOW[dtype])
    moved(found, low_starts())


@pytest.mark.parametrize("factor", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gradients(dtype: torch.dtype, factor: float) -> None:
    some = [np.random.default_rng(1).normal(size=shape) for shape in ((6, 5), (3,), ())]
    expected = reference.lamb(some, scaled(factor), RATES)
    found = drive(lambda p: LAMB(p), some, scaled(factor), dtype=dtype)
    agree(found, expected, 1e-4 if dtype == torch.float32 else 1e-11)
    moved(found, some)


def test_a_checkpoint_in_the_middle() -> None:
    expected = reference.lamb(starts(), gradient, RATES)
    agree(drive(LAMB, starts(), reload_after=9), expected, 1e-11)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_a_checkpoint_of_narrow_weights(dtype: torch.dtype) -> None:
    """The float32 state comes back as it was: bit by bit the uninterrupted run."""
    start, rates = low_starts(), [0.1 * lr for lr in RATES]
    whole, halves = (drive(lambda p: LAMB(p), start, fixed, rates, dtype, reload_after=after) for after in (None, 9))
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
