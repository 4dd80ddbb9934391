"""The gradient noise scale: how large a batch is worth its samples (McCandlish et al. 2018, arXiv:1812.06162)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from disttrain.grads.noise_blocks import INDEPENDENT, Block, Blocks
from disttrain.grads.noise_interval import NoiseEstimate, noise_estimate

__all__ = ["NoiseScale", "cost_of", "efficiency", "noise_scale_moments"]


def noise_scale_moments(
    small_square: float, big_square: float, small_batch: float, big_batch: float, population: int | None = None
) -> tuple[float, float]:
    """Unbiased estimates ``(|G|^2, tr(Sigma))`` from one update (appendix A.1, eq. A.2).

    Uses ``E|G_B|^2 = |G|^2 + tr(Sigma) / B`` at two batch sizes. Each may come out negative in a single update; keep the sign.

    Samples drawn without replacement from a train set of N follow ``|G_N|^2 + tr(Sigma) (1 / B - 1 / N)`` instead, where
    ``G_N`` is the gradient over the whole set and ``Sigma`` the covariance with the denominator N - 1 (Cochran 1977, "Sampling
    Techniques", theorem 2.2): the difference of two sizes tells the trace as before, and ``trace / N`` is added to the first.

    Args:
        small_square: mean squared norm of the gradients of batches of ``small_batch`` samples. Of slices of the big batch whose
            sizes n differ, ``sum n^2 |g|^2 / sum n^2`` of ``sum n^2 / sum n`` samples: then what each slice says of itself
            cancels out of ``|G|^2``, and with a plain mean it would add noise.
        big_square: squared norm of the gradient of the batch of ``big_batch`` samples.
        population: N; None: samples are independent draws.

    Raises:
        ValueError: the batches do not differ, or are larger than the population.
    """
    if not 0 < small_batch < big_batch:
        raise ValueError(f"noise_scale_moments: small_batch={small_batch} must lie between 0 and big_batch={big_batch}")
    if population is not None and big_batch > population:
        raise ValueError(f"noise_scale_moments: big_batch={big_batch} exceeds population={population}")
    square_norm = (big_batch * big_square - small_batch * small_square) / (big_batch - small_batch)
    trace = (small_square - big_square) / (1.0 / small_batch - 1.0 / big_batch)
    return (square_norm if population is None else square_norm + trace / population), trace


class NoiseScale:
    """A running estimate of ``B_simple = tr(Sigma) / |G|^2``, in samples, of the train set.

    Both moments are averaged over the readings in memory, weighed with the samples of their batches, and only then divided:
    the ratio of averages is what the paper recommends, the average of ratios is badly biased. How much is remembered follows
    what is needed to tell ``|G|^2``; see :class:`~disttrain.grads.noise_blocks.Blocks`. Where the weights move meanwhile, the
    averages are over that time, and blocks that differ widen the interval.

    Attributes:
        count: readings so far, those no longer remembered included.
    """

    def __init__(self) -> None:
        self.count = 0
        self._blocks = Blocks()

    def update(
        self,
        small_square: float,
        big_square: float,
        *,
        small_batch: float,
        big_batch: float,
        population: int | None = None,
        epoch: int | None = None,
    ) -> None:
        """Take in one reading; arguments as for :func:`noise_scale_moments`.

        Args:
            epoch: number of the epoch that the batch is of; None where batches are independent draws.
        """
        square, trace = noise_scale_moments(small_square, big_square, small_batch, big_batch, population)
        number = INDEPENDENT if epoch is None else epoch
        self._blocks.add(Block(1, big_batch, big_batch * square, big_batch * trace, number, number))
        self.count += 1

    @property
    def square_norm(self) -> float:
        """Average ``|G|^2``; 0 before the first reading, and possibly negative after few."""
        return self._average(lambda block: block.square)

    @property
    def trace(self) -> float:
        """Average ``tr(Sigma)``, likewise."""
        return self._average(lambda block: block.trace)

    @property
    def value(self) -> float | None:
        """``tr(Sigma) / |G|^2``; None before it can be told: nothing measured, or an average that is not positive."""
        square, trace = self.square_norm, self.trace
        return trace / square if square > 0.0 and trace > 0.0 else None

    def estimate(self, level: float = 0.95) -> NoiseEstimate:
        """The noise scale with its interval, see :func:`~disttrain.grads.noise_interval.noise_estimate`."""
        return noise_estimate(self._blocks.clusters(), level)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers to go on from."""
        blocks = self._blocks
        return {"count": self.count, "length": blocks.length, "span": blocks.span, "blocks": blocks.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.count = int(state["count"])
        self._blocks.load(state["length"], state["span"], state["blocks"])

    def _average(self, of: Callable[[Block], float]) -> float:
        clusters = self._blocks.clusters()
        return sum(map(of, clusters)) / sum(c.weight for c in clusters) if clusters else 0.0


def efficiency(batch: float, noise_scale: float) -> float:
    """Progress per sample at ``batch``, as a share of what a tiny batch makes: ``1 / (1 + B / B_noise)`` (by eq. 2.7).

    Examples:
        >>> efficiency(1000, noise_scale=1000)
        0.5
    """
    return 1.0 / (1.0 + batch / noise_scale)


def cost_of(batch: float, noise_scale: float) -> tuple[float, float]:
    """``(updates, samples)`` to reach a target at ``batch``, as multiples of the fewest possible of each: ``1 +
    B_noise / B`` and ``1 + B / B_noise`` (section 2.3, eq. 2.11 and 2.12).

    Examples:
        >>> cost_of(2000, noise_scale=1000)
        (1.5, 3.0)
    """
    return 1.0 + noise_scale / batch, 1.0 + batch / noise_scale
