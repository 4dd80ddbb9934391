"""Squared errors, and the exact sums behind the metrics of a regression."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from disttrain.tasks.terms import wide


def squares(predicted: Tensor, targets: Tensor) -> Tensor:
    """Squared error of each target, of the shape of ``targets``, in float32 or wider; ``predicted`` has as many numbers."""
    return (wide(predicted).view_as(targets) - targets).square()


def totals(predicted: Tensor, targets: Tensor, centre: Tensor | float = 0.0) -> dict[str, Tensor]:
    """Sums over a batch, float64 scalars, from which :func:`rates` makes the metrics; they may be added up over batches.

    Args:
        centre: about the targets' mean, the same in every batch. Without it r2 loses digits where targets are far from zero
            compared to their spread: half of them at a thousand times.
    """
    targets = targets.double()
    error = predicted.double().view_as(targets) - targets
    targets = targets - centre
    return {
        "square": error.square().sum(),
        "absolute": error.abs().sum(),
        "target": targets.sum(),
        "target_square": targets.square().sum(),
        "items": torch.tensor(float(targets.numel()), dtype=torch.float64),
    }


def rates(totals: Mapping[str, float], unit: float = 1.0) -> dict[str, float]:
    """``loss`` (the mean squared error), ``rmse``, ``mae`` and ``r2`` (the share of the targets' variance that is explained).

    Args:
        totals: summed results of :func:`totals`.
        unit: what a difference of 1 is in the units that ``rmse`` and ``mae`` are to be in.
    """
    items = totals["items"]
    spread = totals["target_square"] - totals["target"] ** 2 / items
    loss = totals["square"] / items
    r2 = 1.0 - totals["square"] / spread if spread != 0.0 else float(loss == 0.0)
    return {"loss": loss, "rmse": unit * loss**0.5, "mae": unit * totals["absolute"] / items, "r2": r2}
