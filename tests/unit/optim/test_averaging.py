"""Averages of the weights against float64 by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.optim import EMA, SWA


def walk(steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, 4)).cumsum(0)


def test_ema_by_hand() -> None:
    path, sizes = walk(30), np.random.default_rng(1).integers(1, 200, 30)
    w = nn.Parameter(torch.ones(4, dtype=torch.float64))
    ema, expected = EMA([w], half_life=500), np.ones(4)
    for value, samples in zip(path, sizes, strict=True):
        w.data.copy_(torch.from_numpy(value))
        ema.update(int(samples))
        d = 0.5 ** (samples / 500)
        expected = d * expected + (1 - d) * value
    np.testing.assert_allclose(ema.weights[0].numpy(), expected, rtol=1e-12)


def test_ema_does_not_depend_on_how_the_batch_is_cut() -> None:
    w = torch.zeros(3, dtype=torch.float64)
    one, many = EMA([w], half_life=64), EMA([w], half_life=64)
    w.fill_(2.0)
    one.update(96)
    for _ in range(6):
        many.update(16)
    torch.testing.assert_close(one.weights, many.weights, rtol=1e-12, atol=0)


def test_swa_is_the_mean_of_the_points_that_were_due() -> None:
    path = walk(40)
    w = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    swa, points = SWA([w], start=100, every=30), []
    due = 100
    for t, value in enumerate(path):
        w.data.copy_(torch.from_numpy(value))
        swa.update(10)
        if 10 * (t + 1) >= due:
            points.append(value)
            due += 30
        expected = np.mean(points, axis=0) if points else value
        np.testing.assert_allclose(swa.weights[0].numpy(), expected, rtol=1e-12)
    assert len(points) == 11


def test_an_update_that_passes_several_points_counts_once() -> None:
    w = torch.zeros(1)
    swa = SWA([w], start=10, every=10)
    for value, samples in ((1.0, 10), (4.0, 55), (7.0, 4), (7.0, 1)):
        w.fill_(value)
        swa.update(samples)
    assert swa.count == 3  # at 10, at 65 (for 20 to 60), and at 70
    assert float(swa.weights[0]) == pytest.approx(4.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_stands_in_and_steps_back(dtype: torch.dtype) -> None:
    model = nn.Linear(2, 2).to(dtype)
    ema = EMA(model.parameters(), half_life=10)
    average = [w.clone() for w in ema.weights]
    assert all(w.dtype == torch.float32 for w in average)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    now = [p.detach().clone() for p in model.parameters()]

    def interrupted() -> None:
        with ema.applied():
            assert all(torch.equal(p, a.to(dtype)) for p, a in zip(model.parameters(), average, strict=True))
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert all(torch.equal(p, n) for p, n in zip(model.parameters(), now, strict=True))


@pytest.mark.parametrize("make", [lambda p: EMA(p, half_life=50), lambda p: SWA(p, start=20, every=20)])
def test_state_round_trip(make: Callable[[list[torch.Tensor]], EMA | SWA]) -> None:
    w = torch.zeros(4, dtype=torch.float64)
    whole, path = make([w]), walk(20)
    for t, value in enumerate(path):
        if t == 9:
            again = make([torch.ones(4, dtype=torch.float64)])
            again.load_state_dict(whole.state_dict())
            again.params = [w]
        w.copy_(torch.from_numpy(value))
        whole.update(10)
        if t >= 9:
            again.update(10)
    torch.testing.assert_close(again.weights, whole.weights, rtol=0, atol=0)
    with pytest.raises(ValueError, match="shapes"):
        whole.load_state_dict({**whole.state_dict(), "weights": [torch.zeros(3)]})


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="half_life"):
        EMA([], half_life=0)
    with pytest.raises(ValueError, match="every"):
        SWA([], start=0, every=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_weights_have_a_float32_average(dtype: torch.dtype) -> None:
    path = torch.from_numpy(walk(40)).to(dtype)
    w = nn.Parameter(path[0].clone())
    ema, swa = EMA([w], half_life=100), SWA([w], start=10, every=10)
    expected, d = path[0].double().numpy(), 0.5 ** (10 / 100)
    for value in path:
        w.data.copy_(value)
        ema.update(10)
        swa.update(10)
        expected = d * expected + (1 - d) * value.double().numpy()
    np.testing.assert_allclose(ema.weights[0].numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(swa.weights[0].numpy(), path.double().mean(0).numpy(), rtol=1e-5, atol=1e-6)
