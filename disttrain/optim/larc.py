"""LARC: LARS's trust ratio in front of any optimizer (the mode "clip" keeps a layer's rate at or below the
optimizer's)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from disttrain.optim.lars import trust_ratio
from disttrain.optim.layerwise import Ratios, check_gradient, check_options, scale_, wide


class LARC(Optimizer):
    """Gives ``optimizer``, for each parameter, the gradient ``r * (g + weight_decay * w)`` in the place of ``g`` and
    takes weight decay on itself.

    ``r = trust_coefficient * ||w|| / (||g|| + weight_decay * ||w|| + eps)``; with ``clip``, ``min(r / lr, 1)``, so that the
    layer's effective rate is ``min(r, lr)`` (You, Gitman and Ginsburg 2017, arXiv:1708.03888; the clipped form is NVIDIA's).
    Where a norm is zero ``r`` is 1, before the clip. Groups with ``adapt=False`` are left as they are. ``p.grad`` and
    ``weight_decay`` are what they were after each step, also when it fails.

    A GradScaler unscales the gradients and skips overflows itself, also where the optimizer is fused and could: the ratio
    needs true gradients.

    Settings and defaults are those of apex's LARC, which is :meth:`apex` in full.

    Args:
        optimizer: any torch optimizer; its groups and its state are shared, so schedulers and checkpoints may use
            either.
        trust_coefficient: LARS's paper uses 0.001.
        eps: in the denominator.
        clip: see above.
        bare_at_zero: where a norm is zero, leave the gradient alone at any ``lr`` and drop the weight decay.

    Raises:
        ValueError: an argument is out of range.

    Examples:
        >>> layer = torch.nn.Linear(4, 2)
        >>> optimizer = LARC(torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4))
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> _ = optimizer.step()
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        trust_coefficient: float = 0.02,
        eps: float = 1e-8,
        clip: bool = True,
        bare_at_zero: bool = False,
    ) -> None:
        check_options({"trust_coefficient": trust_coefficient, "eps": eps})
        self.optimizer = optimizer
        self.trust_coefficient, self.eps, self.clip, self.bare_at_zero = trust_coefficient, eps, clip, bare_at_zero
        self.ratios: list[Ratios] = []
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self._share(optimizer)
        optimizer.register_load_state_dict_post_hook(self._share)

    def __reduce__(self) -> tuple[Any, ...]:
        # torch's keeps groups and state only. Made anew, a copy shares those of its own wrapped optimizer again.
        names = ("trust_coefficient", "eps", "clip", "bare_at_zero")
        return partial(type(self), **{name: getattr(self, name) for name in names}), (self.optimizer,)

    @classmethod
    def apex(cls, optimizer: Optimizer, **others: Any) -> Self:
        """apex's LARC with its defaults."""
        return cls(optimizer, **{"bare_at_zero": True, **others})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step of the wrapped optimizer on adapted gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._adapted():
            self.optimizer.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the wrapped optimizer."""
        # While torch's constructor runs, the list is one of its own, and the groups are in the wrapped one already.
        if self.param_groups is self.optimizer.param_groups:
            self.optimizer.add_param_group(param_group)
        else:
            super().add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimizer's."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the wrapped optimizer."""
        self.optimizer.load_state_dict(state_dict)

    def _share(self, optimizer: Optimizer) -> None:
        self.param_groups, self.state = optimizer.param_groups, optimizer.state

    @contextmanager
    def _adapted(self) -> Iterator[None]:
        before: list[tuple[Tensor, Tensor]] = []
        decays = [group.get("weight_decay", 0.0) for group in self.param_groups]
        self.ratios = []
        try:
            for group, decay in zip(self.param_groups, decays, strict=True):
                if not group.get("adapt", True):
                    continue
                params = [p for p in group["params"] if p.grad is not None]
                before += [(p, p.grad) for p in params]
                self._adapt(group, decay, params)
                if "weight_decay" in group:
                    group["weight_decay"] = 0.0
            yield
        finally:
            for p, grad in before:
                p.grad = grad
            for group, decay in zip(self.param_groups, decays, strict=True):
                if "weight_decay" in group:
                    group["weight_decay"] = decay

    @torch.no_grad()
    def _adapt(self, group: dict[str, Any], decay: float, params: list[Tensor]) -> None:
        if not params:
            return
        settings = {
            "trust_coefficient": self.trust_coefficient,
            "eps": self.eps,
            "clip": self.clip,
            "lr": group["lr"],
            "weight_decay": decay,
        }
        for p in params:
            check_gradient(p, "LARC")
        weights, grads = [wide(p) for p in params], [wide(p.grad) for p in params]  # type: ignore[arg-type]
        adapted = list(torch._foreach_add(grads, weights, alpha=-decay if group.get("maximize") else decay))
        scale_(adapted, trust_ratio(settings, weights, grads))
        if self.bare_at_zero:
            zero = [(w.norm() == 0) | (g.norm() == 0) for w, g in zip(weights, grads, strict=True)]
            adapted = [torch.where(z, g, a) for z, g, a in zip(zero, grads, adapted, strict=True)]
        for p, grad in zip(params, adapted, strict=True):
            p.grad = grad.to(p.dtype)
