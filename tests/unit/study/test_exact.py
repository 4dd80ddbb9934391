"""The exact answers for the noisy quadratic against drawn runs in plain NumPy, and a training of the task against one such."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest

import disttrain
from disttrain.errors import InputError
from disttrain.study import exact
from disttrain.study.exact import SolvedQuadratic, exact_branch
from disttrain.tasks.quadratic import NoisyQuadratic

H, C, START = np.array([1.0, 0.3, 0.05]), np.array([0.5, 2.0, 1.0]), np.array([1.0, -2.0, 0.5])


def drawn(batch: int, lr: float, momentum: float, updates: int, runs: int) -> np.ndarray:
    """(runs, updates): losses of so many runs."""
    generator = np.random.default_rng(0)
    w, v = np.tile(START, (runs, 1)), np.zeros((runs, 3))
    found = []
    for _ in range(updates):
        v = momentum * v + H * w + generator.normal(size=w.shape) * np.sqrt(C / batch)
        w = w - lr * v
        found.append((0.5 * H * w * w).sum(1))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_expected_losses_are_those_of_many_runs(momentum: float) -> None:
    solved, (batch, lr) = SolvedQuadratic(H, C), (4, 0.2)
    found = drawn(batch, lr, momentum, updates=300, runs=4000)
    expected = next(solved.losses(solved.begin(START), batch, lr, momentum))
    error = found.std(axis=0) / math.sqrt(len(found))
    places = [0, 1, 9, 99, 255]
    assert (np.abs(found.mean(0)[places] - expected[places]) < 5 * error[places]).all()
    last = solved.loss(solved.after(solved.begin(START), 300 * batch, batch, lr, momentum))
    assert abs(found.mean(0)[299] - last) < 5 * error[299]


def test_a_schedule_is_followed_and_the_first_crossing_is_found() -> None:
    solved = SolvedQuadratic(H, C)
    state = solved.begin(START)
    falling = solved.after(state, 40, 4, lambda samples: 0.2 * (1 - samples / 40))
    by_hand = state
    for i in range(10):
        by_hand = solved.after(by_hand, 4, 4, 0.2 * (1 - i / 10))
    np.testing.assert_allclose(falling, by_hand, rtol=1e-12)
    every = np.concatenate([losses for losses, _ in zip(solved.losses(state, 4, 0.02), range(4), strict=False)])
    target = float(every[700])
    assert solved.updates_to(target, state, 4, 0.02) == int(np.flatnonzero(every <= target)[0]) + 1 == 701
    assert solved.updates_to(target, state, 4, 0.02, most=700) is None
    assert solved.updates_to(1e-9, state, 4, 0.02, most=2000) is None, "beyond what the noise allows"
    assert solved.updates_to(0.1, state, 4, 50.0) is None, "too large a rate"
    assert solved.updates_to(100.0, state, 4, 0.02) == 0
    assert doctest.testmod(exact).failed == 0


def test_the_exact_branch_is_where_the_expected_loss_crosses_the_margin() -> None:
    """One direction without noise: after so many updates at k times the batch, (1 - sqrt(k) lr)^(n / k) is left of it."""
    solved = SolvedQuadratic([1.0], [0.0])
    state = solved.begin([1.0])

    def loss(k: int) -> float:
        return 0.5 * (1 - 0.01 * k**0.5) ** (2 * 64 / k)

    found = exact_branch(solved, state, 64, 1, 0.01, math.sqrt, loss(8) - loss(1), [1, 2, 4, 8, 16])
    assert found == pytest.approx(8)
    margin = 0.5 * (loss(8) + loss(16)) - loss(1)
    assert (
        found < exact_branch(solved, state, 64, 1, 0.01, math.sqrt, margin, [1, 8, 16]) == pytest.approx(math.sqrt(128))
    )
    assert exact_branch(solved, state, 64, 1, 0.01, math.sqrt, 1.0, [1, 8, 16]) == math.inf


def test_a_training_of_the_task_is_sgd_on_the_quadratic(tmp_path: Path) -> None:
    recipe = {
        "task": {"name": "noisy_quadratic", "dimension": 5, "exponent": 1.5, "train_samples": 64, "data_seed": 3},
        "batch": {"global": 8},
        "updates": 20,
        "data": {"order": "replacement"},
        "optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.5},
        "precision": "fp64",
        "log": {"sample_ids": True},
    }
    result = disttrain.train(recipe, run_dir=tmp_path / "run", quiet=True)
    task = NoisyQuadratic(dimension=5, exponent=1.5, train_samples=64, data_seed=3)
    samples = task.train_dataset().gather(np.arange(64), 0)[0].double().numpy()  # type: ignore[union-attr]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    w, v = np.ones(5), np.zeros(5)
    for line in lines:
        if line.get("event") == "samples":
            v = 0.5 * v + task.curvature * w + samples[line["ids"]].mean(0)
            w = w - 0.3 * v
    assert result.metrics["validation_loss"] == pytest.approx(0.5 * (task.curvature * w * w).sum(), rel=1e-12)
    assert result.metrics["loss"] == result.metrics["validation_loss"]
    np.testing.assert_allclose(samples.sum(0), 0.0, atol=1e-12)


def test_the_samples_have_the_variance_that_is_asked_for() -> None:
    task = NoisyQuadratic(dimension=4, curvature=2.0, exponent=1.0, noise=3.0, noise_exponent=0.5, train_samples=20000)
    np.testing.assert_allclose(task.curvature, [2, 1, 2 / 3, 0.5])
    np.testing.assert_allclose(task.variance, 3 * np.sqrt(task.curvature))
    samples = task.train_dataset().gather(np.arange(20000), 0)[0].numpy()  # type: ignore[union-attr]
    np.testing.assert_allclose(samples.var(0), task.variance, rtol=0.05)
    other = NoisyQuadratic(dimension=4, curvature=2.0, noise=3.0, noise_exponent=0.5, train_samples=20000, data_seed=1)
    assert task.fingerprint() != other.fingerprint()
    with pytest.raises(InputError, match="choose an even number"):
        NoisyQuadratic(train_samples=3)
