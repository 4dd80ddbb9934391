"""Adam whose second moment is that of gradients of small slices of the batch (Wang and Aitchison 2024, arXiv:2402.18824)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disttrain.optim.layerwise import LayerwiseOptimizer, subtract_
from disttrain.optim.moments import adamw_updates


class BatchInvariantAdam(LayerwiseOptimizer):
    r"""AdamW with ``v = beta2 * v + (1 - beta2) * s``, where ``s`` is the mean over slices of the batch of each slice's squared
    gradient, in the place of the squared mean gradient.

    ``s`` does not shrink as the batch grows, so with k times the slices in a batch, ``lr`` times k and each beta to the power of
    k, an update is to first order what k updates of one slice each are (the paper: without the square-root rule's assumption
    that noise dominates the gradient). Weight decay and ``eps`` stay.

    Whoever takes the backward passes gives ``s``: as ``p.mean_square``, a tensor like ``p.grad``, set for each step beside it
    and scaled as it is. A parameter that has none (or None) is taken for a batch of one slice, and the step is AdamW's.

    Args:
        params: parameters, or groups of them; see :func:`disttrain.optim.param_groups`.
        lr: learning rate.
        betas: decay of the moments.
        eps: outside the square root.
        weight_decay: decoupled.
        common: foreach, maximize, capturable, as in torch.optim.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **common: Any,
    ) -> None:
        super().__init__(params, locals())

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        given = [getattr(p, "mean_square", None) for p in params]
        squares = [g * g if square is None else square.to(g) for square, g in zip(given, grads, strict=True)]
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
        subtract_(weights, adamw_updates(group, grads, squares, states), group["lr"])
