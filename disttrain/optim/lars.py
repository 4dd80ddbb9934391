"""LARS: layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv:1708.03888)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from disttrain.optim.layerwise import LayerwiseOptimizer, check, norms, ratio_or_one, scale_, subtract_


class LARS(LayerwiseOptimizer):
    r"""SGD with momentum whose step is, layer by layer, a fixed share of the weights' norm.

    With ``r = trust_coefficient * ||w|| / (||g|| + weight_decay * ||w|| + eps)`` (eq. 6 with decay; 1 where a norm is zero) and
    ``d = r * (g + weight_decay * w)``:

    - ``lr_in_momentum=True`` (algorithm 1 of the paper, and MLPerf): ``v = momentum * v + lr * d``, ``w -= v``;
    - ``lr_in_momentum=False`` (as torch's SGD, and LARS in torch libraries): ``v = momentum * v + d``, ``w -= lr * v``.

    The two are the same while ``lr`` is constant and differ visibly under a decaying one. With ``nesterov``, ``w -=
    momentum * v + lr * d``, or ``w -= lr * (momentum * v + d)``.

    Args:
        params: parameters, or groups of them; see :func:`disttrain.optim.param_groups`.
        lr: learning rate.
        momentum: 0 keeps no buffer.
        weight_decay: part of the gradient, inside the trust ratio.
        trust_coefficient: the paper's eta.
        eps: added to the denominator; the paper has none.
        lr_in_momentum: where the learning rate goes.
        momentum_correction: with ``lr_in_momentum``, ``v`` is first scaled by ``lr / previous lr`` (Goyal et al.
            2017, arXiv:1706.02677, remark 3), which makes the two forms equal under any schedule.
        nesterov: look ahead.
        clip: LARC's mode: ``r = min(r / lr, 1)``, so that no layer's rate exceeds ``lr``.
        adapt: False, usually in a group of its own, sets ``r`` to 1 (weight decay stays): for biases and normalisation.
        record: keep the ratios for :func:`disttrain.optim.layer_ratios`.
        foreach, maximize, capturable, differentiable: as in torch.optim; ``differentiable`` is refused.

    Raises:
        ValueError: an argument is out of range.

    ======================  ======  =========
    preset                  eps     lr_in_momentum
    ======================  ======  =========
    ``LARS.paper``          0       True
    ``LARS.mlperf``         0       True
    ``LARS.timm``           1e-8    False
    ======================  ======  =========

    ``mlperf`` sets momentum 0.9 and trust coefficient 0.001 besides, which are the paper's too; ``timm`` gives groups
    whose weight decay is 0 no trust ratio.
    """

    PRESETS: Mapping[str, Mapping[str, Any]] = {
        "paper": {"momentum": 0.9, "trust_coefficient": 0.001, "eps": 0.0, "lr_in_momentum": True},
        "mlperf": {"momentum": 0.9, "trust_coefficient": 0.001, "eps": 0.0, "lr_in_momentum": True},
        "timm": {"momentum": 0.9, "trust_coefficient": 0.001, "eps": 1e-8, "lr_in_momentum": False},
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.1,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        eps: float = 0.0,
        lr_in_momentum: bool = True,
        momentum_correction: bool = False,
        nesterov: bool = False,
        clip: bool = False,
        adapt: bool = True,
        record: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        check(0.0 <= momentum < 1.0, f"momentum is {momentum}; it must be in [0, 1)")
        check(trust_coefficient > 0.0, f"trust_coefficient is {trust_coefficient}; it must be above 0")
        check(eps >= 0.0, f"eps is {eps}; it must be at least 0")
        check(not nesterov or momentum > 0.0, "nesterov=True needs momentum above 0")
        check(
            not momentum_correction or (lr_in_momentum and momentum > 0.0),
            "momentum_correction=True needs lr_in_momentum=True and momentum above 0: the other form needs no correction",
        )
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "eps": eps,
                "lr_in_momentum": lr_in_momentum,
                "momentum_correction": momentum_correction,
                "nesterov": nesterov,
                "clip": clip,
                "adapt": adapt,
                "record": record,
                "foreach": foreach,
                "maximize": maximize,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    @classmethod
    def paper(cls, params: Any, lr: float | Tensor = 0.1, **others: Any) -> Self:
        """Algorithm 1 of the paper."""
        return cls(params, lr, **{**cls.PRESETS["paper"], **others})

    @classmethod
    def mlperf(cls, params: Any, lr: float | Tensor = 0.1, **others: Any) -> Self:
        """MLPerf Training's reference for ResNet-50. Give biases and batch norm a group with ``adapt=False`` and no decay."""
        return cls(params, lr, **{**cls.PRESETS["mlperf"], **others})

    @classmethod
    def timm(cls, params: Any, lr: float | Tensor = 1.0, **others: Any) -> Self:
        """timm's Lars, with momentum 0.9 (its own default is none): groups without weight decay get no trust ratio."""
        optimizer = cls(params, lr, **{**cls.PRESETS["timm"], **others})
        for group in optimizer.param_groups:
            group["adapt"] = group["adapt"] and group["weight_decay"] != 0.0
        return optimizer

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        ratio = trust_ratio(group, weights, grads) if group["adapt"] else None
        steps = list(torch._foreach_add(grads, weights, alpha=decay)) if decay else [g.clone() for g in grads]
        if ratio is not None:
            scale_(steps, ratio)
        if group["lr_in_momentum"]:
            torch._foreach_mul_(steps, lr)
        if momentum:
            steps = _with_momentum(group, steps, states)
        rate = 1.0 if group["lr_in_momentum"] else lr
        if group["record"]:
            sizes = norms(weights)
            trust = torch.ones_like(sizes) if ratio is None else ratio
            self.record(params, trust, rate * norms(steps) / sizes)
        subtract_(weights, steps, rate)


def trust_ratio(group: Mapping[str, Any], weights: list[Tensor], grads: list[Tensor]) -> Tensor:
    """(n,) ``trust_coefficient * ||w|| / (||g|| + weight_decay * ||w|| + eps)``, 1 where a norm is zero; with
    ``clip``, that over ``lr`` and at most 1."""
    w, g = norms(weights), norms(grads)
    ratio = ratio_or_one(group["trust_coefficient"] * w, g + group["weight_decay"] * w + group["eps"], w, g)
    if group["clip"]:
        # A layer without a ratio keeps its 1: it moves with the plain learning rate.
        ratio = torch.where((w > 0) & (g > 0), (ratio / group["lr"]).clamp(max=1.0), ratio)
    return ratio


def _with_momentum(group: Mapping[str, Any], steps: list[Tensor], states: list[dict[str, Any]]) -> list[Tensor]:
    momentum = group["momentum"]
    for step, state in zip(steps, states, strict=True):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(step)
    buffers = [state["momentum_buffer"] for state in states]
    if group["momentum_correction"]:
        _correct(group, buffers, states)
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, steps)
    if not group["nesterov"]:
        return buffers
    return list(torch._foreach_add(steps, buffers, alpha=momentum))


def _correct(group: Mapping[str, Any], buffers: list[Tensor], states: list[dict[str, Any]]) -> None:
    lr = group["lr"]
    factors: list[Any] = []
    for state in states:
        before = state.get("previous_lr", lr)
        if isinstance(lr, Tensor) or isinstance(before, Tensor):
            before = torch.as_tensor(before)
            factors.append(torch.where(before > 0, lr / before, torch.ones_like(before)))
        else:
            factors.append(lr / before if before > 0.0 else 1.0)
    torch._foreach_mul_(buffers, factors)
    for state in states:
        state["previous_lr"] = lr.clone() if isinstance(lr, Tensor) else lr
