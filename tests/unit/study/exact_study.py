"""The answer of ``disttrain study`` on the noisy quadratic without its noise: by the recursion of the expected loss."""

from __future__ import annotations

import numpy as np

from disttrain.study.exact import SolvedQuadratic
from disttrain.study.fit import fit_hyperbola


def least_samples(solved: SolvedQuadratic, start: np.ndarray, batch: int, target: float, most: int) -> float:
    """Samples to the target at the best constant rate, between updates on a line; infinite where it takes more than ``most``."""
    state, best = solved.begin(start), np.inf
    for lr in np.geomspace(2e-4, 2.0, 140):
        seen, before = 0, solved.loss(state)
        for losses in solved.losses(state, batch, float(lr)):
            below = np.flatnonzero(losses <= target)
            if below.size:
                i = int(below[0])
                above = before if i == 0 else losses[i - 1]
                best = min(best, (seen + i + (above - target) / (above - losses[i])) * batch)
                break
            seen, before = seen + len(losses), losses[-1]
            if seen * batch > min(most, best) or not np.isfinite(before) or before > 1e3 * solved.loss(state):
                break
    return best


def exact_critical_batch(solved: SolvedQuadratic, start: np.ndarray, batches: list[int], target: float) -> float:
    """Of the hyperbola through the least samples of each batch."""
    samples = [least_samples(solved, start, b, target, 10**7) for b in batches]
    fit = fit_hyperbola(batches, [[s * 0.999, s * 1.001] for s in samples], [0.0] * len(batches))
    assert fit is not None
    return fit.critical_batch.value
