"""Clipping of gradients, in place and without making the host wait for the device.

Every function returns the global 2-norm of the gradients before clipping, a scalar on their device. Clip the mean
gradient of the global batch: after the reduction and after unscaling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from disttrain.grads.squares import norms

__all__ = ["clip_adaptive", "clip_norm", "clip_per_layer", "clip_value", "global_norm", "gradients", "per_layer_norms"]

_PLAIN = (1.0, 2.0, float("inf"))
"""Norms that are taken as torch takes them."""


def gradients(params: Iterable[nn.Parameter]) -> list[Tensor]:
    """``p.grad`` of every parameter that has one, in order."""
    return [p.grad for p in params if p.grad is not None]


def global_norm(params: Iterable[nn.Parameter]) -> Tensor:
    """``sqrt(sum ||g||^2)`` over all gradients together; 0 where there are none."""
    norms = per_layer_norms(params)
    return torch.linalg.vector_norm(norms)  # type: ignore[no-any-return]


def per_layer_norms(params: Iterable[nn.Parameter], norm_type: float = 2.0) -> Tensor:
    """(n,) the norms of the n gradients there are, in their order, as one tensor."""
    found = gradients(params)
    if not found:
        return torch.zeros(0)
    if norm_type == 2.0:
        return torch.stack(norms(found))
    if norm_type in _PLAIN:
        return torch.stack(torch._foreach_norm(found, norm_type))
    # In units of the largest element: the p-th power of a gradient is soon 0 or infinite in float32.
    peaks = _or_one(torch.stack(torch._foreach_norm(found, torch.inf)))
    return peaks * torch.stack(torch._foreach_norm(torch._foreach_div(found, list(peaks.unbind())), norm_type))


def _joined(norms: Tensor, norm_type: float) -> Tensor:
    """The norm of all tensors together from those of each, likewise."""
    peak = _or_one(norms.amax()) if norm_type not in _PLAIN else 1.0
    return peak * torch.linalg.vector_norm(norms / peak, norm_type)  # type: ignore[no-any-return]


def _or_one(peaks: Tensor) -> Tensor:
    return torch.where(peaks == 0.0, torch.ones_like(peaks), peaks)


def clip_norm(params: Sequence[nn.Parameter], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """``g *= min(1, max_norm / (||g||_p + 1e-6))`` for all gradients together (Pascanu et al. 2013, arXiv:1211.5063);
    the 1e-6 is torch's. ``norm_type`` is p, at least 1; ``inf`` is the largest element."""
    norm, found = global_norm(params), gradients(params)
    if found:
        measured = norm if norm_type == 2.0 else _joined(per_layer_norms(params, norm_type), norm_type)
        torch._foreach_mul_(found, torch.clamp(max_norm / (measured + 1e-6), max=1.0))
    return norm


def clip_value(params: Sequence[nn.Parameter], max_value: float) -> Tensor:
    """``g = min(max(g, -max_value), max_value)`` for every element, in place, as ``torch.nn.utils.clip_grad_value_``.

    Returns:
        The global norm before clipping, a scalar on the device.
    """
    norm, found = global_norm(params), gradients(params)
    if found:
        torch._foreach_clamp_max_(found, max_value)
        torch._foreach_clamp_min_(found, -max_value)
    return norm


def clip_per_layer(params: Sequence[nn.Parameter], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """``g *= min(1, max_norm / (||g||_p + 1e-6))`` for each tensor by itself; ``norm_type`` is p."""
    norms, found = per_layer_norms(params), gradients(params)
    if found:
        measured = norms if norm_type == 2.0 else per_layer_norms(params, norm_type)
        torch._foreach_mul_(found, list(torch.clamp(max_norm / (measured + 1e-6), max=1.0).unbind()))
    return torch.linalg.vector_norm(norms)  # type: ignore[no-any-return]


def clip_adaptive(params: Sequence[nn.Parameter], clipping: float, eps: float = 1e-3) -> Tensor:
    """Adaptive gradient clipping (Brock et al. 2021, arXiv:2102.06171, eq. 3): the gradient of each unit, a row of
    the weights, gets a norm of at most ``clipping * max(||w||, eps)``.

    A unit is an output: ``w[i]`` for a matrix or a convolution; vectors and scalars are one unit. The paper leaves the
    classifier out; leave it out of ``params`` to do so.
    """
    norm = global_norm(params)
    for p in params:
        if p.grad is not None:
            most = clipping * _unit_norms(p.detach()).clamp(min=eps)
            # The tiny floor keeps a gradient of zero from making 0 / 0.
            p.grad.mul_((most / _unit_norms(p.grad).clamp(min=1e-6)).clamp(max=1.0))
    return norm


def _unit_norms(x: Tensor) -> Tensor:
    if x.ndim <= 1:
        return torch.linalg.vector_norm(x)  # type: ignore[no-any-return]
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)  # type: ignore[no-any-return]
