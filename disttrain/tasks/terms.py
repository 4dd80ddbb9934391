"""One loss out of several named ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Losses = Tensor | Mapping[str, Tensor]
"""Loss of each item, or several by name, each of the same shape."""


def sum_of(losses: Mapping[str, Tensor]) -> Tensor:
    """All of them added up, without weights."""
    return torch.stack(list(losses.values())).sum(0)


def stacked(losses: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """``(k, ...)``: the losses in the order of ``names``, in float32 at least."""
    return wide(torch.stack([losses[name] for name in names]))


def wide(tensor: Tensor) -> Tensor:
    """``tensor``, in float32 where it is of 16 bits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def weighted(terms: Tensor, weights: Tensor) -> Tensor:
    """The sum of ``terms`` ``(k, ...)``, each times its of the ``weights`` ``(k,)``."""
    return (terms * weights.to(terms).view(-1, *[1] * (terms.dim() - 1))).sum(0)


def sums(terms: Tensor) -> Tensor:
    """(k,) float64: each of the ``terms`` ``(k, ...)`` summed over its items."""
    return terms.detach().double().flatten(1).sum(1)
