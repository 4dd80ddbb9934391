"""Batch-size-invariant Adam against its paper in float64, against AdamW, and against itself at another batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.optim import BatchInvariantAdam
from tests.unit.optim import reference
from tests.unit.optim.golden import agree, drive, moved
from tests.unit.optim.test_golden import RATES, gradient, starts


def slices(step: int, tensor: int, weights: np.ndarray) -> list[np.ndarray]:
    return [gradient(4 * step + k, tensor, weights) for k in range(4)]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("variant", [{}, {"betas": (0.5, 0.9), "eps": 1e-2, "weight_decay": 0.3}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_paper(variant: dict[str, Any], foreach: bool, dtype: torch.dtype) -> None:
    params = [nn.Parameter(torch.from_numpy(w.copy()).to(dtype)) for w in starts()]
    optimizer = BatchInvariantAdam(params, foreach=foreach, **variant)
    for t, lr in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = lr
        for i, p in enumerate(params):
            parts = torch.from_numpy(np.stack(slices(t, i, p.detach().double().numpy())))
            p.grad = parts.mean(0).to(dtype)
            p.mean_square = parts.square().mean(0).to(dtype)  # type: ignore[attr-defined]
        optimizer.step()
    expected = reference.batch_invariant_adam(starts(), slices, RATES, **variant)
    agree([p.detach() for p in params], expected, 1e-11 if dtype == torch.float64 else 1e-4)


def test_with_a_single_slice_it_is_adamw() -> None:
    for weight_decay in (0.0, 0.1):
        ours, theirs = (
            drive(lambda p: make(p, weight_decay=weight_decay), starts())  # noqa: B023
            for make in (BatchInvariantAdam, torch.optim.AdamW)
        )
        agree(ours, [w.numpy() for w in theirs], 1e-11)
        moved(ours, starts())


def test_at_a_larger_batch_it_goes_the_same_way() -> None:
    """k slices an update with k times the rate and betas to the power of k: the gap to single slices falls with the rate, where
    noise does not dominate, and AdamW with the same settings is far off."""
    generator = np.random.default_rng(0)
    target, noise = generator.normal(size=20), generator.normal(size=(4096, 20)) * np.linspace(0.1, 3.0, 20)

    def go(make: Any, k: int, lr: float) -> torch.Tensor:
        p = nn.Parameter(torch.zeros(20, dtype=torch.float64))
        betas = (0.9**k, 0.99**k)
        optimizer = make([p], lr=lr * k, betas=betas, weight_decay=0.0)
        for update in range(round(2.0 / lr) // k):
            parts = p.detach() - torch.from_numpy(target + noise[update * k : update * k + k])
            p.grad = parts.mean(0)
            p.mean_square = parts.square().mean(0)  # type: ignore[attr-defined]
            optimizer.step()
        return p.detach()

    gaps = [float((go(BatchInvariantAdam, 8, lr) - go(BatchInvariantAdam, 1, lr)).norm()) for lr in (0.004, 0.001)]
    assert gaps[1] < 0.5 * gaps[0]
    assert float((go(torch.optim.AdamW, 8, 0.001) - go(torch.optim.AdamW, 1, 0.001)).norm()) > 5 * gaps[1]
