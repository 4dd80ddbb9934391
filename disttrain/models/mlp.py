"""A multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from disttrain.models.norms import norm1d


class MLP(nn.Module):
    """Flatten, then linear layers with ReLU between them.

    Args:
        in_shape: shape of one sample.
        num_classes: width of the output.
        hidden: widths of the hidden layers.
        norm: ``none``, ``batch`` or ``layer``, before each ReLU.
        dropout: probability of zeroing a hidden activation.

    Shape: ``(batch, *in_shape)`` to ``(batch, num_classes)``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        hidden: Sequence[int] = (512, 512),
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(in_shape)
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), norm1d(norm, next_width), nn.ReLU(), nn.Dropout(dropout)]
            width = next_width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits
