"""AdaScale: the learning rate's gain from a larger batch, as measured (Johnson et al. 2020, arXiv:2007.05105)."""

from __future__ import annotations

__all__ = ["adascale_gain"]


def adascale_gain(variance: float, square_norm: float, scale: float) -> float:
    """``(variance + square_norm) / (variance / scale + square_norm)``, in [1, scale] (eq. 3).

    Where the gradient is all noise, a batch ``scale`` times as large allows as many times the learning rate; where
    there is no noise, it allows nothing more. Negative estimates count as 0, and where nothing is left the gain is 1.

    Args:
        variance: trace of the gradient's covariance at the reference batch.
        square_norm: squared norm of the true gradient.
        scale: batch / reference batch, at least 1.

    Examples:
        >>> adascale_gain(1.0, 0.0, 8), adascale_gain(0.0, 1.0, 8), round(adascale_gain(7.0, 1.0, 8), 4)
        (8.0, 1.0, 4.2667)
    """
    if scale < 1.0:
        raise ValueError(f"adascale_gain: scale={scale} must be at least 1; the reference batch is the smallest")
    variance, square_norm = max(variance, 0.0), max(square_norm, 0.0)
    if variance + square_norm == 0.0:
        return 1.0
    return (variance + square_norm) / (variance / scale + square_norm)
