"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from disttrain.models.norms import Norm
from disttrain.nn import initialise
from disttrain.nn.ghost_norm import StatsUpdate


class MLP(nn.Module):
    """Flatten, then linear layers with ReLU between them.

    Args:
        in_shape: shape of one sample.
        num_classes: width of the output.
        hidden: widths of the hidden layers.
        norm: ``none``, ``batch``, ``ghost_batch`` or ``layer``, before each ReLU.
        ghost_size, stats_update: of ghost batch norm.
        init: ``xavier``, ``he`` or ``orthogonal``; None: torch's.
        dropout: probability of zeroing a hidden activation.

    Shape: ``(batch, *in_shape)`` to ``(batch, num_classes)``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        hidden: Sequence[int] = (512, 512),
        norm: str = "none",
        ghost_size: int = 32,
        stats_update: StatsUpdate = "mean",
        init: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        kind = Norm(norm, ghost_size, stats_update)
        width = math.prod(in_shape)
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), kind.over_features(next_width), nn.ReLU(), nn.Dropout(dropout)]
            width = next_width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)
        if init is not None:
            initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits
