"""Gated feed-forward layers against their formula in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from disttrain.nn import GEGLU, GatedFeedForward, ReGLU, SwiGLU

FORMULAS: dict[type[GatedFeedForward], Callable[[Tensor], Tensor]] = {
    SwiGLU: lambda x: x / (1 + (-x).exp()),
    GEGLU: lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    ReGLU: lambda x: x.clamp(min=0),
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_formula(kind: type[GatedFeedForward]) -> None:
    torch.manual_seed(0)
    layer = kind(6, 24).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    (wg, bg), (wu, bu), (wd, bd) = ((part.weight, part.bias) for part in (layer.gate, layer.up, layer.down))
    expected = (FORMULAS[kind](x @ wg.T + bg) * (x @ wu.T + bu)) @ wd.T + bd
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("width", "hidden", "expected"), [(128, 512, 344), (96, 384, 256), (6, 24, 16), (8, 1, 8)])
def test_hidden_width(width: int, hidden: int, expected: int) -> None:
    assert SwiGLU(width, hidden).up.out_features == expected


@pytest.mark.parametrize("width", [96, 128, 256, 768])
def test_as_many_parameters_as_without_a_gate(width: int) -> None:
    with torch.device("meta"):
        gated = SwiGLU(width, 4 * width)
        plain = nn.Sequential(nn.Linear(width, 4 * width), nn.Linear(4 * width, width))
    counts = [sum(p.numel() for p in layer.parameters()) for layer in (gated, plain)]
    assert counts[0] == pytest.approx(counts[1], rel=0.012)


def test_the_layer_without_an_activation_is_abstract() -> None:
    with pytest.raises(TypeError, match="activation"):
        GatedFeedForward(6, 24)  # type: ignore[abstract]
