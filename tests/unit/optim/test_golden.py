"""Every variant against the papers in float64, 20 steps, with a learning rate that changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disttrain.optim import LAMB, LARC, LARS, Muon, NovoGrad
from tests.unit.optim import reference

STEPS = 20
RATES = [0.3 * (t + 1) / 5 if t < 5 else 0.3 * (1 - (t - 5) / 16) ** 2 for t in range(STEPS)]
SHAPES = [(7, 5), (5,), (3, 2, 2, 2), (1,), (4, 4), (4, 4), (6,)]
"""The last three: weights of zero, gradients of zero, huge weights with tiny gradients."""

LARS_VARIANTS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01, "eps": 1e-3},
    {"lr_in_momentum": False, "weight_decay": 0.01},
    {"nesterov": True, "weight_decay": 0.01},
    {"nesterov": True, "lr_in_momentum": False},
    {"momentum_correction": True, "weight_decay": 0.01},
    {"momentum_correction": True, "nesterov": True},
    {"momentum": 0.0, "trust_coefficient": 0.02},
    {"momentum": 0.0, "lr_in_momentum": False},
    {"clip": True, "trust_coefficient": 0.5, "weight_decay": 0.01},
    {"clip": True, "lr_in_momentum": False, "trust_coefficient": 0.02},
    {"adapt": False, "weight_decay": 0.1},
]
LAMB_VARIANTS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.0},
    {"bias_correction": False},
    {"bias_correction": False, "phi_bounds": (0.0, 10.0)},
    {"phi_bounds": (0.5, 1.0), "weight_decay": 0.1},
    {"pre_normalization": "always"},
    {"pre_normalization": "clip", "max_grad_norm": 0.5},
    {"pre_normalization": "clip", "max_grad_norm": 1e6},
    {"trust_clip": 1.0},
    {"adapt": False, "betas": (0.8, 0.95), "eps": 1e-2},
]
NOVOGRAD_VARIANTS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"grad_averaging": True, "weight_decay": 0.01},
    {"amsgrad": True},
    {"betas": (0.9, 0.25), "eps": 1e-3},
]
LARC_VARIANTS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"clip": False, "weight_decay": 0.01, "trust_coefficient": 0.1},
    {"momentum": 0.0},
]


def starts() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    found = [generator.normal(size=shape) for shape in SHAPES]
    found[4] = np.zeros(SHAPES[4])
    found[6] *= 1e4
    return found


def gradient(step: int, tensor: int, weights: np.ndarray) -> np.ndarray:
    """Of its own at each step, and of the weights too, so that mistakes add up."""
    if tensor == 5 and step % 2 == 0:
        return np.zeros_like(weights)
    noise = np.random.default_rng(100 * step + tensor).normal(size=weights.shape)
    scale = 1e-6 if tensor == 6 else 1e3 if tensor == 2 else 1.0
    return scale * (noise + 0.1 * weights / (1 + np.abs(weights)))


def run(make: Callable[[Sequence[nn.Parameter]], Any], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    params = [nn.Parameter(torch.from_numpy(w.copy()).to(dtype)) for w in starts()]
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    unused = nn.Parameter(torch.ones(2))
    optimizer = make([*params, frozen, unused])
    for t, lr in enumerate(RATES):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for i, p in enumerate(params):
            p.grad = torch.from_numpy(gradient(t, i, p.detach().double().numpy())).to(dtype)
        before = [p.grad.clone() for p in params if p.grad is not None]
        optimizer.step()
        assert all(torch.equal(p.grad, b) for p, b in zip(params, before, strict=True) if p.grad is not None)
    assert torch.equal(frozen, torch.ones(3))
    assert torch.equal(unused, torch.ones(2))
    return [p.detach() for p in params]


def compare(found: list[Tensor], expected: list[np.ndarray], rtol: float = 1e-11) -> None:
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert np.isfinite(b).all()
        size = max(np.abs(b).max(), 1e-300)
        difference = np.abs(a.double().numpy() - b).max() / size
        assert difference <= rtol, f"tensor {i} differs by {difference:.2e}"


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", LARS_VARIANTS, ids=str)
def test_lars(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.lars(starts(), gradient, RATES, **variant)
    compare(run(lambda params: LARS(params, 0.1, foreach=foreach, **variant)), expected)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", LAMB_VARIANTS, ids=str)
def test_lamb(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.lamb(starts(), gradient, RATES, **variant)
    compare(run(lambda params: LAMB(params, 0.1, foreach=foreach, **variant)), expected)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", NOVOGRAD_VARIANTS, ids=str)
def test_novograd(variant: dict[str, Any], foreach: bool) -> None:
    expected = reference.novograd(starts(), gradient, RATES, **variant)
    compare(run(lambda params: NovoGrad(params, 0.1, foreach=foreach, **variant)), expected)


@pytest.mark.parametrize("variant", LARC_VARIANTS, ids=str)
def test_larc(variant: dict[str, Any]) -> None:
    settings = dict(variant)
    sgd = {"momentum": settings.pop("momentum", 0.9), "weight_decay": settings.pop("weight_decay", 0.0)}
    expected = reference.larc_sgd(starts(), gradient, RATES, **sgd, **settings)
    compare(run(lambda params: LARC(torch.optim.SGD(params, 0.1, **sgd), **settings)), expected)


def test_momentum_correction_makes_the_two_forms_equal() -> None:
    """Goyal et al. 2017, remark 3: with the correction, the rate inside the momentum is the rate outside."""
    inside = run(lambda params: LARS(params, 0.1, momentum_correction=True, weight_decay=0.01))
    outside = run(lambda params: LARS(params, 0.1, lr_in_momentum=False, weight_decay=0.01))
    without = run(lambda params: LARS(params, 0.1, weight_decay=0.01))
    compare(inside, [w.numpy() for w in outside], rtol=1e-9)
    assert float((without[0] - outside[0]).abs().max()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [LARS, LAMB, NovoGrad, Muon])
def test_other_dtypes(make: Any, dtype: torch.dtype) -> None:
    params = [nn.Parameter(torch.from_numpy(w).to(dtype)) for w in starts()[:4]]
    wide = [nn.Parameter(p.detach().double()) for p in params]
    optimizers = make(params, 0.01), make(wide, 0.01)
    for t in range(5):
        for i, (p, w) in enumerate(zip(params, wide, strict=True)):
            p.grad = torch.from_numpy(gradient(t, i, starts()[i])).clamp(-100, 100).to(dtype)
            w.grad = p.grad.double()
        for optimizer in optimizers:
            optimizer.step()
        for p in params:  # state in float32 or wider
            state = optimizers[0].state[p]
            assert all(v.dtype in (torch.float32, torch.float64) for v in state.values() if isinstance(v, Tensor))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}[dtype]
    for p, w in zip(params, wide, strict=True):
        torch.testing.assert_close(p.double(), w, rtol=tolerance, atol=tolerance)
