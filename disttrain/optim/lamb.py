"""LAMB: Adam with a trust ratio for each layer (You et al. 2020, arXiv:1904.00962)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from disttrain.optim.groups import bare_groups
from disttrain.optim.layerwise import (
    LayerwiseOptimizer,
    adapts,
    alike,
    new_step,
    norms,
    ratio_or_one,
    scale_,
    subtract_,
    wide,
)
from disttrain.optim.moments import adam_updates


class LAMB(LayerwiseOptimizer):
    r"""Algorithm 2 of the paper's fifth version, with the older versions and the libraries' variants by arguments.

    ``m`` and ``v`` are Adam's moments of ``g``; ``r = m^ / (sqrt(v^) + eps)``; ``u = r + weight_decay * w``;
    ``w -= lr * phi(||w||) / ||u|| * u``, with the ratio 1 where ``||w||`` or ``||u||`` is zero.

    Args:
        params: parameters, or groups of them; see :func:`disttrain.optim.param_groups`.
        lr: learning rate.
        betas: decay of the moments.
        eps: outside the square root.
        weight_decay: decoupled, but inside the trust ratio, as in the paper.
        bias_correction: ``m^ = m / (1 - beta1^t)``, likewise ``v^``; version 3 leaves it out.
        pre_normalization: of the gradient of *all* parameters together, before the moments: ``always`` divides by its
            norm (NVIDIA's NVLAMB), ``clip`` by ``max(1, norm / max_grad_norm)`` (apex, timm), ``none`` by nothing
            (the paper).
        max_grad_norm: for ``clip``.
        phi_bounds: ``phi(z) = min(max(z, low), high)``; None: the identity, which is what the paper's experiments use.
        trust_clip: the largest trust ratio (LAMBC: Fong et al. 2020, arXiv:2011.13584, use 1).
        shared_steps: a tensor's ``t`` is that of its group, whether it had a gradient in each step or not (apex, timm);
            else the number of steps it took part in.
        adapt: False, usually in a group of its own, sets the trust ratio to 1: for biases and normalisation. "decayed":
            False in groups without weight decay.
        record: keep the ratios for :func:`disttrain.optim.layer_ratios`.
        common: foreach, maximize, capturable, as in torch.optim.

    Raises:
        ValueError: an argument is out of range.

    ========================  ===============  =================  ==========  ==================
    preset                    bias_correction  pre_normalization  phi_bounds  decay-free tensors
    ========================  ===============  =================  ==========  ==================
    ``LAMB.apex``             True             clip               None        not adapted
    ``LAMB.timm``             True             clip               None        not adapted
    ``LAMB.mlperf_bert``      True             clip               None        not adapted
    ``LAMB.nvlamb``           True             always             None        adapted
    ``LAMB.v1``               True             none               (0, 10)     adapted
    ``LAMB.v3``               False            none               (0, 10)     adapted
    ``LAMB.torch_optimizer``  False            none               (0, 10)     adapted
    ========================  ===============  =================  ==========  ==================

    The first three share steps. All use eps 1e-6 and betas (0.9, 0.999) as the paper does, and decay 0.01, but for
    torch_optimizer's 0.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        pre_normalization: Literal["none", "clip", "always"] = "none",
        max_grad_norm: float = 1.0,
        phi_bounds: tuple[float, float] | None = None,
        trust_clip: float | None = None,
        shared_steps: bool = False,
        adapt: bool | Literal["decayed"] = True,
        record: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(params, locals())
        self._global_norm: Tensor | None = None

    @classmethod
    def apex(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """apex's FusedLAMB: its ``use_nvlamb`` is ``adapt=True``."""
        return cls(params, lr, **{"pre_normalization": "clip", "shared_steps": True, "adapt": "decayed", **others})

    @classmethod
    def timm(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """timm's Lamb, which is apex's: its ``always_adapt`` is ``adapt=True``, its ``trust_clip`` is ``trust_clip=1``."""
        return cls.apex(params, lr, **others)

    @classmethod
    def mlperf_bert(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """MLPerf Training's BERT reference, clipping after the reduction: biases and normalisation have no decay and thereby
        no trust ratio. Best given the model; for groups and bare parameters see :func:`disttrain.optim.bare_groups`."""
        return cls.apex(bare_groups(params), lr, **others)

    @classmethod
    def v1(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """The paper's first version: ``phi`` clamped to [0, 10]."""
        return cls(params, lr, **{"phi_bounds": (0.0, 10.0), **others})

    @classmethod
    def v3(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """The paper's third version: no bias correction."""
        return cls.v1(params, lr, **{"bias_correction": False, **others})

    @classmethod
    def nvlamb(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """NVLAMB as NVIDIA's Deep Learning Examples write it: the gradient of the whole model is normalised first."""
        return cls(params, lr, **{"pre_normalization": "always", **others})

    @classmethod
    def torch_optimizer(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """torch_optimizer's Lamb, which calls itself the paper's third version."""
        return cls.v3(params, lr, **{"weight_decay": 0.0, **others})

    def before_step(self, grads: Sequence[Tensor]) -> None:
        for group in self.param_groups:
            counted = [p for p in group["params"] if group["shared_steps"] or p.grad is not None]
            steps = [self.state[p].setdefault("step", new_step(p, group["capturable"])) for p in counted]
            if steps:
                torch._foreach_add_(steps, 1.0)
        wanted = any(group["pre_normalization"] != "none" for group in self.param_groups)
        self._global_norm = None
        if wanted and grads:
            parts = [torch.linalg.vector_norm(norms([wide(g) for g in some])) for some in alike(grads)]
            self._global_norm = torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))

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
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(w)
                state["exp_avg_sq"] = torch.zeros_like(w)
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        steps = [state["step"] for state in states]
        factor = self._factor(group)
        if factor is not None:
            grads = list(torch._foreach_mul(grads, factor.to(grads[0])))
        torch._foreach_lerp_(first, grads, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1.0 - beta2)
        updates = adam_updates(group, first, second, steps)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        adapted = adapts(group)
        if adapted or group["record"]:
            w, u = norms(weights), norms(updates)
            trust = _trust_ratio(group, w, u) if adapted else torch.ones_like(w)
            if adapted:
                scale_(updates, trust)
            if group["record"]:
                self.record(params, trust, group["lr"] * trust * u / w)
        subtract_(weights, updates, group["lr"])

    def _factor(self, group: Mapping[str, Any]) -> Tensor | None:
        """What the gradients are multiplied with first; None: nothing."""
        norm: Tensor | None = self._global_norm
        if norm is None or group["pre_normalization"] == "none":
            return None
        if group["pre_normalization"] == "always":
            return torch.where(norm > 0, 1.0 / norm, torch.ones_like(norm))
        most: float = group["max_grad_norm"]
        return (norm / most).clamp(min=1.0).reciprocal()


def _trust_ratio(group: Mapping[str, Any], w: Tensor, u: Tensor) -> Tensor:
    bounds, most = group["phi_bounds"], group["trust_clip"]
    phi = w if bounds is None else w.clamp(*bounds)
    ratio = ratio_or_one(phi, u, w, u)
    return ratio if most is None else ratio.clamp(max=most)
