"""ResNets: published sizes, v1.5, and the initialisation of Goyal et al. 2017."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from disttrain.models.resnet import Block, ResNet, resnet18, resnet44, resnet50

# torchvision's documentation of resnet18 and resnet50, "num_params".
PUBLISHED = [(resnet18, 11_689_512), (resnet50, 25_557_032)]


@pytest.mark.parametrize(("make", "count"), PUBLISHED)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_number_of_parameters(make: Callable[..., ResNet], count: int, norm: str) -> None:
    with torch.device("meta"):
        model = make((3, 224, 224), 1000, norm=norm)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(("make", "convolutions"), [(resnet18, 17), (resnet44, 43), (resnet50, 49)])
def test_depth(make: Callable[..., ResNet], convolutions: int) -> None:
    with torch.device("meta"):
        model = make((3, 224, 224), 1000)
    on_the_way = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert len(on_the_way) == convolutions


def test_the_stride_is_on_the_3x3() -> None:
    with torch.device("meta"):
        model = resnet50((3, 224, 224), 1000)
    strided = [
        m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2) and ".branch" in n
    ]
    assert [m.kernel_size for m in strided] == [(3, 3)] * 3


@pytest.mark.parametrize(
    ("side", "after_stem", "after_stages"), [(224, 56, 7), (96, 24, 3), (64, 64, 8), (32, 32, 4), (28, 28, 4)]
)
def test_stem_follows_the_size_of_the_images(side: int, after_stem: int, after_stages: int) -> None:
    with torch.device("meta"):
        model = resnet18((3, side, side), 10)
        features = model.stem(torch.empty(2, 3, side, side))
        assert features.shape == (2, 64, after_stem, after_stem)
        assert model.stages(features).shape == (2, 512, after_stages, after_stages)


@pytest.mark.parametrize("make", [resnet18, resnet50])
def test_initialisation(make: Callable[..., ResNet]) -> None:
    torch.manual_seed(0)
    model = make((3, 32, 32), 1000)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            fan_out = module.out_channels * math.prod(module.kernel_size)
            n = module.weight.numel()
            # The deviation of a sample deviation is about 1/sqrt(2n) of it; five of them are ample.
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=5 / math.sqrt(2 * n)), name
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.head.bias.abs().max() == 0


@pytest.mark.parametrize("make", [resnet18, resnet50])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_residual_branches_begin_as_nothing(make: Callable[..., ResNet], norm: str) -> None:
    model = make((3, 32, 32), 10, norm=norm)
    x = torch.rand(2, 64, 8, 8)
    first = model.stages[0]
    assert isinstance(first, Block)
    torch.testing.assert_close(first(x), first.shortcut(x).relu())
    assert all(m.branch[-1].weight.abs().max() == 0 for m in model.modules() if isinstance(m, Block))
    without = make((3, 32, 32), 10, norm=norm, zero_init_last_gamma=False)
    assert all(m.branch[-1].weight.min() == 1 for m in without.modules() if isinstance(m, Block))


def test_group_norm_has_32_groups() -> None:
    with torch.device("meta"):
        model = resnet50((3, 224, 224), 10, norm="group")
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_groups for m in norms} == {32}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_resnet44_has_the_size_of_the_paper() -> None:
    """He et al. 2015, table 6: 0.66 M, with padded shortcuts; the two projections and their scales come on top."""
    with torch.device("meta"):
        model = resnet44((3, 32, 32), 10)
        assert model.stages(model.stem(torch.empty(2, 3, 32, 32))).shape == (2, 64, 8, 8)
    count = sum(p.numel() for p in model.parameters())
    projections = sum(p.numel() for n, p in model.named_parameters() if "shortcut" in n)
    assert projections == 16 * 32 + 32 * 64 + 2 * (32 + 64)
    stem, head = 3 * 16 * 9 + 2 * 16, 64 * 10 + 10
    stages = sum(9 * c * (first + 13 * c) + 14 * 2 * c for first, c in ((16, 16), (16, 32), (32, 64)))
    assert count - projections == stem + stages + head
    assert round((count - projections) / 1e6, 2) == 0.66
