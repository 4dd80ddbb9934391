"""LAMB: Adam with a trust ratio for each layer (You et al. 2020, arXiv:1904.00962)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor

from disttrain.optim.layerwise import (
    LayerwiseOptimizer,
    bias_corrections,
    check,
    check_betas,
    new_step,
    norms,
    ratio_or_one,
    scale_,
    subtract_,
    wide,
)

PreNormalization = Literal["none", "clip", "always"]


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
        adapt: False, usually in a group of its own, sets the trust ratio to 1: for biases and normalisation.
        record: keep the ratios for :func:`disttrain.optim.layer_ratios`.
        foreach, maximize, capturable, differentiable: as in torch.optim; ``differentiable`` is refused.

    Raises:
        ValueError: an argument is out of range.

    ====================  ===============  =================  ==========  =================
    preset                bias_correction  pre_normalization  phi_bounds  decay-free groups
    ====================  ===============  =================  ==========  =================
    ``LAMB.v1``           True             none               (0, 10)     adapted
    ``LAMB.v3``           False            none               (0, 10)     adapted
    ``LAMB.nvlamb``       True             always             None        adapted
    ``LAMB.apex``         True             clip               None        not adapted
    ``LAMB.timm``         True             clip               None        not adapted
    ``LAMB.mlperf_bert``  True             clip               None        adapted
    ====================  ===============  =================  ==========  =================

    ``timm`` and ``apex`` use eps 1e-6 and betas (0.9, 0.999) as the paper does.
    """

    PRESETS: Mapping[str, Mapping[str, Any]] = {
        "v1": {"bias_correction": True, "phi_bounds": (0.0, 10.0)},
        "v3": {"bias_correction": False, "phi_bounds": (0.0, 10.0)},
        "nvlamb": {"bias_correction": True, "pre_normalization": "always"},
        "apex": {"bias_correction": True, "pre_normalization": "clip", "max_grad_norm": 1.0},
        "timm": {"bias_correction": True, "pre_normalization": "clip", "max_grad_norm": 1.0},
        "mlperf_bert": {"bias_correction": True, "pre_normalization": "clip", "max_grad_norm": 1.0},
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        pre_normalization: PreNormalization = "none",
        max_grad_norm: float = 1.0,
        phi_bounds: tuple[float, float] | None = None,
        trust_clip: float | None = None,
        adapt: bool = True,
        record: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_betas(betas)
        check(eps >= 0.0, f"eps is {eps}; it must be at least 0")
        check(
            pre_normalization in ("none", "clip", "always"),
            f"pre_normalization is {pre_normalization!r}; it must be 'none', 'clip' or 'always'",
        )
        check(max_grad_norm > 0.0, f"max_grad_norm is {max_grad_norm}; it must be above 0")
        check(trust_clip is None or trust_clip > 0.0, f"trust_clip is {trust_clip}; it must be above 0")
        check(
            phi_bounds is None or 0.0 <= phi_bounds[0] < phi_bounds[1],
            f"phi_bounds are {phi_bounds}; expected 0 <= low < high",
        )
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "bias_correction": bias_correction,
                "pre_normalization": pre_normalization,
                "max_grad_norm": max_grad_norm,
                "phi_bounds": phi_bounds,
                "trust_clip": trust_clip,
                "adapt": adapt,
                "record": record,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )
        self._global_norm: Tensor | None = None

    @classmethod
    def preset(cls, name: str, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """The variant called ``name`` in the table above; ``others`` take precedence.

        Raises:
            ValueError: there is no such preset.
        """
        check(name in cls.PRESETS, f"LAMB has no preset {name!r}; there are {', '.join(cls.PRESETS)}")
        optimizer = cls(params, lr, **{**cls.PRESETS[name], **others})
        if name in ("apex", "timm"):
            for group in optimizer.param_groups:
                group["adapt"] = group["adapt"] and group["weight_decay"] != 0.0
        return optimizer

    @classmethod
    def v1(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """The paper's first version: the ratio on Adam's step, with ``phi`` clamped to [0, 10]."""
        return cls.preset("v1", params, lr, **others)

    @classmethod
    def v3(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """The paper's third version: no bias correction."""
        return cls.preset("v3", params, lr, **others)

    @classmethod
    def nvlamb(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """NVIDIA's NVLAMB: the gradient of the whole model is normalised first."""
        return cls.preset("nvlamb", params, lr, **others)

    @classmethod
    def apex(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """apex's FusedLAMB with its defaults."""
        return cls.preset("apex", params, lr, **others)

    @classmethod
    def timm(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """timm's Lamb with its defaults."""
        return cls.preset("timm", params, lr, **others)

    @classmethod
    def mlperf_bert(cls, params: Any, lr: float | Tensor = 1e-3, **others: Any) -> Self:
        """MLPerf Training's BERT reference; clipping after the reduction."""
        return cls.preset("mlperf_bert", params, lr, **others)

    def before_step(self, grads: Sequence[Tensor]) -> None:
        wanted = any(group["pre_normalization"] != "none" for group in self.param_groups)
        self._global_norm = None
        if wanted and grads:
            parts = [torch.linalg.vector_norm(norms([wide(g) for g in alike])) for alike in _by_device(grads)]
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
            if not state:
                state["step"] = new_step(w, group["capturable"])
                state["exp_avg"] = torch.zeros_like(w)
                state["exp_avg_sq"] = torch.zeros_like(w)
        first, second = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1.0)
        factor = self._factor(group)
        if factor is not None:
            grads = list(torch._foreach_mul(grads, factor.to(grads[0])))
        torch._foreach_lerp_(first, grads, 1.0 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1.0 - beta2)
        updates = _adam(group, first, second, steps)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        if group["adapt"] or group["record"]:
            w, u = norms(weights), norms(updates)
            trust = _trust_ratio(group, w, u) if group["adapt"] else torch.ones_like(w)
            if group["adapt"]:
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


def _adam(group: Mapping[str, Any], first: list[Tensor], second: list[Tensor], steps: list[Tensor]) -> list[Tensor]:
    """New tensors ``m^ / (sqrt(v^) + eps)``."""
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


def _trust_ratio(group: Mapping[str, Any], w: Tensor, u: Tensor) -> Tensor:
    bounds, most = group["phi_bounds"], group["trust_clip"]
    phi = w if bounds is None else w.clamp(*bounds)
    ratio = ratio_or_one(phi, u, w, u)
    return ratio if most is None else ratio.clamp(max=most)


def _by_device(grads: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for g in grads:
        groups.setdefault((g.device, g.dtype), []).append(g)
    return list(groups.values())
