"""A small modern convolutional network for images of about 28x28."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from disttrain.models.norms import norm2d


class ConvNet(nn.Module):
    """One 3x3 convolution, normalisation, ReLU and 2x2 max-pooling per stage, then global average pooling.

    Args:
        in_shape: ``(channels, height, width)`` of a sample; sides of at least ``2 ** len(widths)``.
        num_classes: width of the output.
        widths: channels of each stage.
        norm: ``group`` (default: the result does not depend on the batch), ``batch`` or ``none``.
        dropout: probability of zeroing a pooled feature.

    Shape: ``(batch, *in_shape)`` to ``(batch, num_classes)``.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = (32, 64, 128),
        norm: str = "group",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_shape[0]
        for width in widths:
            # A normalisation behind it makes the convolution's own bias superfluous.
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none")
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            # Pooling first gives the normalisation a quarter of the work; a maximum and a ReLU commute.
            layers += [convolution, nn.MaxPool2d(2), norm2d(norm, width), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers)
        side = [length // 2 ** len(widths) for length in in_shape[1:]]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels * side[0] * side[1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.body(x).flatten(1)))
        return logits
