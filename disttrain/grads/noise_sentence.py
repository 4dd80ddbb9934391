"""A noise scale in a sentence that somebody can act on."""

from __future__ import annotations

import math

from disttrain.grads.noise_interval import NoiseEstimate

__all__ = ["noise_words"]


def noise_words(
    estimate: NoiseEstimate, batch: float, population: int | None = None, *, name: str = "noise scale"
) -> str:
    """What a batch costs by the noise scale: ``1 + batch / scale`` times the fewest samples that reach a target, and ``1 +
    scale / batch`` times the fewest updates (McCandlish et al. 2018, arXiv:1812.06162, eq. 2.11). Two significant digits.

    Args:
        batch: samples of the batch in question.
        population: samples of the train set, where that is what the noise scale is of.
        name: of what was measured.

    Examples:
        >>> found = NoiseEstimate(2700.0, 1900.0, 4400.0, 0.1, 270.0, 300, 0.95, "")
        >>> noise_words(found, 512).split(":")[0]
        'noise scale 2,700 (1,900 to 4,400)'
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    if low <= 0.0:
        return f"{name} not known: {estimate.reason}"
    beyond = f", beyond this train set of {population:,}" if population is not None and low > population else ""
    if value is None or high == math.inf:
        samples, updates = _times(batch / low), _times(low / batch)
        return (
            f"{name} at least {_figure(low)}{beyond}: this batch of {batch:,} costs at most {samples} the samples of the "
            f"smallest batch and at least {updates} the updates of the largest"
        )
    samples = f"{_times(batch / value)} ({_times(batch / high)[:-1]} to {_times(batch / low)[:-1]})"
    updates = f"{_times(value / batch)} ({_times(low / batch)[:-1]} to {_times(high / batch)[:-1]})"
    return (
        f"{name} {_figure(value)} ({_figure(low)} to {_figure(high)}){beyond}: this batch of {batch:,} costs {samples} the "
        f"samples of the smallest batch and {updates} the updates of the largest; at {_figure(value)} both would be 2x"
    )


def _figure(number: float, digits: int = 2) -> str:
    """Rounded to so many significant digits, thousands with commas."""
    decimals = digits - 1 - math.floor(math.log10(abs(number)))
    rounded = round(number, decimals)
    return f"{rounded:,.{max(decimals, 0)}f}"


def _times(excess: float) -> str:
    """``1 + excess`` times: what exceeds 1 to two digits, so that 1.19x and 1.057x keep theirs."""
    if excess >= 10.0:
        return f"{_figure(1.0 + excess)}x"
    decimals = max(1 - math.floor(math.log10(excess)), 0)
    return f"{1.0 + round(excess, decimals):,.{decimals}f}x"
