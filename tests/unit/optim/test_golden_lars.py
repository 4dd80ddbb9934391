"""LARS against the paper in float64, at the edges: rates of zero, absent gradients, narrow dtypes, extreme scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from disttrain.optim import LARS
from tests.unit.optim import reference
from tests.unit.optim.golden import LOW, STOP_AND_GO, agree, drive, fixed, low_starts, moved, scaled, sporadic, stored
from tests.unit.optim.test_golden import LARS_VARIANTS, RATES, gradient, starts

CORRECTED = {"momentum_correction": True, "weight_decay": 0.01}
FORMS: list[dict[str, Any]] = [{"weight_decay": 0.01}, {"lr_in_momentum": False, "nesterov": True}, {"momentum": 0.0}]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", [*FORMS, CORRECTED], ids=str)
def test_rates_of_zero(variant: dict[str, Any], foreach: bool) -> None:
    """MLPerf's warmup begins at 0; with correction a rate of 0 empties the buffer, and nothing divides by it."""
    expected = reference.lars(starts(), gradient, STOP_AND_GO, **variant)
    agree(drive(lambda p: LARS(p, foreach=foreach, **variant), starts(), rates=STOP_AND_GO), expected, 1e-11)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", FORMS, ids=str)
def test_absent_gradients(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.lars(starts(), sporadic, RATES, **variant)
    agree(drive(lambda p: LARS(p, foreach=foreach, **variant), starts(), sporadic), expected, 1e-11)


def test_absent_gradients_with_correction_tensor_by_tensor() -> None:
    expected = reference.lars(starts(), sporadic, RATES, **CORRECTED)
    agree(drive(lambda p: LARS(p, foreach=False, **CORRECTED), starts(), sporadic), expected, 1e-11)


def test_absent_gradients_with_correction_all_at_once() -> None:
    expected = reference.lars(starts(), sporadic, RATES, **CORRECTED)
    agree(drive(lambda p: LARS(p, foreach=True, **CORRECTED), starts(), sporadic), expected, 1e-11)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", LARS_VARIANTS, ids=str)
def test_float32(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.lars(starts(), gradient, RATES, **variant)
    agree(drive(lambda p: LARS(p, foreach=foreach, **variant), starts(), dtype=torch.float32), expected, 2e-5)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("variant", FORMS, ids=str)
def test_narrow_weights_and_wide_state(variant: dict[str, Any], dtype: torch.dtype, foreach: bool) -> None:
    """Nothing but the stored weights is rounded, once a step."""
    settings = {"trust_coefficient": 0.2, **variant}
    expected = reference.lars(low_starts(), fixed, RATES, store=stored(dtype), **settings)
    found = drive(lambda p: LARS(p, foreach=foreach, **settings), low_starts(), fixed, dtype=dtype)
    agree(found, expected, 2 * LOW[dtype])
    moved(found, low_starts())


@pytest.mark.parametrize("factor", [1e-12, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gradients(dtype: torch.dtype, factor: float) -> None:
    """Zeros have no ratio to tame them, so they are left out."""
    some = [np.random.default_rng(1).normal(size=shape) for shape in ((6, 5), (3,), ())]
    expected = reference.lars(some, scaled(factor), RATES, weight_decay=0.0)
    found = drive(lambda p: LARS(p), some, scaled(factor), dtype=dtype)
    agree(found, expected, 1e-5 if dtype == torch.float32 else 1e-11)
    moved(found, some)


def test_a_checkpoint_in_the_middle() -> None:
    expected = reference.lars(starts(), gradient, RATES, **CORRECTED)
    agree(drive(lambda p: LARS(p, **CORRECTED), starts(), reload_after=9), expected, 1e-11)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_a_checkpoint_of_narrow_weights(dtype: torch.dtype) -> None:
    """The float32 state comes back as it was: bit by bit the uninterrupted run."""
    start, rates = low_starts(), [0.1 * lr for lr in RATES]
    whole, halves = (
        drive(lambda p: LARS(p, trust_coefficient=0.2), start, fixed, rates, dtype, reload_after=after)
        for after in (None, 9)
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
