"""Losses and totals against the formulas in float64, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from disttrain.tasks.cross_entropy import cross_entropy, rates, totals


def by_formula(logits: np.ndarray, targets: np.ndarray, smoothing: float) -> np.ndarray:
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    return -((1 - smoothing) * chosen + smoothing * log_p.mean(-1))


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses(shape: tuple[int, ...], smoothing: float) -> None:
    logits = torch.randn(*shape, 5, dtype=torch.float64) * 3
    targets = torch.randint(5, shape)
    found = cross_entropy(logits, targets, smoothing)
    assert found.shape == targets.shape
    np.testing.assert_allclose(found.numpy(), by_formula(logits.numpy(), targets.numpy(), smoothing), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    logits = (torch.randn(9, 5) * 3).to(dtype).requires_grad_()
    targets = torch.randint(5, (9,))
    found = cross_entropy(logits, targets)
    assert found.dtype == torch.float32
    exact = by_formula(logits.detach().double().numpy(), targets.numpy(), 0.0)
    np.testing.assert_allclose(found.detach().numpy(), exact, rtol=1e-5, atol=1e-6)
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


def test_totals_do_not_depend_on_the_batches() -> None:
    logits, targets = torch.randn(100, 4, 5), torch.randint(5, (100, 4))
    whole = totals(logits, targets)
    parts = [totals(logits[a:b], targets[a:b]) for a, b in ((0, 1), (1, 37), (37, 100))]
    for name in ("correct", "items"):
        assert whole[name].dtype == torch.int64
        assert sum(int(part[name]) for part in parts) == int(whole[name])
    assert whole["loss"].dtype == torch.float64
    assert sum(float(part["loss"]) for part in parts) == pytest.approx(float(whole["loss"]), rel=1e-13)


def test_rates() -> None:
    logits = torch.tensor([[5.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 0.0]])
    targets = torch.tensor([0, 0, 1, 1])
    found = rates({name: float(total) for name, total in totals(logits, targets).items()})
    right, wrong = np.log1p(np.exp(-5)), np.log1p(np.exp(5))
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx((3 * right + wrong) / 4, rel=1e-6)
