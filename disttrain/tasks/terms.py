"""One loss out of several named ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from disttrain.errors import InputError

Losses = Tensor | Mapping[str, Tensor]
"""Loss of each item, or several by name, each of the same shape."""


def combine(losses: Losses, weights: Mapping[str, float] | None) -> Tensor:
    """The weighted sum of named losses (all with weight 1 where no weights are given), or a single loss as it is.

    Raises:
        InputError: weights for a task of a single loss, or for other names than the losses have.
    """
    if isinstance(losses, Tensor):
        if weights is not None:
            raise InputError("loss.weights: this task has a single loss; leave them out")
        return losses
    if weights is None:
        weights = dict.fromkeys(losses, 1.0)
    if weights.keys() != losses.keys():
        raise InputError(
            f"loss.weights has {', '.join(sorted(weights)) or 'nothing'}; this task's losses are {', '.join(sorted(losses))}"
        )
    names = list(losses)
    terms = stacked(losses, names)
    return weighted(terms, torch.tensor([weights[name] for name in names], dtype=torch.float64))


def stacked(losses: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """``(k, ...)``: the losses in the order of ``names``, in float32 at least."""
    terms = torch.stack([losses[name] for name in names])
    return terms.float() if terms.dtype in (torch.float16, torch.bfloat16) else terms


def weighted(terms: Tensor, weights: Tensor) -> Tensor:
    """The sum of ``terms`` ``(k, ...)``, each times its of the ``weights`` ``(k,)``."""
    return (terms * weights.to(terms).view(-1, *[1] * (terms.dim() - 1))).sum(0)
