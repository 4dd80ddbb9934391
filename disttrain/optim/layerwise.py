"""What the layer-wise optimizers have in common: one step over the groups, in the dtype the arithmetic needs, without
a host synchronisation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Ratios = tuple[list[Tensor], Tensor, Tensor]
"""Parameters, their trust ratios (n,), and the ratios of update to weight (n,)."""


_RANGES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda lr: float(lr) >= 0.0, "at least 0"),
    "momentum": (lambda momentum: 0.0 <= momentum < 1.0, "in [0, 1)"),
    "betas": (lambda betas: all(0.0 <= beta < 1.0 for beta in betas), "two numbers in [0, 1)"),
    "eps": (lambda eps: eps >= 0.0, "at least 0"),
    "weight_decay": (lambda decay: decay >= 0.0, "at least 0"),
    "trust_coefficient": (lambda coefficient: coefficient > 0.0, "above 0"),
    "trust_clip": (lambda most: most is None or most > 0.0, "above 0"),
    "phi_bounds": (lambda bounds: bounds is None or 0.0 <= bounds[0] < bounds[1], "(low, high) with 0 <= low < high"),
    "pre_normalization": (lambda kind: kind in ("none", "clip", "always"), "'none', 'clip' or 'always'"),
    "max_grad_norm": (lambda norm: norm > 0.0, "above 0"),
    "adapt": (lambda adapt: adapt in (True, False, "decayed"), "True, False or 'decayed'"),
    "ns_steps": (lambda steps: steps >= 1, "at least 1"),
    "newton_schulz": (lambda precision: precision in ("full", "bf16"), "'full' or 'bf16'"),
    "differentiable": (lambda on: not on, "False: norms of zero have no gradient"),
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ValueError where an option is out of its range."""
    for name, value in options.items():
        holds, wanted = _RANGES.get(name, (lambda value: True, ""))
        check(holds(value), f"{name} is {value!r}; it must be {wanted}")


def common_options(
    *, foreach: bool | None = None, maximize: bool = False, capturable: bool = False, differentiable: bool = False
) -> dict[str, Any]:
    """What every optimizer here takes besides its own options, with the meaning it has in torch.optim."""
    return locals()


class LayerwiseOptimizer(Optimizer):
    """An optimizer whose update of a tensor depends on norms of that tensor.

    Subclasses give :meth:`update`, and their constructor's ``locals()``, so that an option stands once: those of
    :func:`common_options` under ``common``. Parameters in float16 and bfloat16 are updated, and their state kept, in float32.
    ``p.grad`` is never written to.
    """

    def __init__(self, params: Any, arguments: Mapping[str, Any]) -> None:
        own = {k: v for k, v in arguments.items() if k not in ("self", "params", "common", "__class__")}
        defaults = {**own, **common_options(**arguments["common"])}
        lr = defaults["lr"]
        if isinstance(lr, Tensor):
            check(lr.numel() == 1, f"lr has {lr.numel()} elements; a tensor lr must have one")
            check(
                defaults["capturable"] or defaults["foreach"] is False,
                "a tensor lr needs capturable=True or foreach=False",
            )
        check_options(defaults)
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
        # torch casts the state to the parameters' dtype.
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                dtype = self.state_dtype(name, p)
                if isinstance(value, Tensor) and name != "step" and dtype != p.dtype:
                    self.state[p][name] = value.to(device=p.device, dtype=dtype)

    def state_dtype(self, name: str, p: Tensor) -> torch.dtype:
        """Of the state called ``name`` of ``p``."""
        return wide(p).dtype

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
            for members in alike([p for p in params if p.numel()]):
                self._update_alike(group, members)
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


def adapts(group: Mapping[str, Any]) -> bool:
    """Whether the tensors of ``group`` get a trust ratio; with "decayed", those with weight decay do."""
    return bool(group["weight_decay"] if group["adapt"] == "decayed" else group["adapt"])


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
    if beta and (capturable or torch.compiler.is_compiling()):
        # 1 - 0.999 is off by 5e-5 in the float32 of the counters.
        return [-torch.expm1(t * math.log(beta)) for t in steps]
    return [1.0 - beta ** float(t) for t in steps]


def check(holds: bool, message: str) -> None:
    """Raise ValueError unless ``holds``."""
    if not holds:
        raise ValueError(message)


def check_gradient(p: Tensor, name: str) -> None:
    if p.grad is not None and p.grad.is_sparse:
        raise RuntimeError(f"{name} does not support sparse gradients")
    if torch.is_complex(p):
        raise RuntimeError(f"{name} does not support complex parameters: the norm of a layer would mix both parts")


def alike(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors of one device and dtype each."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return list(groups.values())
