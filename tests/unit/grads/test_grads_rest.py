"""Penalties, the numerics watch and balanced losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from disttrain import grads


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def test_penalties_are_the_gradients_of_their_values() -> None:
    model = network()
    chosen = grads.select(model, ["0.*", "*.bias"])
    assert [p.shape for p in chosen] == [(4, 3), (4,), (2,)]
    by_hand = 0.3 * sum(p.abs().sum() for p in chosen) + 0.5 * 0.7 * sum(p.square().sum() for p in chosen)
    expected = torch.autograd.grad(by_hand, chosen)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    grads.add_l1_(chosen, 0.3)
    grads.add_l2_(chosen, 0.7)
    for p, e in zip(chosen, expected, strict=True):
        torch.testing.assert_close(p.grad, e)
    assert float(model[1].weight.grad.abs().max()) == 0.0


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no trained parameter matches '0.wieght'; there are 0.weight"):
        grads.select(network(), ["0.wieght"])


def test_numerics_by_hand() -> None:
    model = network()
    model[0].weight.grad = torch.full((4, 3), 2.0).double()
    model[0].bias.grad = torch.tensor([1e-9, 1.0, 0.0, 1e6]).double()
    model[1].weight.grad = torch.full((2, 4), 1e-12).double()
    model[1].bias.grad = torch.tensor([1e30, torch.inf]).double()
    found = grads.numerics(model.named_parameters(), "fp16")
    layers = found.layers()
    assert layers["0.weight"].norm == pytest.approx(2 * math.sqrt(12))
    assert layers["0.weight"].rms == pytest.approx(2.0)
    assert (layers["0.bias"].underflow, layers["0.bias"].overflow) == (0.25, 0.25)
    assert layers["1.weight"].underflow == 1.0
    assert layers["1.bias"].overflow == 1.0
    assert found.vanishing() == ["1.weight"]
    assert found.exploding() == ["0.bias", "1.bias"]
    wide = grads.numerics(model.named_parameters(), "bf16").layers()
    assert (wide["0.bias"].underflow, wide["0.bias"].overflow) == (0.0, 0.0)
    scaled = grads.numerics(model.named_parameters(), "fp16", scale=2.0**16).layers()
    assert scaled["0.bias"].underflow == 0.0


def test_uncertainty_weights() -> None:
    """Kendall et al. 2018: the best log variance of a loss L is log 2L, where the derivative -exp(-s) L + 1/2 vanishes."""
    weights = grads.UncertaintyWeights(["a", "b"]).double()
    losses = {"a": torch.tensor([2.0, 6.0]).double(), "b": torch.tensor([0.1, 0.3]).double()}
    torch.testing.assert_close(weights(losses), losses["a"] + losses["b"])
    optimizer = torch.optim.SGD(weights.parameters(), 0.5)
    for _ in range(500):
        optimizer.zero_grad()
        weights(losses).mean().backward()
        optimizer.step()
    best = [math.log(2 * 4.0), math.log(2 * 0.2)]
    assert weights.log_variances.tolist() == pytest.approx(best, rel=1e-6)
    with pytest.raises(ValueError, match=r"expected \['a', 'b'\]"):
        weights({"a": losses["a"]})


def test_gradnorm_pulls_gradients_together() -> None:
    balance = grads.GradNormWeights(["easy", "hard"], alpha=0.0, lr=0.01)
    for _ in range(2000):
        weights = balance.update({"easy": 1.0, "hard": 1.0}, {"easy": 4.0, "hard": 1.0})
    assert float(weights["easy"]) * 4.0 == pytest.approx(float(weights["hard"]), rel=0.1)
    assert float(sum(weights.values())) == pytest.approx(2.0)
    lagging = grads.GradNormWeights(["a", "b"], alpha=1.0, lr=0.01)
    lagging.update({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0})
    for _ in range(100):
        weights = lagging.update({"a": 0.2, "b": 0.9}, {"a": 1.0, "b": 1.0})
    assert weights["b"] > weights["a"]
    kept = dict(weights)
    assert lagging.update({"a": 0.2, "b": 0.9}, {"a": math.inf, "b": 1.0}) == kept
    again = grads.GradNormWeights(["a", "b"], alpha=1.0, lr=0.01)
    again.load_state_dict(lagging.state_dict())
    step = {"a": 0.3, "b": 0.8}, {"a": 2.0, "b": 1.0}
    assert again.update(*step) == lagging.update(*step)
    with pytest.raises(ValueError, match=r"got losses \['a'\]; expected \['a', 'b'\]"):
        lagging.update({"a": 1.0}, {"a": 1.0})
