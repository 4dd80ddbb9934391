"""NovoGrad: layer-wise normalised gradients with momentum (Ginsburg et al. 2019, arXiv:1905.11286)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from disttrain.optim.layerwise import LayerwiseOptimizer, new_step, norms, scale_, subtract_


class NovoGrad(LayerwiseOptimizer):
    r"""Algorithm 1 of the paper. One second moment, a scalar, for each tensor:

    ``v_1 = ||g_1||^2``, then ``v = beta2 * v + (1 - beta2) * ||g||^2``;
    ``d = g / (sqrt(v) + eps) + weight_decay * w``; ``m_1 = d``, then ``m = beta1 * m + d``; ``w -= lr * m``.

    While ``v`` is 0, because nothing but gradients of zero was seen, the next gradient is the first (timm and
    torch_optimizer; the paper does not say). ``v`` is in float64: squares of large gradients overflow float32.

    Args:
        params: parameters, or groups of them; see :func:`disttrain.optim.param_groups`.
        lr: learning rate.
        betas: decay of the moments; the paper's are (0.95, 0.98).
        eps: in the first step too, so that a gradient of zero gives zero and not NaN; the paper writes it from the
            second on.
        weight_decay: inside the first moment, as in the paper.
        grad_averaging: ``m = beta1 * m + (1 - beta1) * d``, an option of the authors' code; off in the paper.
        amsgrad: normalise by the largest ``v`` so far (section 3 of the paper).
        common: foreach, maximize, capturable, as in torch.optim.

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
        **common: Any,
    ) -> None:
        super().__init__(params, locals())

    def state_dtype(self, name: str, p: Tensor) -> torch.dtype:
        return torch.float64 if name.endswith("exp_avg_sq") else super().state_dtype(name, p)

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        beta1, beta2 = group["betas"]
        for w, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = new_step(w, group["capturable"])
                state["exp_avg"] = torch.zeros_like(w)
                for name in ("exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else ("exp_avg_sq",):
                    state[name] = torch.zeros((), dtype=torch.float64, device=w.device)
        torch._foreach_add_([state["step"] for state in states], 1.0)
        # In units of the largest element, whose squares float32 can hold.
        peaks = torch.stack(torch._foreach_norm(grads, torch.inf))
        peaks = torch.where(peaks == 0.0, torch.ones_like(peaks), peaks)
        steps = list(torch._foreach_div(grads, list(peaks.unbind())))
        squares = (peaks.double() * norms(steps)).square()
        before = torch.stack([state["exp_avg_sq"] for state in states])
        second = torch.where(before == 0.0, squares, before.lerp(squares, 1.0 - beta2))
        torch._foreach_copy_([state["exp_avg_sq"] for state in states], list(second.unbind()))
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, list(second.unbind()))
            second = torch.stack(largest)
        scale_(steps, (peaks / (second.sqrt() + group["eps"])).to(peaks.dtype))
        if group["weight_decay"]:
            torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
        first = [state["exp_avg"] for state in states]
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, steps, alpha=1.0 - beta1 if group["grad_averaging"] else 1.0)
        subtract_(weights, first, group["lr"])
