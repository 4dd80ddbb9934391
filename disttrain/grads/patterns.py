"""Choosing by name, shell style: the one matcher behind every list of patterns in a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["matching", "select"]


def matching(names: Iterable[str], patterns: Sequence[str], what: str = "parameter") -> list[str]:
    """Those of ``names`` that match one of ``patterns`` (shell style: ``*``, ``?``, ``[abc]``), in their order.

    Args:
        what: the names are of, for the message.

    Raises:
        ValueError: a pattern matches nothing; the message names what is close.

    Examples:
        >>> matching(["0.weight", "0.bias", "1.weight"], ["0.*", "*.bias"])
        ['0.weight', '0.bias']
    """
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, known, 3, 0.4) or known[:3]
            raise ValueError(f"no {what} matches {pattern!r}; there are {', '.join(close) or 'none'}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


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
