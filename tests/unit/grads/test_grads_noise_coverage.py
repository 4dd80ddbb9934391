"""The quick form of ``benchmarks/noise_coverage.py``: real gradients, frozen, and how often intervals hold the exact value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import frozen as frozen_at
from benchmarks import noise_coverage as coverage
from disttrain.data.order import GlobalShuffle
from disttrain.models.mlp import MLP
from disttrain.tasks.digits import Digits

N = 400


def gradients() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    images, labels = (t[:N] for t in Digits().train_dataset().tensors)  # type: ignore[union-attr]
    return MLP((1, 8, 8), 10, hidden=[12], norm="layer").double(), images.double(), labels


def frozen(scale: float) -> frozen_at.Frozen:
    """A real network's gradients at its beginning, moved together so that the noise scale is ``scale``."""
    g = frozen_at.per_sample(*gradients()).numpy()
    trace = float(g.var(0, ddof=1).sum())
    mean = g.mean(0)
    g += mean * (np.sqrt(trace / scale) / np.linalg.norm(mean) - 1)
    return frozen_at.Frozen(g @ g.T, trace / scale, trace)


def test_readings_are_those_of_real_micro_batches() -> None:
    model, x, y = gradients()
    state = frozen_at.Frozen(frozen_at.gram(model, x, y), *frozen_at.exact(model, x, y))
    assert state.square == pytest.approx(state.gram.mean(), rel=1e-12)
    order = GlobalShuffle(N, 3)
    of_cut = coverage.readings(state, order, first=4, every=1, count=6)
    for cut, sizes in coverage.SLICES.items():
        batches = [(epoch, ids) for epoch, ids in coverage.batches(order, 4, 6, 1) if len(sizes(len(ids))) > 1]
        for reading, (epoch, ids) in zip(of_cut[cut], batches, strict=False):
            parts = torch.as_tensor(ids).split(sizes(len(ids)))
            found = []
            for part in (*parts, torch.as_tensor(ids)):
                loss = nn.functional.cross_entropy(model(x[part]), y[part])
                found.append(sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters()))))
            weights = np.square([len(part) for part in parts])
            assert reading["small_square"] == pytest.approx(np.average(found[:-1], weights=weights), rel=1e-12)
            assert reading["big_square"] == pytest.approx(found[-1], rel=1e-12)
            assert reading["epoch"] == epoch


@pytest.mark.parametrize(
    "scale", [pytest.param(30.0, marks=pytest.mark.slow), 640.0, pytest.param(1200.0, marks=pytest.mark.slow)]
)
def test_intervals_hold_the_exact_value(scale: float) -> None:
    state, cells = frozen(scale), []
    for shuffled in (True, False):
        cells += coverage.sequences(state, shuffled, 1, repeats=30, seed=7, counts=(100, 200)).values()
    reports = sum(cell["reports"] for cell in cells)
    assert reports == 30 * 2 * 2 * 3
    assert 0.90 <= sum(cell["held"] for cell in cells) / reports <= 0.995
    one_sided = sum(cell["one_sided"] for cell in cells)
    assert sum(cell["one_sided_held"] for cell in cells) >= 0.95 * one_sided
    assert (scale < 100) == (one_sided == 0)
