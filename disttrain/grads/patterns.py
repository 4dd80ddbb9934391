"""Parameters chosen by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from disttrain.names import matching

__all__ = ["matching", "select"]


def select(model: nn.Module, patterns: Sequence[str]) -> list[nn.Parameter]:
    """The trained parameters of ``model`` that :func:`matching` finds, in the model's order.

    Raises:
        ValueError: a pattern matches nothing; the message names what is close.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> len(select(model, ["1.*"])), len(select(model, ["*.weight"]))
        (2, 2)
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return [named[name] for name in matching(named, patterns, "trained parameter")]
