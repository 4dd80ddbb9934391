"""Gradients of single samples, against backward passes of single samples in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from disttrain.grads import NormLayers


class RootRMSNorm(nn.Module):
    """As several libraries have it."""

    def __init__(self, width: int, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return (self.offset + self.weight) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Net(nn.Module):
    """Every kind of layer, over rows, over positions, over images, one of them called twice, one frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.images = nn.LayerNorm([2, 6])
        self.first = nn.LayerNorm(6)
        self.second = nn.RMSNorm(6)
        self.third = RootRMSNorm(6, 0.0)
        self.fourth = RootRMSNorm(6, 1.0)
        self.plain = nn.LayerNorm(6, elementwise_affine=False)
        self.frozen = nn.LayerNorm(6)
        self.linear = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 5, 2, 6) to (n,)"""
        n = len(x)
        x = self.first(self.images(x))
        x = self.second(self.linear(x.flatten(0, 1)))  # (5 n, 2, 6): several rows of each sample, next to each other
        x = self.frozen(self.plain(self.fourth(self.third(x)).tanh()))
        return (self.first(x) ** 3).view(n, -1).mean(1)


def test_squares_are_those_of_each_sample_by_itself() -> None:
    torch.manual_seed(0)
    net, x = Net().double(), torch.randn(7, 5, 2, 6, dtype=torch.float64)
    layers = NormLayers(net, [p for p in net.parameters() if p.requires_grad])
    expected = dict.fromkeys(layers.params, 0.0)
    assert len(expected) == 7  # weights and biases of two, weights of three
    for sample in x.split(1):
        for p, g in zip(expected, torch.autograd.grad(net(sample).sum(), list(expected)), strict=True):
            expected[p] += float(g.square().sum())
    layers.watch()
    layers.watch()
    for _ in range(2):  # what an earlier pass has left counts no more
        layers.clear()
        net(x).sum().backward()
    found = layers.square_norms(7)
    layers.leave()
    assert not any(module._forward_hooks for module in net.modules())
    assert {p: float(v) for p, v in found.items()} == {p: pytest.approx(v, rel=1e-10) for p, v in expected.items()}


@pytest.mark.slow  # to import transformers takes seconds
def test_transformers_own_layers_count_too() -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    net = nn.Sequential(nn.Linear(4, 8), LlamaRMSNorm(8))
    x, layers = torch.randn(3, 5, 4), NormLayers(net, net.parameters())
    layers.watch()
    (net(x) ** 2).sum().backward()
    layers.leave()
    (found,) = layers.square_norms(3).values()
    alone = [torch.autograd.grad((net(s) ** 2).sum(), net[1].weight)[0] for s in x.split(1)]
    assert float(found) == pytest.approx(sum(float(g.double().square().sum()) for g in alone), rel=1e-5)


def test_rows_that_belong_to_no_sample_are_refused() -> None:
    net = nn.Sequential(nn.LayerNorm(3))
    layers = NormLayers(net, net.parameters())
    layers.watch()
    net(torch.randn(4, 3)).sum().backward()
    with pytest.raises(ValueError, match="layer 0 gets 4 rows for 3 samples"):
        layers.square_norms(3)
