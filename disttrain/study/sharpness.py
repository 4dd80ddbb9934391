"""How sharp the minimum is that a run has found: the largest eigenvalue of the Hessian, and Keskar's measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from disttrain.errors import InputError
from disttrain.study.surface import Surface, surface

Times = Callable[[Tensor], Tensor]
"""A symmetric matrix, as what it makes of a vector (n,) float64."""


@dataclass(frozen=True, slots=True)
class Eigenvalue:
    """An eigenvalue of the Hessian of the mean train loss.

    Attributes:
        value: the estimate, a Rayleigh quotient; never above the largest eigenvalue but for rounding.
        residual: 2-norm of ``H v - value * v``, v of norm 1: an eigenvalue lies within so much of ``value``.
        converged: whether that is at most the tolerance times ``value``.
        products: Hessian-vector products that it took.
        samples: of the train set that the loss is over.
    """

    value: float
    residual: float
    converged: bool
    products: int
    samples: int


def largest_eigenvalue(
    of: Surface | str | Path,
    *,
    method: Literal["lanczos", "power"] = "lanczos",
    tolerance: float = 1e-3,
    most: int = 100,
    seed: int = 0,
    **where: Any,
) -> Eigenvalue:
    """The largest eigenvalue of the Hessian of a run's train loss, called its sharpness: of the weights as they are, so it
    depends on how they are scaled (Dinh et al. 2017, arXiv:1703.04933).

    ``power`` iterates ``v = H v``, and, where the eigenvalue of largest size is negative, anew with ``H`` shifted by it; it holds
    two vectors. ``lanczos`` takes the best vector of the whole Krylov space, with full reorthogonalisation: fewer products, and
    a vector in float64 held for each.

    Args:
        of: a surface, or the directory of a run, of which :func:`disttrain.study.surface.surface` makes one.
        tolerance: on the residual, as a share of the value.
        most: Hessian-vector products at most.
        seed: of the vector to begin with.
        where: further arguments of :func:`~disttrain.study.surface.surface`.

    Raises:
        InputError, CheckpointError: see there.
    """
    if most < 1 or tolerance <= 0.0 or method not in _METHODS:
        raise InputError(
            f"method is {method!r}, most {most} and tolerance {tolerance}; expected {' or '.join(_METHODS)}, at least 1, and "
            "more than 0"
        )
    on = of if isinstance(of, Surface) else surface(of, **where)
    generator = torch.Generator().manual_seed(seed)
    start = on.zeros()
    start += torch.randn(len(start), dtype=torch.float64, generator=generator).to(start)
    value, residual, products = _METHODS[method](on.curvature, start / start.norm(), tolerance, most)
    return Eigenvalue(value, residual, residual <= tolerance * abs(value), products, on.samples)


def power_iteration(times: Times, start: Tensor, tolerance: float, most: int) -> tuple[float, float, int]:
    """Value, residual and products; ``start`` of norm 1."""
    vector, shift = start, 0.0
    products = 0
    while products < most:
        products += 1
        image = times(vector)
        value = float(vector @ image)
        residual = float((image - value * vector).norm())
        if residual <= tolerance * abs(value):
            if value >= 0.0 or shift:
                break
            # All other eigenvalues are positive now, and the largest is the largest in size.
            shift, image = -1.1 * value, start
        else:
            image = image + shift * vector
        vector = image / image.norm().clamp(min=torch.finfo(image.dtype).tiny)
    return value, residual, products


def lanczos(times: Times, start: Tensor, tolerance: float, most: int) -> tuple[float, float, int]:
    """Value, residual and products; ``start`` of norm 1 (Lanczos 1950)."""
    basis, diagonal, beside = [start], list[float](), list[float]()
    while len(diagonal) < min(most, len(start)):
        image = times(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        known = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors that grow
            image = image - known.T @ (known @ image)
        beside.append(float(image.norm()))
        tri = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        off = torch.tensor(beside[:-1], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(tri + torch.diag(off, 1) + torch.diag(off, -1))
        value, residual = float(values[-1]), beside[-1] * abs(float(vectors[-1, -1]))
        if residual <= tolerance * abs(value) or beside[-1] <= 1e-12 * float(values.abs().max()):
            break
        basis.append(image / beside[-1])
    return value, residual, len(diagonal)


_METHODS = {"lanczos": lanczos, "power": power_iteration}


def keskar_sharpness(of: Surface | str | Path, *, epsilon: float = 1e-3, steps: int = 10, **where: Any) -> float:
    """By how many per cent of one plus the loss it rises within a small box around the weights: ``100 * (max f(w + z) - f(w)) /
    (1 + f(w))`` over ``|z_i| <= epsilon * (|w_i| + 1)`` (Keskar et al. 2017, arXiv:1609.04836, metric 2.1 in the full space).

    The maximum is sought by steps of a fifth of the box along the gradient's signs, cut to the box, and not by the paper's ten
    iterations of L-BFGS-B; either is a lower bound.

    Args:
        of, where: as for :func:`largest_eigenvalue`.
        steps: gradients at most.

    Raises:
        InputError, CheckpointError: see :func:`~disttrain.study.surface.surface`.
    """
    if epsilon <= 0.0 or steps < 1:
        raise InputError(f"epsilon is {epsilon} and steps {steps}; expected more than 0, and at least 1")
    on = of if isinstance(of, Surface) else surface(of, **where)
    boxes = {name: epsilon * (p.detach().abs() + 1.0) for name, p in zip(on.names, on.params, strict=True)}
    offset = {name: torch.zeros_like(box) for name, box in boxes.items()}
    before = highest = on.loss()
    for _ in range(steps):
        with on.moved(offset):
            pieces = torch.split(on.gradient(), [p.numel() for p in on.params])
        for (name, box), piece in zip(boxes.items(), pieces, strict=True):
            step = offset[name] + 0.2 * box * piece.view_as(box).sign().to(box)
            offset[name] = torch.minimum(torch.maximum(step, -box), box)
        with on.moved(offset):
            highest = max(highest, on.loss())
    return 100.0 * (highest - before) / (1.0 + before)
