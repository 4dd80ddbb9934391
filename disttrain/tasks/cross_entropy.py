"""Cross-entropy per item, and its exact sums, for anything that predicts one of several classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from disttrain.tasks.terms import wide


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Loss of each item, of the shape of ``targets``, in float32 or wider.

    Args:
        logits: ``(*targets.shape, classes)``.
        targets: int64 class numbers, of any shape.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2015, arXiv:1512.00567,
            section 7).
    """
    if targets.dim() == 1:
        return F.cross_entropy(wide(logits), targets, reduction="none", label_smoothing=label_smoothing)
    flat = wide(logits).flatten(0, -2)
    losses = F.cross_entropy(flat, targets.flatten(), reduction="none", label_smoothing=label_smoothing)
    return losses.view_as(targets)


def totals(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """``loss`` (float64), ``correct`` and ``items`` (int64), summed over all items of a batch; scalars.

    Sums of sums are exact but for the rounding of float64, so a set's metrics do not depend on how it is cut into batches.
    """
    return {
        "loss": cross_entropy(logits, targets).double().sum(),
        "correct": (logits.argmax(-1) == targets).sum(),
        "items": torch.tensor(targets.numel()),
    }


def rates(totals: Mapping[str, float]) -> dict[str, float]:
    """``loss`` and ``accuracy`` of one item on average, from :func:`totals`."""
    items = totals["items"]
    return {"loss": totals["loss"] / items, "accuracy": totals["correct"] / items}
