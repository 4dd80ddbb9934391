"""ResNet-18 and ResNet-50, v1.5."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.models.images import image_shape
from disttrain.models.norms import norm2d


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
        norm: ``batch`` or ``group``.
        zero_init_last_gamma: see above.

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
    ) -> None:
        super().__init__()
        if norm not in ("batch", "group"):
            raise InputError(f"norm is {norm!r}; a ResNet needs batch or group")
        image_channels, height, width = image_shape(in_shape)
        self.stem = stem(image_channels, norm, small=max(height, width) <= 64)
        stages: list[nn.Module] = []
        channels = 64
        for stage, count in enumerate(blocks):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                block = Block(channels, 64 * 2**stage, stride, bottleneck, norm, zero_init_last_gamma)
                stages.append(block)
                channels = block.out_channels
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(x)).mean((2, 3))
        logits: Tensor = self.head(features)
        return logits


class Block(nn.Module):
    """``relu(shortcut(x) + branch(x))``."""

    def __init__(
        self, channels: int, width: int, stride: int, bottleneck: bool, norm: str, zero_init_last_gamma: bool
    ) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.out_channels = width * 4 if bottleneck else width
        last = norm2d(norm, self.out_channels)
        if bottleneck:
            self.branch = nn.Sequential(
                *(conv(channels, width, 1), norm2d(norm, width), relu),
                *(conv(width, width, 3, stride), norm2d(norm, width), relu),
                *(conv(width, self.out_channels, 1), last),
            )
        else:
            self.branch = nn.Sequential(
                *(conv(channels, width, 3, stride), norm2d(norm, width), relu),
                *(conv(width, width, 3), last),
            )
        if zero_init_last_gamma:
            for scale_or_shift in last.parameters():  # the shift begins at zero anyway
                nn.init.zeros_(scale_or_shift)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != self.out_channels:
            projection = conv(channels, self.out_channels, 1, stride)
            self.shortcut = nn.Sequential(projection, norm2d(norm, self.out_channels))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.shortcut(x) + self.branch(x))
        return result


def stem(channels: int, norm: str, small: bool) -> nn.Sequential:
    """For small images one 3x3 convolution; otherwise 7x7 at stride 2 and a 3x3 max-pooling at stride 2."""
    if small:
        return nn.Sequential(conv(channels, 64, 3), norm2d(norm, 64), nn.ReLU(inplace=True))
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(conv(channels, 64, 7, 2), norm2d(norm, 64), nn.ReLU(inplace=True), pool)


def conv(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1, with He initialisation by fan-out."""
    layer = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def resnet18(
    in_shape: Sequence[int], num_classes: int, norm: str = "batch", zero_init_last_gamma: bool = True
) -> ResNet:
    """18 layers: 11,689,512 parameters for 224x224 and 1000 classes."""
    return ResNet(in_shape, num_classes, (2, 2, 2, 2), False, norm, zero_init_last_gamma)


def resnet50(
    in_shape: Sequence[int], num_classes: int, norm: str = "batch", zero_init_last_gamma: bool = True
) -> ResNet:
    """50 layers: 25,557,032 parameters for 224x224 and 1000 classes."""
    return ResNet(in_shape, num_classes, (3, 4, 6, 3), True, norm, zero_init_last_gamma)
