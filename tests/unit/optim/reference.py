"""The optimizers in float64 numpy, written from the papers, one tensor at a time, as plainly as can be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Gradient = Callable[[int, int, Array], Array | None]
"""(step from 0, index of the tensor, weights) -> gradient; None: the tensor takes no part in this step."""

Store = Callable[[Array], Array]
"""What is left of weights when they are stored: the rounding of a narrow dtype."""


def exactly(w: Array) -> Array:
    return w


def norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


def lars(
    weights: Sequence[Array],
    gradient: Gradient,
    rates: Sequence[float],
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
    excluded: Collection[int] = (),
    store: Store = exactly,
) -> list[Array]:
    """You, Gitman and Ginsburg 2017, algorithm 1; the other form is torch's SGD on the adapted gradient. ``excluded``
    tensors have neither decay nor ratio."""
    found, settings = [], (weight_decay, adapt)
    for i, start in enumerate(weights):
        weight_decay, adapt = (0.0, False) if i in excluded else settings
        w, v, before = start.copy(), np.zeros_like(start), None
        for t, lr in enumerate(rates):
            g = gradient(t, i, w)
            if g is None:
                continue
            ratio = 1.0
            if adapt and norm(w) > 0 and norm(g) > 0:
                ratio = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w) + eps)
            if adapt and clip:
                ratio = min(ratio / lr, 1.0)
            d = ratio * (g + weight_decay * w)
            if lr_in_momentum:
                factor = lr / before if momentum_correction and before is not None else 1.0
                v = momentum * factor * v + lr * d
                w = store(w - (momentum * v + lr * d if nesterov else v))
            else:
                v = momentum * v + d
                w = store(w - lr * (momentum * v + d if nesterov else v))
            before = lr
        found.append(w)
    return found


def lamb(
    weights: Sequence[Array],
    gradient: Gradient,
    rates: Sequence[float],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    bias_correction: bool = True,
    pre_normalization: str = "none",
    max_grad_norm: float = 1.0,
    phi_bounds: tuple[float, float] | None = None,
    trust_clip: float | None = None,
    shared_steps: bool = False,
    adapt: bool = True,
    excluded: Collection[int] = (),
    store: Store = exactly,
) -> list[Array]:
    """You et al. 2020 (v5), algorithm 2. Each tensor counts the steps it took part in, or all. ``excluded`` tensors have
    neither decay nor ratio."""
    settings = weight_decay, adapt
    ws = [w.copy() for w in weights]
    ms, vs = [np.zeros_like(w) for w in ws], [np.zeros_like(w) for w in ws]
    taken = [0] * len(ws)
    for step, lr in enumerate(rates):
        gs = {i: g for i, w in enumerate(ws) if (g := gradient(step, i, w)) is not None}
        total = float(np.sqrt(sum((g * g).sum() for g in gs.values())))
        if pre_normalization == "always" and total > 0:
            gs = {i: g / total for i, g in gs.items()}
        if pre_normalization == "clip":
            gs = {i: g / max(1.0, total / max_grad_norm) for i, g in gs.items()}
        for i, g in gs.items():
            weight_decay, adapt = (0.0, False) if i in excluded else settings
            t, taken[i] = step if shared_steps else taken[i], taken[i] + 1
            ms[i] = betas[0] * ms[i] + (1 - betas[0]) * g
            vs[i] = betas[1] * vs[i] + (1 - betas[1]) * g * g
            one, two = (1 - b ** (t + 1) if bias_correction else 1.0 for b in betas)
            u = (ms[i] / one) / (np.sqrt(vs[i] / two) + eps) + weight_decay * ws[i]
            ratio = 1.0
            if adapt and norm(ws[i]) > 0 and norm(u) > 0:
                phi = norm(ws[i]) if phi_bounds is None else min(max(norm(ws[i]), phi_bounds[0]), phi_bounds[1])
                ratio = phi / norm(u)
            if adapt and trust_clip is not None:
                ratio = min(ratio, trust_clip)
            ws[i] = store(ws[i] - lr * ratio * u)
    return ws


def novograd(
    weights: Sequence[Array],
    gradient: Gradient,
    rates: Sequence[float],
    *,
    betas: tuple[float, float] = (0.95, 0.98),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    grad_averaging: bool = False,
    amsgrad: bool = False,
    store: Store = exactly,
) -> list[Array]:
    """Ginsburg et al. 2019, algorithm 1; the first gradient is the first that is not zero."""
    found = []
    for i, start in enumerate(weights):
        w = start.copy()
        v = largest = 0.0
        m = np.zeros_like(w)
        for t, lr in enumerate(rates):
            g = gradient(t, i, w)
            if g is None:
                continue
            v = norm(g) ** 2 if v == 0 else betas[1] * v + (1 - betas[1]) * norm(g) ** 2
            largest = max(largest, v)
            d = g / (np.sqrt(largest if amsgrad else v) + eps) + weight_decay * w
            m = betas[0] * m + ((1 - betas[0]) if grad_averaging else 1.0) * d
            w = store(w - lr * m)
        found.append(w)
    return found


def larc_sgd(
    weights: Sequence[Array],
    gradient: Gradient,
    rates: Sequence[float],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    **larc: Any,
) -> list[Array]:
    """LARC in front of torch's SGD: LARS with the rate outside, clipped by default, with the coefficient 0.02 and eps 1e-8."""
    settings = {"trust_coefficient": 0.02, "eps": 1e-8, "clip": True, **larc}
    return lars(
        weights, gradient, rates, momentum=momentum, weight_decay=weight_decay, lr_in_momentum=False, **settings
    )


def muon(
    weights: Sequence[Array],
    gradient: Gradient,
    rates: Sequence[float],
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.1,
    ns_steps: int = 5,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    orthogonal: bool = True,
    store: Store = exactly,
) -> list[Array]:
    """Liu et al. 2025, section 2, with the momentum as Jordan writes it. The iteration is what it does to the singular values.
    What is no matrix, or is not to be ``orthogonal``, has AdamW."""
    found = []
    for i, start in enumerate(weights):
        w, m, v, taken = start.copy(), np.zeros_like(start), np.zeros_like(start), 0
        matrix = orthogonal and start.ndim >= 2 and 1 < len(start) < start.size
        for t, lr in enumerate(rates):
            g = gradient(t, i, w)
            if g is None:
                continue
            taken += 1
            if matrix:
                m = momentum * m + g
                flat = ((momentum * m + g) if nesterov else m).reshape(len(w), -1) * (1 - momentum)
                left, values, right = np.linalg.svd(flat, full_matrices=False)
                s = values / max(norm(values), 1e-7)
                for _ in range(ns_steps):
                    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
                u = 0.2 * np.sqrt(max(flat.shape)) * ((left * s) @ right).reshape(w.shape)
            else:
                m = betas[0] * m + (1 - betas[0]) * g
                v = betas[1] * v + (1 - betas[1]) * g * g
                u = (m / (1 - betas[0] ** taken)) / (np.sqrt(v / (1 - betas[1] ** taken)) + eps)
            w = store(w - lr * weight_decay * w - lr * u)
        found.append(w)
    return found


def batch_invariant_adam(
    weights: Sequence[Array],
    slices: Callable[[int, int, Array], Sequence[Array]],
    rates: Sequence[float],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> list[Array]:
    """Wang and Aitchison 2024: gradients of equal ``slices`` of the batch are averaged for m, squared and averaged for v."""
    found = []
    for i, start in enumerate(weights):
        w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
        for t, lr in enumerate(rates):
            parts = np.stack(list(slices(t, i, w)))
            m = betas[0] * m + (1 - betas[0]) * parts.mean(0)
            v = betas[1] * v + (1 - betas[1]) * (parts**2).mean(0)
            u = (m / (1 - betas[0] ** (t + 1))) / (np.sqrt(v / (1 - betas[1] ** (t + 1))) + eps)
            w = w - lr * weight_decay * w - lr * u
        found.append(w)
    return found
