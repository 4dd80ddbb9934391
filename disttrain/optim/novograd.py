"""NovoGrad: layer-wise normalised gradients with momentum (Ginsburg et al. 2019, arXiv:1905.11286)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disttrain.optim.layerwise import LayerwiseOptimizer, check, check_betas, new_step, norms, subtract_


class NovoGrad(LayerwiseOptimizer):
    r"""Algorithm 1 of the paper. One second moment, a scalar, for each tensor:

    ``v_1 = ||g_1||^2``, then ``v = beta2 * v + (1 - beta2) * ||g||^2``;
    ``d = g / (sqrt(v) + eps) + weight_decay * w``; ``m_1 = d``, then ``m = beta1 * m + d``; ``w -= lr * m``.

    Args:
        params: parameters, or groups of them; see :func:`disttrain.optim.param_groups`.
        lr: learning rate.
        betas: decay of the moments; the paper's are (0.95, 0.98).
        eps: in the first step too, so that a gradient of zero gives zero and not NaN; the paper writes it from the
            second on.
        weight_decay: inside the first moment, as in the paper.
        grad_averaging: ``m = beta1 * m + (1 - beta1) * d``, an option of the authors' code; off in the paper.
        amsgrad: normalise by the largest ``v`` so far (section 3 of the paper).
        foreach, maximize, capturable, differentiable: as in torch.optim; ``differentiable`` is refused.

    Raises:
        ValueError: an argument is out of range.

    apex's FusedNovoGrad is another algorithm by default: moments of raw gradients, bias correction, decay outside.
    There is no preset for it.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.01,
        *,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_averaging: bool = False,
        amsgrad: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_betas(betas)
        check(eps >= 0.0, f"eps is {eps}; it must be at least 0")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "grad_averaging": grad_averaging,
                "amsgrad": amsgrad,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        beta1, beta2 = group["betas"]
        squares = list(norms(grads).square().unbind())
        for w, square, state in zip(weights, squares, states, strict=True):
            if not state:
                # v_1 is the first square itself, and m_1 the first step itself: what the recurrences make of these.
                state["step"] = new_step(w, group["capturable"])
                state["exp_avg"] = torch.zeros_like(w)
                state["exp_avg_sq"] = square.clone()
                if group["amsgrad"]:
                    state["max_exp_avg_sq"] = square.clone()
        torch._foreach_add_([state["step"] for state in states], 1.0)
        second = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(second, squares, 1.0 - beta2)
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, second)
            second = largest
        denominators = list((torch.stack(second).sqrt() + group["eps"]).unbind())
        steps = list(torch._foreach_div(grads, denominators))
        if group["weight_decay"]:
            torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
        first = [state["exp_avg"] for state in states]
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, steps, alpha=1.0 - beta1 if group["grad_averaging"] else 1.0)
        subtract_(weights, first, group["lr"])
