"""The gradient noise scale: how large a batch is worth its samples (McCandlish et al. 2018, arXiv:1812.06162)."""

from __future__ import annotations

from typing import Any

__all__ = ["NoiseScale", "cost_of", "efficiency", "noise_scale_moments"]


def noise_scale_moments(
    small_square: float, big_square: float, small_batch: float, big_batch: float
) -> tuple[float, float]:
    """Unbiased estimates ``(|G|^2, tr(Sigma))`` from one update (appendix A.1, eq. A.2 and A.3).

    Uses ``E|G_B|^2 = |G|^2 + tr(Sigma) / B`` at two batch sizes. Each may come out negative in a single update; keep the sign.

    Args:
        small_square: mean squared norm of the gradients of batches of ``small_batch`` samples (for sizes that differ:
            their harmonic mean).
        big_square: squared norm of the gradient of the batch of ``big_batch`` samples.

    Raises:
        ValueError: the batches do not differ.
    """
    if not 0 < small_batch < big_batch:
        raise ValueError(f"noise_scale_moments: small_batch={small_batch} must lie between 0 and big_batch={big_batch}")
    square_norm = (big_batch * big_square - small_batch * small_square) / (big_batch - small_batch)
    trace = (small_square - big_square) / (1.0 / small_batch - 1.0 / big_batch)
    return square_norm, trace


class NoiseScale:
    """A running estimate of ``B_simple = tr(Sigma) / |G|^2``, in samples.

    Both moments are averaged exponentially and only then divided: the ratio of averages is what the paper recommends,
    the average of ratios is badly biased. Averages start unbiased (the division cancels their common factor).

    Args:
        memory: how many measurements the average remembers; the decay is ``1 - 1 / memory``.
    """

    def __init__(self, memory: float = 50.0) -> None:
        if memory < 1.0:
            raise ValueError(f"NoiseScale: memory={memory} must be at least 1")
        self.decay = 1.0 - 1.0 / memory
        self.count = 0
        self._square_norm = 0.0
        self._trace = 0.0

    def update(self, small_square: float, big_square: float, *, small_batch: float, big_batch: float) -> None:
        """Take in one measurement; arguments as for :func:`noise_scale_moments`."""
        square_norm, trace = noise_scale_moments(small_square, big_square, small_batch, big_batch)
        self.count += 1
        self._square_norm = self.decay * self._square_norm + (1.0 - self.decay) * square_norm
        self._trace = self.decay * self._trace + (1.0 - self.decay) * trace

    @property
    def square_norm(self) -> float:
        """Average ``|G|^2``; 0 before the first measurement, and possibly negative after few."""
        return self._square_norm / self._weight

    @property
    def trace(self) -> float:
        """Average ``tr(Sigma)``, likewise."""
        return self._trace / self._weight

    @property
    def value(self) -> float | None:
        """``tr(Sigma) / |G|^2``; None before it can be told: nothing measured, or an average that is not positive."""
        if self.count == 0 or self._square_norm <= 0.0 or self._trace <= 0.0:
            return None
        return self._trace / self._square_norm

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers to go on from."""
        return {"count": self.count, "square_norm": self._square_norm, "trace": self._trace}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.count, self._square_norm, self._trace = state["count"], state["square_norm"], state["trace"]

    @property
    def _weight(self) -> float:
        return 1.0 - self.decay**self.count if self.count else 1.0


def efficiency(batch: float, noise_scale: float) -> float:
    """Progress per sample at ``batch``, as a share of what a tiny batch makes: ``1 / (1 + B / B_noise)`` (eq. 2.11).

    Examples:
        >>> efficiency(1000, noise_scale=1000)
        0.5
    """
    return 1.0 / (1.0 + batch / noise_scale)


def cost_of(batch: float, noise_scale: float) -> tuple[float, float]:
    """``(updates, samples)`` to reach a target at ``batch``, as multiples of the fewest possible of each: ``1 +
    B_noise / B`` and ``1 + B / B_noise`` (eq. 2.11 and 2.12).

    Examples:
        >>> cost_of(2000, noise_scale=1000)
        (1.5, 3.0)
    """
    return 1.0 + noise_scale / batch, 1.0 + batch / noise_scale
