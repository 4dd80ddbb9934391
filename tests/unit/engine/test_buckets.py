"""Buckets have a layout that depends on the model alone, and keep gradients whatever ``zero_grad`` does."""

from __future__ import annotations

import torch
from torch import nn

from disttrain.engine.buckets import Bucket, GradientBuckets


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)).double()


def test_buckets_run_from_the_last_parameter_and_respect_the_cap() -> None:
    net = model()
    buckets = GradientBuckets(list(net.parameters()), 7 * 3 * 8 + 3 * 8, lambda b: None).buckets
    order = [p for b in buckets for p in b.params]
    assert [id(p) for p in order] == [id(p) for p in reversed(list(net.parameters()))]
    assert [b.flat.numel() for b in buckets] == [24, 7, 35]


def test_gradients_survive_set_to_none_and_in_place_zero() -> None:
    net, twin = model(), model()
    launched: list[Bucket] = []
    buckets = GradientBuckets(list(net.parameters()), 10**6, launched.append)
    for set_to_none in (True, False, True):
        x = torch.randn(4, 5, dtype=torch.float64)
        for m in (net, twin):
            m.zero_grad(set_to_none=set_to_none)
            m(x).square().sum().backward()
        buckets.finish()
        assert len(launched) == 1
        launched.clear()
        for a, b in zip(net.parameters(), twin.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad)
            assert a.grad.data_ptr() >= buckets.buckets[0].flat.data_ptr()


def test_accumulated_passes_launch_once_and_unused_parameters_are_zero() -> None:
    net = model()
    launched: list[Bucket] = []
    buckets = GradientBuckets(list(net.parameters()), 10**6, launched.append)
    x = torch.randn(4, 5, dtype=torch.float64)
    buckets.exchanging = False
    net(x).sum().backward()
    assert not launched
    first = [p.grad.clone() for p in net.parameters()]
    buckets.exchanging = True
    net[2](torch.ones(1, 7, dtype=torch.float64)).sum().backward()  # reaches the last layer only
    assert not launched
    buckets.finish()
    assert len(launched) == 1
    assert torch.equal(net[0].weight.grad, first[0])
    assert torch.equal(net[2].bias.grad, first[3] + 1)
    net.zero_grad(set_to_none=True)
    buckets.finish()
    assert all(not p.grad.any() for p in net.parameters())
