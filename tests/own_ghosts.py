"""Ghost norm that no recipe mentions: in a model of the user's own, and in the default model of a task of their own."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

from disttrain.nn import GhostBatchNorm1d
from disttrain.tasks.digits import Digits

GHOST_SIZE = 32


def network(in_shape: Sequence[int], num_classes: int) -> nn.Module:
    hidden = 24
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(prod(in_shape), hidden),
        GhostBatchNorm1d(hidden, GHOST_SIZE),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


class GhostDigits(Digits):
    """Digits; a recipe without a model gets ghost norm."""

    default_model = ("mlp", {"hidden": [24], "norm": "ghost_batch", "ghost_size": GHOST_SIZE})
