"""The multilayer perceptron against its formula."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disttrain.models.mlp import MLP


def test_formula() -> None:
    model = MLP((1, 2, 3), 4, hidden=(5, 7)).double()
    weights = dict(model.state_dict())
    assert [tuple(w.shape) for w in weights.values()] == [(5, 6), (5,), (7, 5), (7,), (4, 7), (4,)]
    w1, b1, w2, b2, w3, b3 = weights.values()
    x = torch.randn(9, 1, 2, 3, dtype=torch.float64)
    h1: Tensor = (x.view(9, 6) @ w1.T + b1).clamp(min=0)
    h2: Tensor = (h1 @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(model(x), h2 @ w3.T + b3)


def test_size_of_the_default() -> None:
    model = MLP((1, 28, 28), 10)
    assert sum(p.numel() for p in model.parameters()) == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10


def test_dropout_only_while_training() -> None:
    model = MLP((10,), 3, hidden=(64,), dropout=0.5)
    x = torch.randn(2, 10)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_layer_norm_stands_before_each_relu() -> None:
    model = MLP((10,), 3, hidden=(8, 8), norm="layer")
    kinds = [type(m) for m in model.body if not isinstance(m, nn.Dropout)]
    assert kinds == [nn.Flatten, *[nn.Linear, nn.LayerNorm, nn.ReLU] * 2]
