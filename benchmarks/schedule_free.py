"""Schedule-free AdamW for the fair table: no decay of the rate, an average of the weights in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class ScheduleFreeAdamW(torch.optim.Optimizer):
    r"""Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682): gradients are taken at ``y``, steps made by ``z``, and the
    result is ``x``, the mean of all ``z``, each weighted by the square of the largest rate so far.

    .. code-block:: text

        v = beta2 * v + (1 - beta2) * g^2
        z = z - lr * (g / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * y)
        x = x + c * (z - x)          c = lr_max^2 / sum of all lr_max^2
        y = beta1 * x + (1 - beta1) * z

    Adam's correction of ``v`` stands at ``v``, as in the authors' package; the paper has its root in ``lr``, where it would
    also weigh the average: with beta2 0.98, for most of the 70 updates of the table's shortest run.

    Args:
        params: parameters or groups; they hold ``y``, and ``x`` from update ``last`` on.
        lr: what a warmup has made of it; without decay.
        betas: weight of ``x`` in ``y``; decay of the mean squared gradient.
        eps: outside the square root.
        weight_decay: decoupled, of ``y``.
        last: number of the last update.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.0025,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        last: int,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "last": last})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; gradients are left as they are."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(group, p, p.grad)
        return loss

    def _update(self, group: dict[str, Any], p: Tensor, grad: Tensor) -> None:
        if not (state := self.state[p]):
            state.update(step=0, lr_max=0.0, weights=0.0, v=torch.zeros_like(p), z=p.clone(), x=p.clone())
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        state["step"] += 1
        state["lr_max"] = max(state["lr_max"], lr)
        state["weights"] += state["lr_max"] ** 2
        v, z, x = state["v"], state["z"], state["x"]
        v.lerp_(grad * grad, 1.0 - beta2)
        root = (v / (1.0 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        z.sub_(grad / root + group["weight_decay"] * p, alpha=lr)
        # A warmup begins at a rate of 0: nothing has moved yet.
        x.lerp_(z, state["lr_max"] ** 2 / state["weights"] if state["weights"] else 1.0)
        p.copy_(x if state["step"] >= group["last"] else torch.lerp(z, x, beta1))
