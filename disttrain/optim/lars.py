"""LARS: layer-wise adaptive rate scaling (You, Gitman and Ginsburg 2017, arXiv:1708.03888)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor

from disttrain.optim.groups import bare_groups
from disttrain.optim.layerwise import LayerwiseOptimizer, adapts, check, norms, ratio_or_one, scale_, subtract_


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
            2017, arXiv:1706.02677, remark 3). That is the other form under any schedule, and computed as such: a rate of 0
            does not empty ``v``.
        nesterov: look ahead.
        clip: LARC's mode: ``r = min(r / lr, 1)``, so that no layer's rate exceeds ``lr``; where a norm is zero,
            ``min(1 / lr, 1)``.
        adapt: False, usually in a group of its own, sets ``r`` to 1 (weight decay stays): for biases and normalisation.
            "decayed": False in groups without weight decay.
        record: keep the ratios for :func:`disttrain.optim.layer_ratios`.
        common: foreach, maximize, capturable, as in torch.optim.

    Raises:
        ValueError: an argument is out of range.

    The defaults are those of :meth:`paper` but for its weight decay of 5e-4; :meth:`mlperf` and :meth:`timm` are others'.
    """

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
        adapt: bool | Literal["decayed"] = True,
        record: bool = False,
        **common: Any,
    ) -> None:
        check(not nesterov or momentum > 0.0, "nesterov=True needs momentum above 0")
        check(
            not momentum_correction or (lr_in_momentum and momentum > 0.0),
            "momentum_correction=True needs lr_in_momentum=True and momentum above 0: the other form needs no correction",
        )
        super().__init__(params, locals())

    @classmethod
    def mlperf(cls, params: Any, lr: float | Tensor = 0.1, **others: Any) -> Self:
        """MLPerf Training's reference for ResNet-50: biases and normalisation have neither decay nor ratio. Best given the
        model; for groups and bare parameters see :func:`disttrain.optim.bare_groups`."""
        return cls(bare_groups(params), lr, **{"weight_decay": 1e-4, "adapt": "decayed", **others})

    @classmethod
    def paper(cls, params: Any, lr: float | Tensor = 0.1, **others: Any) -> Self:
        """Algorithm 1 of the paper, with the weight decay of its experiments."""
        return cls(params, lr, **{"weight_decay": 5e-4, **others})

    @classmethod
    def timm(cls, params: Any, lr: float | Tensor = 1.0, **others: Any) -> Self:
        """timm's Lars: its ``trust_clip`` is ``clip``, its ``always_adapt`` is ``adapt=True``."""
        settings = {"momentum": 0.0, "eps": 1e-8, "lr_in_momentum": False, "adapt": "decayed"}
        return cls(params, lr, **{**settings, **others})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            # Earlier versions kept a corrected buffer with the rate inside, beside that rate.
            before = state.pop("previous_lr", None)
            if before is not None and float(before) > 0.0:
                state["momentum_buffer"] /= before

    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        inside = group["lr_in_momentum"] and not group["momentum_correction"]
        ratio = trust_ratio(group, weights, grads) if adapts(group) else None
        steps = list(torch._foreach_add(grads, weights, alpha=decay)) if decay else [g.clone() for g in grads]
        if ratio is not None:
            scale_(steps, ratio)
        if inside:
            torch._foreach_mul_(steps, lr)
        if group["momentum"]:
            steps = _with_momentum(group, steps, states)
        rate = 1.0 if inside else lr
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
    return (ratio / group["lr"]).clamp(max=1.0) if group["clip"] else ratio


def _with_momentum(group: Mapping[str, Any], steps: list[Tensor], states: list[dict[str, Any]]) -> list[Tensor]:
    for step, state in zip(steps, states, strict=True):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(step)
    buffers = [state["momentum_buffer"] for state in states]
    torch._foreach_mul_(buffers, group["momentum"])
    torch._foreach_add_(buffers, steps)
    if not group["nesterov"]:
        return buffers
    return list(torch._foreach_add(steps, buffers, alpha=group["momentum"]))
