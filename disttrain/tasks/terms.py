"""One loss out of several named ones."""

from __future__ import annotations

from collections.abc import Mapping

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
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(0)
