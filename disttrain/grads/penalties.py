"""L1 and L2 penalties on chosen parameters, added to the gradient once per update."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

__all__ = ["add_l1_", "add_l2_"]


def add_l1_(params: Sequence[nn.Parameter], strength: float) -> None:
    """``g += strength * sign(w)``: the gradient of ``strength * sum |w|`` (0 at 0)."""
    for p in params:
        if p.grad is not None:
            p.grad.add_(p.detach().sign(), alpha=strength)


def add_l2_(params: Sequence[nn.Parameter], strength: float) -> None:
    """``g += strength * w``: the gradient of ``strength / 2 * sum w^2``, what torch's SGD calls weight decay."""
    for p in params:
        if p.grad is not None:
            p.grad.add_(p.detach(), alpha=strength)
