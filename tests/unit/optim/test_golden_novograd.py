"""NovoGrad against the paper in float64, at the edges: absent gradients, narrow dtypes, extreme scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from disttrain.optim import NovoGrad
from tests.unit.optim import reference
from tests.unit.optim.golden import LOW, STOP_AND_GO, agree, drive, fixed, low_starts, moved, scaled, sporadic, stored
from tests.unit.optim.test_golden import NOVOGRAD_VARIANTS, RATES, gradient, starts


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", [{}, {"amsgrad": True, "weight_decay": 0.01}], ids=str)
def test_absent_gradients_and_rates_of_zero(variant: dict[str, Any], foreach: bool) -> None:
    """The first gradient of a tensor makes its first moment, whenever it comes."""
    expected = reference.novograd(starts(), sporadic, STOP_AND_GO, **variant)
    found = drive(lambda p: NovoGrad(p, foreach=foreach, **variant), starts(), sporadic, STOP_AND_GO)
    agree(found, expected, 1e-11)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", NOVOGRAD_VARIANTS, ids=str)
def test_float32(variant: dict[str, Any], foreach: bool) -> None:
    rates = [0.1 * lr for lr in RATES]
    expected = reference.novograd(starts(), fixed, rates, **variant)
    found = drive(lambda p: NovoGrad(p, foreach=foreach, **variant), starts(), fixed, rates, dtype=torch.float32)
    agree(found, expected, 1e-5)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("variant", [{}, {"grad_averaging": True, "weight_decay": 0.01}], ids=str)
def test_narrow_weights_and_wide_state(variant: dict[str, Any], dtype: torch.dtype, foreach: bool) -> None:
    """Nothing but the stored weights is rounded, once a step."""
    rates = [0.1 * lr for lr in RATES]
    expected = reference.novograd(low_starts(), fixed, rates, store=stored(dtype), **variant)
    found = drive(lambda p: NovoGrad(p, foreach=foreach, **variant), low_starts(), fixed, rates, dtype=dtype)
    agree(found, expected, 4 * LOW[dtype])
    moved(found, low_starts())


@pytest.mark.parametrize("factor", [1e-3, 1e12, 1e25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_gradients(dtype: torch.dtype, factor: float) -> None:
    some = [np.random.default_rng(1).normal(size=shape) for shape in ((6, 5), (3,), ())]
    expected = reference.novograd(some, scaled(factor), RATES)
    found = drive(NovoGrad, some, scaled(factor), dtype=dtype)
    agree(found, expected, 1e-5 if dtype == torch.float32 else 1e-11)
    moved(found, some)


def test_the_first_gradient_is_the_first_that_is_not_zero() -> None:
    """While v = 0 it begins anew, as in timm and torch_optimizer; the step of zero is 0 / eps."""

    def late(step: int, tensor: int, weights: np.ndarray) -> np.ndarray:
        return np.zeros_like(weights) if step == 0 else np.full_like(weights, 0.5)

    start = [np.ones((2, 2))]
    found = drive(NovoGrad, start, late, [0.1, 0.1])
    # v_2 = ||g||^2 = 1, so m_2 = 0.5
    agree(found, [np.full((2, 2), 1 - 0.1 * 0.5 / (1 + 1e-8))], 1e-12)


def test_a_checkpoint_in_the_middle() -> None:
    expected = reference.novograd(starts(), gradient, RATES, amsgrad=True)
    agree(drive(lambda p: NovoGrad(p, amsgrad=True), starts(), reload_after=9), expected, 1e-11)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_a_checkpoint_of_narrow_weights(dtype: torch.dtype) -> None:
    """The float32 state comes back as it was: bit by bit the uninterrupted run."""
    start, rates = low_starts(), [0.1 * lr for lr in RATES]
    whole, halves = (
        drive(lambda p: NovoGrad(p), start, fixed, rates, dtype, reload_after=after) for after in (None, 9)
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_a_float32_checkpoint_with_large_gradients() -> None:
    """v is far beyond float32 and comes back as it was."""
    some = [np.random.default_rng(1).normal(size=(6, 5))]
    whole, halves = (drive(NovoGrad, some, scaled(1e25), RATES, torch.float32, reload_after=n) for n in (None, 9))
    assert torch.equal(whole[0], halves[0])
