"""Initialisers: moments, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from disttrain.nn import INITIALISERS, GhostBatchNorm2d, initialise, zero_last_gamma


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 256), nn.Embedding(7, 3))


@pytest.mark.parametrize(
    ("name", "convolution", "linear"),
    [("xavier", 2 / (16 * 9 + 64 * 9), 2 / (64 + 256)), ("he", 2 / (64 * 9), 2 / 256)],
)
def test_variances(name: str, convolution: float, linear: float) -> None:
    model = initialise(network(), name)
    for layer, variance in ((model[0], convolution), (model[3], linear)):
        weight = layer.weight.double()
        assert weight.var().item() == pytest.approx(variance, rel=0.05)
        assert abs(weight.mean().item()) < 4 * (variance / weight.numel()) ** 0.5
        assert layer.bias.count_nonzero() == 0


def test_orthogonal() -> None:
    model = initialise(network(), "orthogonal")
    rows = model[0].weight.view(64, -1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), rtol=0, atol=1e-5)
    columns = model[3].weight
    torch.testing.assert_close(columns.T @ columns, torch.eye(64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", INITIALISERS)
def test_nothing_else_is_touched(name: str) -> None:
    before, after = network(), initialise(network(), name)
    for i in (1, 4):
        torch.testing.assert_close(after[i].state_dict(), before[i].state_dict(), rtol=0, atol=0)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="initialiser 'glorot': expected one of xavier, he, orthogonal"):
        initialise(network(), "glorot")


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(3), GhostBatchNorm2d(3, 2), nn.GroupNorm(1, 3), nn.LayerNorm(3), nn.RMSNorm(3)],
    ids=lambda norm: type(norm).__name__,
)
def test_only_the_last_scale_becomes_zero(norm: nn.Module) -> None:
    branch = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.Sequential(norm))
    zero_last_gamma([branch])
    assert norm.weight.tolist() == [0.0] * 3
    assert branch[0].weight.tolist() == [1.0] * 3


def test_a_branch_without_a_scale() -> None:
    for branch in (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.BatchNorm2d(3, affine=False))):
        with pytest.raises(ValueError, match="Sequential has no normalisation with a scale"):
            zero_last_gamma([branch])
