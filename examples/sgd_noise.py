"""What a batch buys, on the smallest example there is: a straight line through noisy points, in half a minute.

    python examples/sgd_noise.py [DIRECTORY]

Writes ``paths.svg``, the way of gradient descent with four batch sizes over the same samples, and ``batches.svg``, the updates
and the samples that each batch size needs to come equally close, each with its best rate, beside the curve of McCandlish et al.
2018 (arXiv:1812.06162, eq. 2.11 and 2.12). Needs matplotlib: pip install "disttrain[report]".
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from disttrain.grads import cost_of

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "disttrain"})  # text as text, the same file every time

Array = NDArray[np.float64]

POINTS, SEED = 4096, 1
TRUE = np.array([2.0, 0.5])
START = np.array([-1.0, -1.5])
BATCHES = 2 ** np.arange(10)
RATES = 2.0 ** np.arange(-7, 1.1, 0.5)
REPEATS = 64


def make_points() -> tuple[Array, Array]:
    """``(POINTS, 2)``: x and 1; ``(POINTS,)``: y, with noise of standard deviation 1."""
    draws = np.random.default_rng(SEED)
    x = draws.uniform(0.0, 1.0, POINTS)
    inputs = np.stack([x, np.ones(POINTS)], axis=1)
    return inputs, inputs @ TRUE + draws.normal(0.0, 1.0, POINTS)


INPUTS, TARGETS = make_points()
BEST = np.linalg.lstsq(INPUTS, TARGETS, rcond=None)[0]
HESSIAN = INPUTS.T @ INPUTS / POINTS


def excess(line: Array) -> Array:
    """Loss above that of the best line, of ``(..., 2)`` slopes and intercepts: ``1/2 (w - best)' H (w - best)``."""
    away = line - BEST
    return np.asarray(0.5 * np.einsum("...i,ij,...j->...", away, HESSIAN, away))


def noise_scale(line: Array) -> float:
    """``tr(Sigma) / |G|^2``, exactly, from the gradient of every point."""
    gradients = (INPUTS @ line - TARGETS)[:, None] * INPUTS
    mean = gradients.mean(axis=0)
    return float(((gradients - mean) ** 2).sum(axis=1).mean() / (mean**2).sum())


def step(lines: Array, batch: int, rate: float, draws: np.random.Generator) -> Array:
    """One update of ``(repeats, 2)`` lines, each with a batch of its own."""
    chosen = draws.integers(0, POINTS, (len(lines), batch))
    errors = np.einsum("rbi,ri->rb", INPUTS[chosen], lines) - TARGETS[chosen]
    return lines - rate * np.asarray(np.einsum("rb,rbi->ri", errors, INPUTS[chosen])) / batch


def updates_to(target: float, batch: int, rate: float, most: int) -> int:
    """Updates until the mean excess over ``REPEATS`` repeats is at most ``target``; ``most`` if that takes as many."""
    draws, lines = np.random.default_rng(SEED), np.tile(START, (REPEATS, 1))
    for number in range(1, most):
        lines = step(lines, batch, rate, draws)
        loss = float(excess(lines).mean())
        if loss <= target:
            return number
        if loss > 10.0 * excess(START):
            return most
    return most


def fewest_updates(target: float, batch: int) -> int:
    """With the best of ``RATES`` for this batch: what a fair comparison of batches needs."""
    fewest = 2000
    for rate in RATES[::-1]:
        fewest = min(fewest, updates_to(target, batch, float(rate), fewest))
    return fewest


def draw_paths(file: Path, samples: int = 512, rate: float = 0.25) -> None:
    """Four ways through the same number of samples, each batch with the same rate."""
    slopes, intercepts = np.meshgrid(np.linspace(-1.5, 4.0, 40), np.linspace(-2.0, 2.5, 40))
    loss = excess(np.stack([slopes, intercepts], axis=-1))
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), sharey=True, layout="constrained")
    for axis, batch in zip(axes, (1, 8, 64, 512), strict=True):
        draws, lines = np.random.default_rng(SEED), [START[None]]
        for _ in range(samples // batch):
            lines.append(step(lines[-1], batch, rate, draws))
        way = np.concatenate(lines)
        axis.contour(slopes, intercepts, loss, levels=np.geomspace(0.01, 10, 10), colors="0.8", linewidths=0.8)
        axis.plot(*way.T, ".-", color="#0072B2", linewidth=1, markersize=4)
        axis.plot(*BEST, "*", color="#D55E00", markersize=13)
        updates = samples // batch
        axis.set_title(f"batch {batch}: {updates} update{'s' * (updates > 1)}")
        axis.set_xlabel("slope")
    axes[0].set_ylabel("intercept")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def draw_batches(file: Path, updates: Array, scale: float) -> None:
    """Measured updates and samples against the batch, and the curve of this critical batch through their ends."""
    fewest, least = updates[-1] / cost_of(float(BATCHES[-1]), scale)[0], updates[0] / cost_of(1.0, scale)[1]
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    grid = np.geomspace(1, BATCHES[-1], 100)
    axis.loglog(BATCHES, updates, "o", color="#0072B2", label="updates, measured")
    axis.loglog(BATCHES, updates * BATCHES, "s", color="#D55E00", label="samples, measured")
    axis.loglog(grid, fewest * (1 + scale / grid), color="#0072B2", alpha=0.5)
    axis.loglog(grid, least * (1 + grid / scale), color="#D55E00", alpha=0.5)
    axis.axvline(scale, color="0.5", linestyle=":", label=f"critical batch {scale:.0f}")
    axis.set_xlabel("batch, in samples")
    axis.set_ylabel("needed to come equally close")
    axis.legend()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    directory.mkdir(parents=True, exist_ok=True)
    target = 0.01 * float(excess(START))
    draw_paths(directory / "paths.svg")
    first, last = noise_scale(START), noise_scale(BEST + 0.1 * (START - BEST))
    print(f"noise scale: {first:.1f} at the start, {last:.1f} at the target")
    updates = np.array([fewest_updates(target, int(batch)) for batch in BATCHES], dtype=np.float64)
    print("batch  updates  samples")
    for batch, number in zip(BATCHES, updates, strict=True):
        print(f"{batch:5}  {number:7.0f}  {number * batch:7.0f}")
    # E / E_min = 2 where the batch is critical; here from the ends of the table.
    critical = float(updates[0]) / float(updates[-1])
    print(f"critical batch, samples of the smallest over updates of the largest: {critical:.1f}")
    draw_batches(directory / "batches.svg", updates, critical)


if __name__ == "__main__":
    main()
