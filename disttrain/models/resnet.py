"""ResNet-18 and ResNet-50, v1.5, and ResNet-44 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.models.images import image_shape
from disttrain.models.norms import Norm
from disttrain.nn import initialise, zero_last_gamma
from disttrain.nn.ghost_norm import StatsUpdate


class ResNet(nn.Module):
    """Residual network (He et al. 2015, arXiv:1512.03385) in its v1.5: the stride of a bottleneck sits on its 3x3.

    Initialisation as in Goyal et al. 2017 (arXiv:1706.02677, section 5.1): He for convolutions (by fan-out, as torchvision
    does), N(0, 0.01^2) for the classifier, and zero for the last scale of each residual branch, which therefore begins as
    the identity.

    Args:
        in_shape: ``(channels, height, width)``; sides of at most 64 pixels get a 3x3 stem without pooling.
        num_classes: width of the output.
        blocks: residual blocks of each stage.
        bottleneck: three convolutions per block (50 layers and more) instead of two.
        norm: ``batch``, ``ghost_batch``, ``group``, ``layer`` or ``instance``.
        zero_init_last_gamma: see above.
        width: channels of the first stage; each further one has twice as many.
        ghost_size, stats_update: of ghost batch norm.
        init: ``xavier``, ``he`` or ``orthogonal`` for all convolutions and the classifier; None: see above.

    Shape: ``(batch, *in_shape)`` to ``(batch, num_classes)``.

    Raises:
        InputError: ``in_shape`` is no image's, or ``norm`` is unknown.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        num_classes: int,
        blocks: Sequence[int],
        bottleneck: bool,
        norm: str = "batch",
        zero_init_last_gamma: bool = True,
        width: int = 64,
        ghost_size: int = 32,
        stats_update: StatsUpdate = "mean",
        init: str | None = None,
    ) -> None:
        super().__init__()
        if norm == "none":
            raise InputError("norm is 'none'; a ResNet needs batch, ghost_batch, group, layer or instance")
        kind = Norm(norm, ghost_size, stats_update)
        image_channels, *sides = image_shape(in_shape)
        self.stem = stem(image_channels, width, kind, small=max(sides) <= 64)
        stages: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                block = Block(channels, width * 2**stage, stride, bottleneck, kind, zero_init_last_gamma)
                stages.append(block)
                channels = block.out_channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        if init is not None:
            initialise(self, init)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(x)).mean((2, 3))
        logits: Tensor = self.head(features)
        return logits


class Block(nn.Module):
    """``relu(shortcut(x) + branch(x))``."""

    def __init__(
        self, channels: int, width: int, stride: int, bottleneck: bool, norm: Norm, zero_init_last_gamma: bool
    ) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.out_channels = width * 4 if bottleneck else width
        two = [(width, 3, stride), (width, 3, 1)]
        three = [(width, 1, 1), (width, 3, stride), (self.out_channels, 1, 1)]
        layers, before = list[nn.Module](), channels
        for after, kernel, step in three if bottleneck else two:
            layers += [conv(before, after, kernel, step), norm.over_images(after), relu]
            before = after
        self.branch = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        if zero_init_last_gamma:
            zero_last_gamma([self.branch])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != self.out_channels:
            projection = conv(channels, self.out_channels, 1, stride)
            self.shortcut = nn.Sequential(projection, norm.over_images(self.out_channels))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.shortcut(x) + self.branch(x))
        return result


def stem(channels: int, width: int, norm: Norm, small: bool) -> nn.Sequential:
    """For small images one 3x3 convolution; otherwise 7x7 at stride 2 and a 3x3 max-pooling at stride 2."""
    if small:
        return nn.Sequential(conv(channels, width, 3), norm.over_images(width), nn.ReLU(inplace=True))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(conv(channels, width, 7, 2), norm.over_images(width), nn.ReLU(inplace=True), pool)


def conv(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1, with He initialisation by fan-out."""
    layer = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


resnet18 = partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False, width=64)
"""18 layers: 11,689,512 parameters for 224x224 and 1000 classes."""
resnet44 = partial(ResNet, blocks=(7, 7, 7), bottleneck=False, width=16)
"""44 layers of 16, 32 and 64 channels for images of about 32x32 (He et al. 2015, section 4.2, n = 7), with projections
where the paper pads its shortcuts."""
resnet50 = partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True, width=64)
"""50 layers: 25,557,032 parameters for 224x224 and 1000 classes."""
