"""Noise on gradients: the noise a smaller batch would have had, or noise that fades away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["add_noise_", "annealed_variance", "noise_variance", "sample_weights"]


def noise_variance(batch: int, match_batch: int) -> float:
    """Variance of the sample weights with which a batch of M samples has the gradient covariance of ``match_batch``
    samples: ``(k - 1) M / (M - 1)`` with ``k = M / match_batch``; 0 where the batch is no larger.

    Hoffer et al. (2017, arXiv:1705.08741, section 4) use independent weights, for which the variance is ``k - 1`` and right
    only where the mean gradient is negligible, because its square adds to the covariance. Weights centred over the batch,
    as in :func:`sample_weights`, leave the mean gradient alone, and this variance is exact. Derived: with
    ``Cov(z_i, z_j) = sigma^2 (delta_ij - 1 / M)`` the noise adds ``sigma^2 / M^2 * sum (g_n - g)(g_n - g)^T``, in expectation
    ``sigma^2 (M - 1) / M^2`` times the samples' covariance, and ``1 / match_batch - 1 / M`` times it is wanted.

    Examples:
        >>> noise_variance(512, 64) == 7 * 512 / 511, noise_variance(64, 64)
        (True, 0.0)
    """
    if batch <= match_batch or batch < 2:
        return 0.0
    return (batch / match_batch - 1.0) * batch / (batch - 1.0)


def sample_weights(normals: Tensor, match_batch: int) -> Tensor:
    """Weights ``z_n = 1 + sigma (e_n - mean(e))`` of the losses of a global batch; their mean is exactly 1.

    Multiply each sample's loss by its weight before the sum: the gradient is linear in the losses, so one backward
    makes the noisy gradient (Hoffer et al. 2017, arXiv:1705.08741, section 4). Weights may be negative, and must be
    left so. Report the unweighted loss. An alternative to square-root scaling of the learning rate, not an addition.

    Args:
        normals: ``(M,)`` standard normal draws for the *whole* global batch, the same on every rank; a rank then
            takes the weights of its own samples, and nothing needs to be exchanged.
        match_batch: the batch whose gradient covariance is wanted.

    Examples:
        >>> z = sample_weights(torch.tensor([1.0, -1.0, 3.0, 1.0], dtype=torch.float64), match_batch=2)
        >>> float(z.mean()), [round(float(x), 3) for x in z]
        (1.0, [1.0, -1.309, 3.309, 1.0])
    """
    sigma = noise_variance(len(normals), match_batch) ** 0.5
    weights: Tensor = 1.0 + sigma * (normals - normals.mean())
    return weights


def annealed_variance(step: int, eta: float, gamma: float = 0.55) -> float:
    """``eta / (1 + step) ** gamma`` (Neelakantan et al. 2015, arXiv:1511.06807, eq. 2), ``step`` counted from 0. The
    paper tries eta of 0.01, 0.3 and 1.

    Examples:
        >>> annealed_variance(0, 0.3), round(annealed_variance(99, 0.3), 4)
        (0.3, 0.0238)
    """
    return float(eta / (1.0 + step) ** gamma)


def add_noise_(params: Sequence[nn.Parameter], std: float, seed: int) -> None:
    """Add ``N(0, std^2)`` to every element of every gradient, in place: after the reduction and after clipping, with
    the same ``seed`` on all ranks, or their weights drift apart.

    The draws come from a generator of the gradients' device, seeded anew in each call: a CPU and a GPU draw different
    numbers from the same seed, but no generator has a state that a restart would have to bring back.
    """
    found = [p.grad for p in params if p.grad is not None]
    if not found or std == 0.0:
        return
    generator = torch.Generator(found[0].device).manual_seed(seed % 2**63)
    for grad in found:
        grad.add_(torch.randn(grad.shape, generator=generator, dtype=grad.dtype, device=grad.device), alpha=std)
