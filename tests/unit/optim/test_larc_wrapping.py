"""LARC as a wrapper: with a GradScaler around fused optimizers, copied and pickled."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from disttrain.optim import LARC

FUSED: list[tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.01}),
    (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.01}),
    (torch.optim.Adagrad, {"lr": 0.05}),
]
OVERFLOWS = 2
"""The step whose gradient is infinite."""


def gradients(p: nn.Parameter, step: int) -> torch.Tensor:
    return torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + p.numel()))


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 5), (4,))]


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize(("inner", "settings"), FUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fused_optimizer_with_a_grad_scaler(inner: Any, settings: dict[str, Any], unscale: bool) -> None:
    """Equal to the unfused one on plain gradients; an overflow moves nothing and spoils nothing."""
    expected, found = parameters(), parameters()
    plain, fused = LARC(inner(expected, **settings)), LARC(inner(found, fused=True, **settings))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for step in range(6):
        scaler.scale(torch.zeros(()))  # it makes its scale when first used
        for p, q in zip(found, expected, strict=True):
            q.grad = gradients(q, step)
            p.grad = q.grad * scaler.get_scale()
            if step == OVERFLOWS:
                p.grad[0] = torch.inf
        if step != OVERFLOWS:
            plain.step()
        if unscale:
            scaler.unscale_(fused)
        scaler.step(fused)
        scaler.update()
    for p, q in zip(found, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=1e-7)
    assert scaler.get_scale() == 2.0**9


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("fused", [False, True])
def test_a_copy_steps_as_the_original(again: Callable[[Any], Any], fused: bool) -> None:
    params = parameters()
    sgd = torch.optim.SGD(params, 0.1, momentum=0.9, weight_decay=0.01, fused=fused)
    optimizer = LARC(sgd, trust_coefficient=0.1, eps=1e-3, clip=False)

    def steps(some: list[nn.Parameter], of: LARC, first: int) -> None:
        for step in range(first, first + 3):
            for p in some:
                p.grad = gradients(p, step)
            of.step()

    steps(params, optimizer, 0)
    others, other = again((params, optimizer))
    assert other.param_groups is other.optimizer.param_groups
    steps(params, optimizer, 3)
    moved = [p.detach().clone() for p in params]
    steps(others, other, 3)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(params, moved, strict=True))
    other.load_state_dict(optimizer.state_dict())
    assert other.state is other.optimizer.state
