"""The convolutional network against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.models.convnet import ConvNet


def reference(model: ConvNet, x: Tensor) -> Tensor:
    """Loops and NCHW only; group norm written out."""
    for convolution, norm in zip(model.convolutions, model.norms, strict=True):
        x = F.conv2d(x, convolution.weight, padding=1)
        n, c, h, w = x.shape
        x = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).amax((3, 5))
        g = x.reshape(n, 8, -1)
        g = (g - g.mean(2, keepdim=True)) / (g.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        x = (g.reshape(x.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
    return x.reshape(len(x), -1) @ model.head.weight.T + model.head.bias


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 17, 9)])
def test_formula(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = ConvNet(shape, 10, widths=(8, 16, 32)).double()
    with torch.no_grad():
        for norm in model.norms:
            norm.weight.normal_()
            norm.bias.normal_()
    x = torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(model(x), reference(model, x))


@pytest.mark.parametrize(("norm", "extra"), [("group", 2 * 224), ("batch", 2 * 224), ("none", 224)])
def test_number_of_parameters(norm: str, extra: int) -> None:
    model = ConvNet((1, 28, 28), 10, norm=norm)
    expected = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 3 * 3 * 128 * 10 + 10 + extra
    assert sum(p.numel() for p in model.parameters()) == expected


def test_no_batch_norm_by_default() -> None:
    kinds = {type(m) for m in ConvNet((1, 28, 28), 10).modules()}
    assert nn.GroupNorm in kinds
    assert nn.BatchNorm2d not in kinds


def test_parameters_and_gradients_have_the_plain_layout() -> None:
    # DDP and checkpoints want it, although the activations are laid out otherwise.
    model = ConvNet((1, 28, 28), 10)
    model(torch.randn(4, 1, 28, 28)).sum().backward()
    for parameter in model.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()


def test_smallest_image() -> None:
    assert ConvNet((1, 8, 8), 10)(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(InputError, match=r"in_shape is \(1, 8, 7\); this model needs sides of at least 8 pixels"):
        ConvNet((1, 8, 7), 10)
