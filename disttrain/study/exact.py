"""What the task ``noisy_quadratic`` comes to, worked out: the exact answers that measured ones can be held against.

On a quadratic with noise that does not depend on the weights, the mean and the covariance of SGD's weights follow a linear
recursion, direction by direction (Zhang et al. 2019, arXiv:1907.04164, section 3), and with them the expected loss. Samples are
drawn independently here (``data.order: replacement``). A shuffled order is a little better within an epoch, because what is
left of it is the opposite of what was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Rate = float | Callable[[float], float]
"""A learning rate, or one as a function of the samples seen before the update."""
BLOCK = 256
"""Updates that are looked at together."""


class SolvedQuadratic:
    """The expected course of SGD on ``w' H w / 2 + w' x`` with diagonal ``H``.

    Args:
        curvature: ``(d,)`` the diagonal of ``H``; a task's :attr:`~disttrain.tasks.quadratic.NoisyQuadratic.curvature`.
        variance: ``(d,)`` of a sample's gradient; a task's ``variance``.

    A state is ``(d, 4)``: for each direction the expected ``w^2``, ``w v`` and ``v^2`` of the weight and torch's momentum buffer,
    and 1.

    Examples:
        >>> solved = SolvedQuadratic([1.0], [4.0])
        >>> solved.noise_scale([0.5])  # 4 / 0.5^2
        16.0
        >>> state = solved.begin([0.5])
        >>> round(solved.loss(solved.after(state, samples=8, batch=8, lr=0.1)), 9)  # ((0.9 * 0.5)^2 + 0.1^2 * 4 / 8) / 2
        0.10375
    """

    def __init__(self, curvature: ArrayLike, variance: ArrayLike) -> None:
        self.curvature: Floats = np.asarray(curvature, dtype=np.float64)
        self.variance: Floats = np.asarray(variance, dtype=np.float64)

    def begin(self, w: ArrayLike, momentum_buffer: ArrayLike = 0.0) -> Floats:
        """The state at known weights ``(d,)``, and a known momentum buffer."""
        w, v = np.broadcast_arrays(np.asarray(w, dtype=np.float64), momentum_buffer, self.curvature)[:2]
        return np.stack([w * w, w * v, v * v, np.ones(len(w))], axis=1)

    def loss(self, state: Floats) -> float:
        """The expected loss of the whole set."""
        return float(0.5 * self.curvature @ state[:, 0])

    def noise_scale(self, w: ArrayLike) -> float:
        """``tr(Sigma) / |G|^2`` at weights ``w``, in samples (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.9)."""
        return self.expected_noise_scale(self.begin(w))

    def expected_noise_scale(self, state: Floats) -> float:
        """``tr(Sigma)`` over the expected ``|G|^2``: what averages over many runs give."""
        return float(self.variance.sum() / (self.curvature**2 @ state[:, 0]))

    def losses(self, state: Floats, batch: int, lr: Rate, momentum: float = 0.0) -> Iterator[Floats]:
        """The expected loss after 1, 2, 3 and so on updates, without end, in arrays of some of them."""
        for states in self._states(state, batch, lr, momentum):
            yield 0.5 * states[:, :, 0] @ self.curvature

    def after(self, state: Floats, samples: int, batch: int, lr: Rate, momentum: float = 0.0) -> Floats:
        """The state after the first update by which ``samples`` were seen."""
        left = -(-samples // batch)
        if not left:
            return state
        for states in self._states(state, batch, lr, momentum):
            if left <= len(states):
                last: Floats = states[left - 1]
                return last
            left -= len(states)
        raise AssertionError("the states have no end")

    def updates_to(
        self, target: float, state: Floats, batch: int, lr: Rate, momentum: float = 0.0, *, most: int = 10**6
    ) -> int | None:
        """Updates until the expected loss is ``target`` for the first time; None if it is not after ``most``."""
        if self.loss(state) <= target:
            return 0
        made = 0
        for found in self.losses(state, batch, lr, momentum):
            if (below := np.flatnonzero(found <= target)).size:
                made += int(below[0]) + 1
                return made if made <= most else None
            made += len(found)
            if made >= most or not np.isfinite(found[-1]):
                return None
        raise AssertionError("the losses have no end")

    def _states(self, state: Floats, batch: int, lr: Rate, momentum: float) -> Iterator[Floats]:
        """(n, d, 4): the states after the next n updates, again and again."""
        if callable(lr):
            seen = 0
            while True:
                state = _apply(self._step(batch, lr(seen), momentum), state)
                seen += batch
                yield state[None]
        powers = self._step(batch, lr, momentum)[None]
        with np.errstate(over="ignore", invalid="ignore"):  # too large a rate; the loss then says so
            while len(powers) < BLOCK:
                powers = np.concatenate([powers, powers @ powers[-1]])
            while True:
                states = _apply(powers, state)
                yield states
                state = states[-1]

    def _step(self, batch: int, lr: float, momentum: float) -> Floats:
        """(d, 4, 4): what an update makes of a state. With ``v' = momentum v + h w + x`` and ``w' = w - lr v'``."""
        h, s = self.curvature, self.variance / batch
        a, b, one = 1.0 - lr * h, np.full_like(h, -lr * momentum), np.ones_like(h)
        m, zero = momentum * one, np.zeros_like(h)
        rows = [
            [a * a, 2 * a * b, b * b, lr * lr * s],
            [a * h, a * m + b * h, b * m, -lr * s],
            [h * h, 2 * h * m, m * m, s],
            [zero, zero, zero, one],
        ]
        return np.moveaxis(np.array(rows), 2, 0)


def exact_branch(
    solved: SolvedQuadratic,
    state: Floats,
    samples: int,
    batch: int,
    lr: float,
    law: Callable[[float], float],
    margin: float,
    batches: Sequence[int],
    momentum: float = 0.0,
) -> float:
    """The answer of ``disttrain branch`` without its noise: the batch, in samples, at which the expected loss after ``samples``
    more is ``margin`` above that of ``batch``, between two of the ``batches`` on a line in the logarithm of the batch; infinite
    if it is not above it at the last one.

    Args:
        lr: constant, at ``batch``; at ``k`` times that, ``law(k)`` times as much.
        batches: increasing, the first ``batch``; each should divide ``samples``.
    """
    found = [
        solved.loss(solved.after(state, samples, each, lr * law(each / batch), momentum)) for each in (batch, *batches)
    ]
    gaps = [value - found[0] - margin for value in found[1:]]
    for (near, low), (far, high) in pairwise(zip(batches, gaps, strict=True)):
        if low <= 0.0 < high:
            return math.exp(np.interp(0.0, [low, high], [math.log(near), math.log(far)]))
    return math.inf


def _apply(step: Floats, state: Floats) -> Floats:
    return (step @ state[..., None])[..., 0]
