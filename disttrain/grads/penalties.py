"""L1 and L2 penalties on chosen parameters, added to the gradient once per update."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["add_l1_", "add_l2_", "select"]


def select(model: nn.Module, patterns: Sequence[str]) -> list[nn.Parameter]:
    """The trained parameters whose names match one of ``patterns`` (shell style: ``*``, ``?``, ``[abc]``), in the
    model's order.

    Raises:
        ValueError: a pattern matches nothing; the message names what is close.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> len(select(model, ["1.*"])), len(select(model, ["*.weight"]))
        (2, 2)
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            close = difflib.get_close_matches(pattern, named, 3, 0.4) or list(named)[:3]
            raise ValueError(f"no trained parameter matches {pattern!r}; there are {', '.join(close)}")
    return [p for name, p in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


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
