"""Noise has the mean and the covariance it promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from disttrain import grads

BATCH, MATCH, DRAWS = 64, 8, 40000


def per_sample_gradients() -> np.ndarray:
    """(64, 3): of a linear model, with a mean that matters."""
    generator = np.random.default_rng(1)
    x, noise = generator.normal(size=(BATCH, 3)), generator.normal(size=BATCH)
    return x * (x @ np.array([1.0, -2.0, 0.5]) + noise)[:, None]


def noisy_means(weights: np.ndarray) -> np.ndarray:
    return weights @ per_sample_gradients() / BATCH


def test_the_covariance_is_that_of_the_small_batch() -> None:
    generator = torch.Generator().manual_seed(2)
    normals = torch.randn(DRAWS, BATCH, generator=generator, dtype=torch.float64)
    weights = torch.stack([grads.sample_weights(e, MATCH) for e in normals]).numpy()
    np.testing.assert_allclose(weights.mean(1), 1.0, rtol=1e-12)
    g = per_sample_gradients()
    centred = g - g.mean(0)
    # Given the 64 samples, the noise must add what a mean of 8 has more of than one of 64; unbiased sample covariance.
    sample = centred.T @ centred / (BATCH - 1)
    wanted = sample * (1 / MATCH - 1 / BATCH)
    found = np.cov(noisy_means(weights).T, bias=True)
    np.testing.assert_allclose(noisy_means(weights).mean(0), g.mean(0), atol=5 * np.sqrt(wanted.max() / DRAWS))
    assert np.trace(found) == pytest.approx(np.trace(wanted), rel=0.02)
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.03
    # Independent weights, as printed in the paper, add the square of the mean gradient: more than the error of the simulation.
    plain = 1 + np.sqrt(BATCH / MATCH - 1) * normals.numpy()
    excess = np.trace(np.cov(noisy_means(plain).T, bias=True)) / np.trace(wanted)
    assert excess > 1.1


@given(st.integers(2, 500), st.integers(1, 500))
def test_weights_have_mean_one_and_the_stated_variance(batch: int, match: int) -> None:
    variance = grads.noise_variance(batch, match)
    if batch <= match:
        assert variance == 0.0
        assert grads.sample_weights(torch.randn(batch), match).tolist() == [1.0] * batch
    else:
        assert variance == pytest.approx((batch / match - 1) * batch / (batch - 1))


def test_annealed_noise_fades_and_is_the_same_for_the_same_seed() -> None:
    assert grads.annealed_variance(0, 0.3) == 0.3
    assert grads.annealed_variance(99, 0.3) == pytest.approx(0.3 / 100**0.55)
    found = []
    for seed in (7, 7, 8):
        params = [nn.Parameter(torch.zeros(300, 200)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))]
        params[0].grad, params[1].grad = torch.ones(300, 200), torch.zeros(5)
        grads.add_noise_(params, std=0.5, seed=seed)
        assert params[2].grad is None
        found.append([p.grad for p in params[:2]])
    (a, b), (c, d), (e, _) = found
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, e)
    assert float(a.mean()) == pytest.approx(1.0, abs=5 * 0.5 / 60000**0.5)
    assert float(a.std()) == pytest.approx(0.5, rel=0.02)
