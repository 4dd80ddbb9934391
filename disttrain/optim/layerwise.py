"""What the layer-wise optimizers have in common: one step over the groups, in the dtype the arithmetic needs, without
a host synchronisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Ratios = tuple[list[Tensor], Tensor, Tensor]
"""Parameters, their trust ratios (n,), and the ratios of update to weight (n,)."""


class LayerwiseOptimizer(Optimizer):
    """An optimizer whose update of a tensor depends on norms of that tensor.

    Subclasses give :meth:`update`. Parameters in float16 and bfloat16 are updated, and their state kept, in float32.
    ``p.grad`` is never written to.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        lr, weight_decay = defaults["lr"], defaults["weight_decay"]
        check(float(lr) >= 0.0, f"lr is {lr}; it must be at least 0")
        check(weight_decay >= 0.0, f"weight_decay is {weight_decay}; it must be at least 0")
        check(not defaults["differentiable"], "differentiable=True is not supported: norms of zero have no gradient")
        if isinstance(lr, Tensor):
            check(lr.numel() == 1, f"lr has {lr.numel()} elements; a tensor lr must have one")
            check(
                defaults["capturable"] or defaults["foreach"] is False,
                "a tensor lr needs capturable=True or foreach=False",
            )
        self.ratios: list[Ratios] = []
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.ratios = []
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        super().load_state_dict(state_dict)
        # torch casts the state to the parameters' dtype; that of narrow ones is float32.
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(saved, params, strict=True):
            if p.dtype in (torch.float16, torch.bfloat16):
                for name, value in state_dict["state"].get(i, {}).items():
                    if isinstance(value, Tensor) and name != "step":
                        self.state[p][name] = value.to(device=p.device, dtype=torch.float32)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: evaluates the model anew and returns the loss.

        Raises:
            RuntimeError: a gradient is sparse, or a parameter complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.ratios = []
        work = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        for _, params in work:
            for p in params:
                check_gradient(p, type(self).__name__)
        self.before_step([p.grad for _, params in work for p in params if p.grad is not None])
        for group, params in work:
            # Tensors of one device and dtype travel together through the foreach kernels.
            for alike in _alike(params):
                self._update_alike(group, alike)
        return loss

    def _update_alike(self, group: dict[str, Any], params: list[Tensor]) -> None:
        grads = [wide(p.grad) for p in params]  # type: ignore[arg-type]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        weights = [wide(p) for p in params]
        states = [self.state[p] for p in params]
        many = group["foreach"] if group["foreach"] is not None else len(params) > 1
        if many:
            self.update(group, weights, grads, states, params)
        else:
            for w, g, s, p in zip(weights, grads, states, params, strict=True):
                self.update(group, [w], [g], [s], [p])
        if weights[0] is not params[0]:
            torch._foreach_copy_(params, weights)

    def before_step(self, grads: Sequence[Tensor]) -> None:
        """Called with all gradients of all groups before the first update."""

    @abstractmethod
    def update(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        grads: list[Tensor],
        states: list[dict[str, Any]],
        params: list[Tensor],
    ) -> None:
        """Update ``weights`` in place.

        Args:
            weights, grads: float32 or float64, alike; ``grads`` may be the parameters' own and must not be changed.
            states: theirs, possibly empty yet.
            params: the parameters themselves, to record ratios under.
        """

    def record(self, params: list[Tensor], trust: Tensor, update_to_weight: Tensor) -> None:
        """Keep the ratios of this step for :func:`layer_ratios`."""
        self.ratios.append((params, trust, update_to_weight))


def layer_ratios(optimizer: Optimizer) -> dict[str, Tensor]:
    """``trust_ratio`` and ``update_to_weight`` (the norm of the latest update over that of the weights) of each
    parameter, in the order of ``param_groups``: two tensors ``(n,)`` on the device, so that a log costs one
    synchronisation and not one per layer.

    Parameters without a gradient, and all of them before the first step or without ``record=True``, have NaN.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    where = {id(p): i for i, p in enumerate(params)}
    device = params[0].device
    found = {name: torch.full((len(params),), torch.nan, device=device) for name in ("trust_ratio", "update_to_weight")}
    for owners, trust, relative in getattr(optimizer, "ratios", []):
        index = torch.tensor([where[id(p)] for p in owners], device=device)
        found["trust_ratio"][index] = trust.float()
        found["update_to_weight"][index] = relative.float()
    return found


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """(n,) 2-norms."""
    return torch.stack(torch._foreach_norm(list(tensors)))


def ratio_or_one(above: Tensor, below: Tensor, weights: Tensor, others: Tensor) -> Tensor:
    """``above / below``, and 1 where ``weights`` or ``others``, norms, are zero."""
    return torch.where((weights > 0) & (others > 0), above / below, torch.ones_like(above))


def scale_(tensors: list[Tensor], factors: Tensor) -> None:
    """Each tensor times its own factor, in place."""
    torch._foreach_mul_(tensors, list(factors.unbind()))


def subtract_(weights: list[Tensor], updates: list[Tensor], lr: float | Tensor) -> None:
    """``w -= lr * u``; ``lr`` may be a tensor."""
    if isinstance(lr, Tensor):
        torch._foreach_sub_(weights, torch._foreach_mul(updates, lr))
    else:
        torch._foreach_add_(weights, updates, alpha=-lr)


def wide(tensor: Tensor) -> Tensor:
    """float32 or float64: a copy of float16 and bfloat16, anything else itself."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def new_step(param: Tensor, capturable: bool) -> Tensor:
    """A step counter: on the CPU, where reading it waits for nothing, unless a CUDA graph is to hold it."""
    return torch.zeros((), dtype=torch.float32, device=param.device if capturable else "cpu")


def bias_corrections(steps: Sequence[Tensor], beta: float, capturable: bool) -> list[Any]:
    """``1 - beta ** t`` of each step counter; numbers where they lie on the CPU, else tensors."""
    if capturable or torch.compiler.is_compiling():
        return [1.0 - beta**t for t in steps]
    return [1.0 - beta ** float(t) for t in steps]


def check(holds: bool, message: str) -> None:
    """Raise ValueError unless ``holds``."""
    if not holds:
        raise ValueError(message)


def check_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError unless both lie in [0, 1)."""
    check(all(0.0 <= beta < 1.0 for beta in betas), f"betas are {betas}; each must be in [0, 1)")


def check_gradient(p: Tensor, name: str) -> None:
    if p.grad is not None and p.grad.is_sparse:
        raise RuntimeError(f"{name} does not support sparse gradients")
    if torch.is_complex(p):
        raise RuntimeError(f"{name} does not support complex parameters: the norm of a layer would mix both parts")


def _alike(params: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for p in params:
        groups.setdefault((p.device, p.dtype), []).append(p)
    return list(groups.values())
