"""Random draws of a layer that are a pure function of (seed, update, place in the global batch, layer, call, position).

A 64-bit word is a hash of these coordinates, and each of its four 16-bit lanes decides over one element. No rank,
micro-batch or engine occurs in it, nor the order in which layers are called. The position is given by the coordinates of
an element in its sample and not by its distance from the first, so padding a batch to another length leaves the draws where they
are.

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014;
Stafford's variant 13), once for the sample, once for the layer, and once for each coordinate.
"""

from __future__ import annotations

import torch
from torch import Tensor

LANES = 65536
"""Probabilities are multiples of one over this."""
_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def word(*parts: int) -> int:
    """64 random bits from whole numbers, as a signed number."""
    h = 0
    for part in parts:
        z = ((h ^ (part & _WORD)) + _GAMMA) & _WORD
        z = ((z ^ (z >> 30)) * _M1) & _WORD
        z = ((z ^ (z >> 27)) * _M2) & _WORD
        h = z ^ (z >> 31)
    return _signed(h)


def sample_words(seed: int, update: int, first: int, samples: int, device: torch.device | str) -> Tensor:
    """(samples,) int64: a word for each of the samples ``first``, ``first + 1``, ... of the global batch of an update."""
    return _mix(_steps(first + 1, samples, device).add_(word(seed, update)))


def keep(samples: Tensor, layer: int, shape: torch.Size | tuple[int, ...], threshold: int) -> Tensor:
    """Which elements are kept, each with probability ``threshold / LANES``.

    Args:
        samples: (n,) what :func:`sample_words` gave.
        layer: 64 bits of the layer and call.
        shape: ``(n, ...)``.
        threshold: from 0 to ``LANES``.

    Returns:
        bool of that shape.
    """
    if threshold in (0, LANES):
        return torch.full(shape, threshold == LANES, device=samples.device)
    # A lane is as often below a threshold read as a signed number as read as an unsigned one, moved by half the range.
    kept = lanes(samples, layer, shape) < threshold - LANES // 2
    return kept[..., : shape[-1] if len(shape) > 1 else 1].reshape(shape)


def lanes(samples: Tensor, layer: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """int16 of ``shape``, but that the last dimension (of 1, where there is none besides the samples) is rounded up to whole
    words of four."""
    *inner, last = shape[1:] or (1,)
    words = _mix(samples + layer)
    for size in (*inner, -(-last // 4)):
        words = _mix(words.unsqueeze(-1) + _steps(1, size, words.device))
    return words.view(torch.int16)


def threshold(p: float) -> int:
    """How many of ``LANES`` values of a lane keep an element that is dropped with probability ``p``."""
    return LANES - round(p * LANES)


def _mix(z: Tensor) -> Tensor:
    """The finaliser, in place. torch shifts signed numbers, so the bits that come in from the left are masked away."""
    shifted = torch.empty_like(z)
    for bits, factor in ((30, _M1), (27, _M2)):
        torch.bitwise_right_shift(z, bits, out=shifted).bitwise_and_((1 << (64 - bits)) - 1)
        z.bitwise_xor_(shifted).mul_(_signed(factor))
    torch.bitwise_right_shift(z, 31, out=shifted).bitwise_and_((1 << 33) - 1)
    return z.bitwise_xor_(shifted)


def _steps(start: int, count: int, device: torch.device | str) -> Tensor:
    return torch.arange(start, start + count, device=device).mul_(_signed(_GAMMA))


def _signed(number: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return number - (1 << 64) if number >> 63 else number
