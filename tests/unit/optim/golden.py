"""What the golden tests of one optimizer each have in common: edges beyond those of test_golden.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.unit.optim import reference
from tests.unit.optim.test_golden import RATES, SHAPES, gradient, starts

STOP_AND_GO = [0.0, 0.1, 0.2, 0.3, 0.0, 0.0, 0.3, *[0.3 * 0.8**t for t in range(13)]]
"""20 rates: a warmup from zero, a pause, and a decay."""

LOW = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Half an ulp of 1."""


def sporadic(step: int, tensor: int, weights: np.ndarray) -> np.ndarray | None:
    """The first tensor comes late, the second pauses, the third comes and goes."""
    absent = (tensor == 0 and step < 5) or (tensor == 1 and 6 <= step < 11) or (tensor == 2 and step % 3 == 1)
    return None if absent else gradient(step, tensor, weights)


def fixed(step: int, tensor: int, weights: np.ndarray) -> np.ndarray:
    """Does not depend on the weights, and is exact in bfloat16 and float16: all of a difference is the optimizer's."""
    g = torch.from_numpy(np.asarray(gradient(step, tensor, np.zeros_like(weights)))).clamp(-100, 100)
    return g.to(torch.bfloat16).to(torch.float16).double().numpy()


def scaled(factor: float) -> reference.Gradient:
    return lambda step, tensor, weights: factor * np.random.default_rng(7 * step + tensor).normal(size=weights.shape)


def stored(dtype: torch.dtype) -> reference.Store:
    return lambda w: torch.from_numpy(np.asarray(w)).to(dtype).double().numpy()


def drive(
    make: Callable[[Sequence[nn.Parameter]], Any],
    weights: Sequence[np.ndarray],
    of: reference.Gradient = gradient,
    rates: Sequence[float] = RATES,
    dtype: torch.dtype = torch.float64,
    reload_after: int | None = None,
) -> list[Tensor]:
    """The weights after one step for each rate; ``p.grad`` must survive each; ``reload_after``: a new optimizer goes on
    there from the state_dict."""
    params = [nn.Parameter(torch.from_numpy(np.array(w)).to(dtype)) for w in weights]
    optimizer = make(params)
    for t, lr in enumerate(rates):
        if t == reload_after:
            saved = optimizer.state_dict()
            optimizer = make(params)
            optimizer.load_state_dict(saved)
        for group in optimizer.param_groups:
            group["lr"] = lr
        kept = []
        for i, p in enumerate(params):
            g = of(t, i, p.detach().double().numpy())
            p.grad = None if g is None else torch.from_numpy(np.array(g)).to(dtype)
            kept.append(None if p.grad is None else (p.grad, p.grad.clone()))
        optimizer.step()
        for p, before in zip(params, kept, strict=True):
            assert p.grad is None if before is None else p.grad is before[0] and torch.equal(*before)
    return [p.detach() for p in params]


def agree(found: Sequence[Tensor], expected: Sequence[np.ndarray], tolerance: float) -> None:
    """To ``tolerance`` of the largest weight of each tensor."""
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert np.isfinite(b).all()
        if b.size:
            difference = np.abs(a.double().numpy() - b).max() / max(np.abs(b).max(), 1e-300)
            assert difference <= tolerance, f"tensor {i} differs by {difference:.2e}"


def moved(found: Sequence[Tensor], start: Sequence[np.ndarray]) -> None:
    """A check that passes because nothing happened would be none."""
    assert all((a.double().numpy() != w).any() for a, w in zip(found, start, strict=True) if w.size)


def low_starts() -> list[np.ndarray]:
    """Weights that bfloat16 holds exactly, and a scalar, an empty tensor and zeros besides."""
    plain = [w for w, shape in zip(starts(), SHAPES, strict=True) if shape != (6,)]
    return [stored(torch.bfloat16)(w) for w in [*plain, np.array(0.75), np.zeros((0, 3))]]
