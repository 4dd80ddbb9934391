"""Adam's two moments, kept and divided, for the optimizers that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from disttrain.optim.layerwise import bias_corrections, new_step


def adam_updates(
    group: Mapping[str, Any], first: list[Tensor], second: list[Tensor], steps: list[Tensor]
) -> list[Tensor]:
    """New tensors ``m^ / (sqrt(v^) + eps)``, bias-corrected if ``group`` says so."""
    denominators = list(torch._foreach_sqrt(second))
    if not group["bias_correction"]:
        torch._foreach_add_(denominators, group["eps"])
        return list(torch._foreach_div(first, denominators))
    one, two = (bias_corrections(steps, beta, group["capturable"]) for beta in group["betas"])
    torch._foreach_div_(denominators, [c**0.5 for c in two])
    torch._foreach_add_(denominators, group["eps"])
    updates = list(torch._foreach_div(first, denominators))
    torch._foreach_div_(updates, one)
    return updates


def adamw_updates(
    group: Mapping[str, Any], grads: list[Tensor], squares: list[Tensor], states: list[dict[str, Any]]
) -> list[Tensor]:
    """New tensors ``m^ / (sqrt(v^) + eps)``, after ``grads`` went into ``m`` and ``squares`` into ``v``; without decay."""
    for g, state in zip(grads, states, strict=True):
        if "exp_avg" not in state:
            state["step"] = new_step(g, group["capturable"])
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(g), torch.zeros_like(g)
    steps, first, second = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
    torch._foreach_add_(steps, 1.0)
    torch._foreach_lerp_(first, grads, 1.0 - group["betas"][0])
    torch._foreach_lerp_(second, squares, 1.0 - group["betas"][1])
    return adam_updates({**group, "bias_correction": True}, first, second, steps)
