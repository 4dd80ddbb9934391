"""Clipping against torch's own and numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from disttrain import grads


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in ((4, 3), (5,), (2, 3, 2, 2), ()):
        p = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        p.grad = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
        found.append(p)
    return [*found, nn.Parameter(torch.ones(2, dtype=torch.float64))]  # the last has no gradient


def flat(params: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in params if p.grad is not None])


@pytest.mark.parametrize("most", [0.5, 1e3])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
def test_clip_norm_is_torchs(most: float, p: float) -> None:
    ours, theirs = parameters(), parameters()
    before = flat(ours).norm()
    nn.utils.clip_grad_norm_(theirs, most, norm_type=p)
    torch.testing.assert_close(grads.clip_norm(ours, most, p), before)  # the 2-norm, whatever was clipped
    torch.testing.assert_close(flat(ours), flat(theirs))


@pytest.mark.parametrize("p", [1.0, 3.5, float("inf")])
def test_clip_per_layer_by_any_norm_is_torchs(p: float) -> None:
    ours, theirs = parameters(), parameters()
    before = flat(ours).norm()
    for parameter in theirs:
        nn.utils.clip_grad_norm_([parameter], 1.5, norm_type=p)
    torch.testing.assert_close(grads.clip_per_layer(ours, 1.5, p), before)
    torch.testing.assert_close(flat(ours), flat(theirs))


@pytest.mark.parametrize("size", [1e-5, 1e5, 1e12])
@pytest.mark.parametrize("p", [3.0, 9.0, 40.0])
@pytest.mark.parametrize("clip", [grads.clip_norm, grads.clip_per_layer])
def test_powers_that_float32_cannot_hold(clip: Callable[..., Tensor], p: float, size: float) -> None:
    """In float32 the p-th power of such elements is 0 or infinite: nothing would be clipped, or all be set to zero."""
    parameter = nn.Parameter(torch.zeros(6))
    parameter.grad = torch.arange(1.0, 7.0) * size
    expected = parameter.grad.double().numpy()
    largest = np.abs(expected).max()
    norm = largest * ((expected / largest) ** p).sum() ** (1 / p)
    clip([parameter], 0.5 * size, p)
    np.testing.assert_allclose(parameter.grad.numpy(), expected * min(1.0, 0.5 * size / (norm + 1e-6)), rtol=1e-5)


@pytest.mark.parametrize("clip", [grads.clip_norm, grads.clip_per_layer])
def test_zero_and_infinite_gradients_by_any_norm(clip: Callable[..., Tensor]) -> None:
    params = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    params[0].grad, params[1].grad = torch.zeros(2), torch.tensor([1.0, 0.0])
    clip(params, 0.5, 3.0)
    torch.testing.assert_close(flat(params), torch.tensor([0.0, 0.0, 0.5, 0.0]))
    params[0].grad = torch.tensor([float("inf"), 1.0])
    assert float(clip(params, 0.5, 3.0)) == float("inf")
    assert not flat(params).isfinite().all()


def test_no_gradient_has_norm_zero() -> None:
    for clip in (grads.clip_norm, grads.clip_per_layer):
        assert float(clip([nn.Parameter(torch.ones(2))], 1.0, 3.0)) == 0.0


def test_clip_value_is_torchs() -> None:
    ours, theirs = parameters(), parameters()
    nn.utils.clip_grad_value_(theirs, 0.7)
    before = flat(ours).norm()
    torch.testing.assert_close(grads.clip_value(ours, 0.7), before)
    torch.testing.assert_close(flat(ours), flat(theirs))


def test_clip_per_layer_is_torchs_layer_by_layer() -> None:
    ours, theirs = parameters(), parameters()
    for p in theirs:
        nn.utils.clip_grad_norm_([p], 1.5)
    before = flat(ours).norm()
    torch.testing.assert_close(grads.clip_per_layer(ours, 1.5), before)
    torch.testing.assert_close(flat(ours), flat(theirs))
    assert any(float(n) < 1.49 for n in grads.per_layer_norms(ours))  # not all were touched


def test_adaptive_clipping_unit_by_unit() -> None:
    """Brock et al. 2021, eq. 3, in numpy."""
    params = parameters()
    with torch.no_grad():
        params[0][1] = 0.0  # a unit of zero weights gets eps
        params[0].grad[2] = 0.0  # type: ignore[index]
    expected = []
    for p in params:
        if p.grad is None:
            continue
        w, g = p.detach().numpy(), p.grad.numpy().copy()
        rows = (
            [(w.reshape(1, -1), g.reshape(1, -1))] if w.ndim <= 1 else [(w.reshape(len(w), -1), g.reshape(len(w), -1))]
        )
        for ws, gs in rows:
            for wi, gi in zip(ws, gs, strict=True):
                most = 0.1 * max(np.linalg.norm(wi), 1e-3)
                if np.linalg.norm(gi) > most:
                    gi *= most / np.linalg.norm(gi)
            expected.append(gs.reshape(-1))
    grads.clip_adaptive(params, 0.1)
    np.testing.assert_allclose(flat(params).numpy(), np.concatenate(expected), rtol=1e-12)


@pytest.mark.parametrize("clip", [grads.clip_norm, grads.clip_value, grads.clip_per_layer, grads.clip_adaptive])
def test_nothing_to_clip(clip: Callable[..., Any]) -> None:
    assert float(clip([nn.Parameter(torch.ones(2))], 1.0)) == 0.0


@pytest.mark.parametrize("clip", [grads.clip_norm, grads.clip_per_layer])
def test_what_is_not_finite_stays_so(clip: Callable[..., Any]) -> None:
    """A diverged gradient must not be made to look sound."""
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([1.0, torch.inf, 1.0])
    assert not bool(clip([p], 1.0).isfinite())
    assert not bool(p.grad.isfinite().all())
