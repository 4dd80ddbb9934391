"""The numerics watch on a network most of whose gradients are zero at first."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from disttrain import grads
from disttrain.models.resnet import resnet44


def test_zeros_hide_nobody() -> None:
    """ResNet-44's last scale in each block begins at 0, and everything before it in the block gets no gradient."""
    torch.manual_seed(0)
    model = resnet44((3, 32, 32), 10)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 10
    F.cross_entropy(model(x), y).backward()
    found = grads.numerics(model.named_parameters())
    zero = {name for name, p in model.named_parameters() if not p.grad.any()}
    assert len(zero) > len(found.names) / 2
    assert set(found.zero()) == zero
    assert (found.exploding(), found.vanishing()) == ([], [])
    worst = max((name for name in found.names if name not in zero), key=lambda name: found.layers()[name].rms)
    dict(model.named_parameters())[worst].grad.mul_(1e6)
    assert grads.numerics(model.named_parameters()).exploding() == [worst]


def test_nothing_but_zeros() -> None:
    layer = nn.Linear(2, 2)
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    found = grads.numerics(layer.named_parameters())
    assert (found.zero(), found.vanishing(), found.exploding()) == (["weight", "bias"], [], [])
