"""Muon: momentum made orthogonal, and AdamW for what is no matrix (Jordan et al. 2024; Liu et al. 2025, arXiv:2502.16982)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from disttrain.optim.layerwise import LayerwiseOptimizer, subtract_
from disttrain.optim.matrices import is_matrix
from disttrain.optim.moments import adamw_updates

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's quintic: five steps bring singular values between 0.01 and 1 to between 0.7 and 1.2."""
_LEAST_NORM = 1e-7
"""A matrix of a smaller norm is divided by this, so that a gradient of zero gives zero."""


class Muon(LayerwiseOptimizer):
    r"""Muon with weight decay and AdamW's size of update, as "Muon is Scalable for LLM Training" has it.

    For a matrix of m rows and n columns (convolution kernels flattened to one row for each output):
    ``b = momentum * b + (1 - momentum) * g``; ``u = momentum * b + (1 - momentum) * g`` with ``nesterov``, else ``b``;
    ``w -= lr * weight_decay * w``; ``w -= lr * 0.2 * sqrt(max(m, n)) * orthogonal(u)``.

    ``orthogonal`` takes the singular values of ``u / ||u||`` near 1 by ``ns_steps`` of Newton-Schulz iteration,
    ``x = a * x + b * (x x^T) x + c * (x x^T)^2 x``. The factor gives each element the mean square that AdamW's
    updates typically have, 0.2^2, so that one rate and one decay serve both.

    All else is updated by AdamW with the same rate: vectors, matrices with a single row or column, and groups with
    ``orthogonal=False``, which embeddings and the head should be in.

    Args:
        params: parameters, or groups of them. Best: ``param_groups(model, settings=lambda p: {"orthogonal": p in hidden})`` with
            ``hidden`` from :func:`disttrain.optim.hidden_matrices`.
        lr: learning rate, of AdamW's size.
        momentum: of matrices; the mean is weighted, which the iteration does not see.
        nesterov: look ahead, as all published results do.
        weight_decay: decoupled, of all.
        ns_steps: of Newton-Schulz.
        newton_schulz: ``full`` iterates in the precision of the arithmetic, float32 or float64; ``bf16`` as Jordan and torch do,
            faster on accelerators, but the rounding of a gradient that was added up in another order grows to 1 %.
        betas, eps: AdamW's.
        orthogonal: False, usually in a group of its own: AdamW for matrices too.
        common: foreach (matrices of one shape are iterated together), maximize, capturable, as in torch.optim.

    Raises:
        ValueError: an argument is out of range.

    A weight that holds several maps, such as ``nn.MultiheadAttention.in_proj_weight``, is orthogonalised as one matrix.
    torch.optim.Muon is this for matrices alone, with ``adjust_lr_fn="match_rms_adamw"`` and bfloat16.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        ns_steps: int = 5,
        newton_schulz: Literal["full", "bf16"] = "full",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        orthogonal: bool = True,
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
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - group["lr"] * group["weight_decay"])
        chosen = [bool(group["orthogonal"]) and is_matrix(w) for w in weights]
        for matrices, direction in ((True, _orthogonal), (False, _adamw)):
            of = [i for i, matrix in enumerate(chosen) if matrix == matrices]
            if of:
                updates = direction(group, [grads[i] for i in of], [states[i] for i in of])
                subtract_([weights[i] for i in of], updates, group["lr"])


def orthogonalised(matrices: Sequence[Tensor], steps: int, precision: Literal["full", "bf16"]) -> list[Tensor]:
    """The orthogonal factor of each, roughly: singular values near 1, by Newton-Schulz iteration. Those of one shape go
    through it together. Each keeps its shape; dimensions after the first count as one."""
    shapes: dict[torch.Size, list[int]] = {}
    flat = [matrix.flatten(1) for matrix in matrices]
    for i, matrix in enumerate(flat):
        shapes.setdefault(matrix.shape, []).append(i)
    found = list(matrices)
    for members in shapes.values():
        several = torch.stack([flat[i] for i in members])
        for i, result in zip(members, _newton_schulz(several, steps, precision), strict=True):
            found[i] = result.reshape(matrices[i].shape)
    return found


def _newton_schulz(x: Tensor, steps: int, precision: Literal["full", "bf16"]) -> Tensor:
    """(k, m, n)."""
    a, b, c = _COEFFICIENTS
    tall, dtype = x.shape[1] > x.shape[2], x.dtype
    # Squares of large gradients overflow float32.
    norms = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=torch.float64).clamp(min=_LEAST_NORM)
    x = (x / norms.to(dtype)).to(torch.bfloat16 if precision == "bf16" else dtype)
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(dtype)


def _orthogonal(group: dict[str, Any], grads: list[Tensor], states: list[dict[str, Any]]) -> list[Tensor]:
    for g, state in zip(grads, states, strict=True):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(g)
    means = [state["momentum_buffer"] for state in states]
    torch._foreach_lerp_(means, grads, 1.0 - group["momentum"])
    ahead = list(torch._foreach_lerp(grads, means, group["momentum"])) if group["nesterov"] else means
    updates = orthogonalised(ahead, group["ns_steps"], group["newton_schulz"])
    return list(torch._foreach_mul(updates, [0.2 * max(len(u), u.numel() // len(u)) ** 0.5 for u in updates]))


def _adamw(group: dict[str, Any], grads: list[Tensor], states: list[dict[str, Any]]) -> list[Tensor]:
    return adamw_updates(group, grads, list(torch._foreach_mul(grads, grads)), states)
