"""A small modern convolutional network for images of about 28x28."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.models.images import image_shape
from disttrain.models.norms import Norm
from disttrain.nn import initialise
from disttrain.nn.ghost_norm import StatsUpdate


class ConvNet(nn.Module):
    """Stages of a 3x3 convolution, 2x2 max-pooling, normalisation and ReLU, and a linear classifier.

    Args:
        in_shape: ``(channels, height, width)`` of a sample; sides of at least ``2 ** len(widths)``.
        num_classes: width of the output.
        widths: channels of each stage.
        norm: ``group`` (8 groups; the result does not depend on the batch), ``batch``, ``ghost_batch``, ``layer``,
            ``instance`` or ``none``.
        ghost_size, stats_update: of ghost batch norm.
        init: ``xavier``, ``he`` or ``orthogonal``; None: ``he`` for the convolutions, torch's for the classifier.
        dropout: probability of zeroing an input of the classifier.

    Shape: ``(batch, *in_shape)`` to ``(batch, num_classes)``.

    Raises:
        InputError: ``in_shape`` is no image's or too small, or ``norm`` is unknown.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = (32, 64, 128),
        norm: str = "group",
        ghost_size: int = 32,
        stats_update: StatsUpdate = "mean",
        init: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        shrinks = 2 ** len(widths)
        channels, rows, columns = image_shape(in_shape, smallest=shrinks)
        sizes = [channels, *widths]
        # A normalisation behind it makes the convolution's own bias superfluous.
        convolutions = [nn.Conv2d(a, b, 3, padding=1, bias=norm == "none") for a, b in pairwise(sizes)]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        self.convolutions = nn.ModuleList(convolutions)
        kind = Norm(norm, ghost_size, stats_update, groups=8)
        self.norms = nn.ModuleList(kind.over_images(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sizes[-1] * (rows // shrinks) * (columns // shrinks), num_classes)
        if init is not None:
            initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Pooling and the further convolutions are much quicker on CPU in this layout, which they hand on.
            x = convolution(x).contiguous(memory_format=torch.channels_last)
            # Pooling first leaves a quarter of the work to what follows.
            x = F.relu(norm(F.max_pool2d(x, 2)))
        logits: Tensor = self.head(self.dropout(x.flatten(1)))
        return logits
