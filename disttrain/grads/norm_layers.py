"""Gradients of single samples, of the parameters of normalisation layers: what a backward pass has at hand anyway (Gray et al.
2024, arXiv:2411.00999)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from disttrain.grads.squares import square_norm

__all__ = ["NormLayers"]

_Normalise = Callable[[Any, Tensor], Tensor]


class NormLayers:
    """Squared norms of the per-sample gradients of ``torch.nn.LayerNorm``, ``torch.nn.RMSNorm``, and layers whose class is called
    something with RMSNorm and has a vector ``weight`` and nothing else, as in transformers.

    With ``y = weight * n(x) + bias`` the gradient of one sample's part of the loss is the sum over its rows of ``dL/dy * n(x)``,
    and of ``dL/dy``. A layer that is called several times is counted with the sum of its calls. Between :meth:`watch` and
    :meth:`leave` the inputs of these layers are kept until backward, also where activations are recomputed.

    Samples come first in the input of every such layer, and rows of one sample lie next to each other.

    Args:
        model: it is not changed.
        params: those that count; others are passed over.

    Attributes:
        params: those of ``params`` that belong to such layers, in the model's order.
    """

    def __init__(self, model: nn.Module, params: Iterable[nn.Parameter]) -> None:
        wanted = set(params)
        found = {name: (module, _kind(module)) for name, module in model.named_modules()}
        self._layers = {name: (module, kind) for name, (module, kind) in found.items() if kind is not None}
        owned = [p for module, _ in self._layers.values() for p in module.parameters(recurse=False) if p in wanted]
        self.params = list(dict.fromkeys(owned))
        self._counted = set(self.params)
        self._found: dict[nn.Parameter, list[tuple[str, Tensor]]] = {}
        self._hooks: list[RemovableHandle] = []

    def watch(self) -> None:
        """Look at the forward and backward passes from now on."""
        if not self._hooks:
            self._hooks = [
                module.register_forward_hook(partial(self._forward, name, kind))
                for name, (module, kind) in self._layers.items()
            ]

    def leave(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def clear(self) -> None:
        """Forget what was seen."""
        self._found = {}

    def square_norms(self, samples: int) -> dict[nn.Parameter, Tensor]:
        """Of each of ``params``: the sum over the samples of the squared norm of a sample's gradient, 0-d float64, for the
        backward passes since :meth:`clear`.

        Raises:
            ValueError: the first dimension of an input is no multiple of ``samples``; the message names the layer.
        """
        return {p: square_norm([self._by_sample(p, samples)]).to(p.device) for p in self.params}

    def _by_sample(self, param: nn.Parameter, samples: int) -> Tensor:
        """(samples, elements), the sum of all calls."""
        total = param.new_zeros(samples, param.numel())
        for name, rows in self._found.get(param, []):
            if len(rows) % samples:
                raise ValueError(
                    f"layer {name} gets {len(rows)} rows for {samples} samples; expected samples first, each with as many rows"
                )
            total = total + rows.view(samples, -1, param.numel()).sum(1)
        return total

    def _forward(self, name: str, kind: _Normalise, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(partial(self._backward, name, kind, module, args[0].detach()))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _backward(self, name: str, kind: _Normalise, module: Any, x: Tensor, grad: Tensor) -> None:
        wide = module.weight.dtype
        grad, shape = grad.to(wide), (len(grad), -1, module.weight.numel())
        for param in module.parameters(recurse=False):
            if param in self._counted:
                rows = grad * kind(module, x.to(wide)) if param is module.weight else grad
                self._found.setdefault(param, []).append((name, rows.reshape(shape).sum(1)))


def _kind(module: nn.Module) -> _Normalise | None:
    """How a layer with a weight normalises its input; None: it is no such layer."""
    own = dict(module.named_parameters(recurse=False))
    if "weight" not in own:
        return None
    if type(module).forward is nn.LayerNorm.forward:
        return lambda m, x: F.layer_norm(x, m.normalized_shape, None, None, m.eps)
    if type(module).forward is nn.RMSNorm.forward:
        return lambda m, x: F.rms_norm(x, m.normalized_shape, None, m.eps)
    if "RMSNorm" in type(module).__name__ and list(own) == ["weight"] and own["weight"].dim() == 1:
        return _slope
    return None


def _slope(module: nn.Module, x: Tensor) -> Tensor:
    """``n(x)`` of a layer whose output is ``n(x) * weight`` or ``n(x) * (1 + weight)``: what a weight of 1 adds to it."""
    weight: Any = module.weight
    at = [functional_call(module, {"weight": torch.full_like(weight, value)}, (x,)) for value in (1.0, 0.0)]
    return at[0] - at[1]  # type: ignore[no-any-return]
