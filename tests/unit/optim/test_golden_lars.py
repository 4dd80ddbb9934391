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
@pytest.mark.parametrize("variant", FORMS, ids=str)
def test_rates_of_zero(variant: dict[str, Any], foreach: bool) -> None:
    """MLPerf's warmup begins at 0."""
    expected = reference.lars(starts(), gradient, STOP_AND_GO, **variant)
    agree(drive(lambda p: LARS(p, foreach=foreach, **variant), starts(), rates=STOP_AND_GO), expected, 1e-11)


@pytest.mark.parametrize("foreach", [False, True])
def test_rates_of_zero_with_correction(foreach: bool) -> None:
    """The two forms are equal then too: a rate of 0 does not empty the momentum."""
    expected = reference.lars(starts(), gradient, STOP_AND_GO, weight_decay=0.01, lr_in_momentum=False)
    agree(drive(lambda p: LARS(p, foreach=foreach, **CORRECTED), starts(), rates=STOP_AND_GO), expected, 1e-11)


def test_a_corrected_buffer_with_the_rate_inside_goes_on() -> None:
    """Earlier versions kept ``lr * v`` and ``previous_lr``."""

    def make(params: Any) -> LARS:
        return LARS(params, **CORRECTED)

    def older(state_dict: dict[str, Any]) -> dict[str, Any]:
        for state in state_dict["state"].values():
            state["momentum_buffer"] = state["momentum_buffer"] * 0.3
            state["previous_lr"] = 0.3
        return state_dict

    first, second = ([torch.nn.Parameter(torch.from_numpy(w)) for w in starts()] for _ in range(2))
    optimizers = make(first), make(second)
    for params, optimizer in zip((first, second), optimizers, strict=True):
        for step in range(2):
            for i, p in enumerate(params):
                p.grad = torch.from_numpy(gradient(step, i, starts()[i]))
            optimizer.step()
        if params is first:
            optimizer.load_state_dict(older(optimizer.state_dict()))
            optimizer.step()
        else:
            optimizer.step()
    agree([p.detach() for p in first], [p.detach().numpy() for p in second], 1e-14)


@pytest.mark.parametrize("lr", [0.3, 3.0])
@pytest.mark.parametrize("which", ["weights", "gradient"])
def test_clip_at_a_norm_of_zero(which: str, lr: float) -> None:
    """``min(1 / lr, 1)``, so that the layer's rate is never above ``lr`` nor 1, by hand."""
    w = np.zeros(3) if which == "weights" else np.full(3, 2.0)
    g = np.zeros(3) if which == "gradient" else np.full(3, 0.5)
    found = drive(lambda p: LARS(p, clip=True, weight_decay=0.1), [w], lambda *_: g, [lr])
    agree(found, [w - lr * min(1 / lr, 1.0) * (g + 0.1 * w)], 1e-14)


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
