"""Real networks whose weights stand still, with the exact moments of their per-sample gradients.

A network is trained on N samples and its weights are kept at three stages: noise scale half of the batch, ten times the
batch, and beyond N. There all per-sample gradients are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from disttrain.models.mlp import MLP
from disttrain.tasks.digits import Digits
from disttrain.tasks.mnist import FashionMnist

Array = NDArray[np.float64]
BATCH = 64
STAGES = {"below": (0.3, 0.9), "ten": (8.0, 12.0), "beyond": (0.0, math.inf)}
"""From which noise scale over batch to which; the last one in addition beyond twice N."""


class Frozen(NamedTuple):
    """Weights that stand still: inner products (N, N) of all per-sample gradients, and the two exact moments."""

    gram: Array
    square: float
    trace: float


def convnet() -> nn.Module:
    """For images of 8x8."""
    first = (nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(64, 10))


def network(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """In float64, with its train set."""
    torch.manual_seed(3)
    task = FashionMnist() if name == "fashion mlp" else Digits()
    train, _ = task.load()
    images, labels = (t[:1500] for t in train.tensors)
    x = (images.double() / 255 - 0.286) / 0.353 if name == "fashion mlp" else images.double()
    model: nn.Module = MLP((1, 28, 28), 10, hidden=[64], norm="layer") if name == "fashion mlp" else convnet()
    return model.double(), x, labels


def per_sample(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(n, parameters) gradients of the samples' own losses."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        out = torch.func.functional_call(model, weights, (one[None],))
        return nn.functional.cross_entropy(out, label[None])

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    return torch.cat([g.flatten(1) for g in found.values()], dim=1)


def exact(model: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """``|G_N|^2`` and ``tr(Sigma)``, N - 1."""
    mean, squares = torch.zeros(()), 0.0
    for part in range(0, len(x), 500):
        found = per_sample(model, x[part : part + 500], y[part : part + 500])
        mean, squares = mean + found.sum(0) / len(x), squares + float(found.square().sum())
    square = float(mean.square().sum())
    return square, (squares - len(x) * square) / (len(x) - 1)


def gram(model: nn.Module, x: Tensor, y: Tensor) -> Array:
    parts = range(0, len(x), 500)
    out = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i in parts:
        rows = per_sample(model, x[i : i + 500], y[i : i + 500])
        for j in parts:
            if j >= i:
                out[i : i + 500, j : j + 500] = rows @ per_sample(model, x[j : j + 500], y[j : j + 500]).T
                out[j : j + 500, i : i + 500] = out[i : i + 500, j : j + 500].T.clone()
    return np.asarray(out.numpy())


def stages(name: str) -> Iterator[tuple[str, Frozen]]:
    """Trains, and stops at each stage. The batch grows when the rest is all noise, or the third stage would never come."""
    model, x, y = network(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    batch, step = BATCH, 0
    waiting = list(STAGES)
    while waiting:
        if step % (1 if waiting[0] == "below" else 5) == 0:
            square, trace = exact(model, x, y)
            print(f"{name}: update {step}, batch {batch}, exact noise scale {trace / square:.1f}", flush=True)
            low, high = STAGES[waiting[0]]
            if max(low, 2 * len(x) / BATCH if waiting[0] == "beyond" else 0.0) <= trace / square / BATCH <= high:
                products = gram(model, x, y)
                n = len(x)
                square = float(products.mean())
                yield waiting.pop(0), Frozen(products, square, (float(np.trace(products)) - n * square) / (n - 1))
                continue
        if step % 100 == 99:
            batch = min(2 * batch, len(x))
        ids = torch.randperm(len(x), generator=generator)[:batch]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[ids]), y[ids]).backward()
        optimizer.step()
        step += 1
