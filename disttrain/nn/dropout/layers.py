"""Dropout layers whose masks do not depend on the cluster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from disttrain.errors import InputError
from disttrain.nn.dropout.context import NOW, layer_word
from disttrain.nn.dropout.draws import LANES, keep, threshold


class Drawn:
    """A module that draws masks of its own.

    Attributes:
        drawn_as: its number (:func:`disttrain.nn.dropout.context.layer_number`) and its name.
        samples_dim: the dimension of its input along which the samples lie; None: the first, unless it could be the second.
    """

    drawn_as: tuple[int, str] | None = None
    samples_dim: int | None = None


def kept(module: Drawn, x: Tensor, shape: torch.Size | tuple[int, ...], p: float, dim: int | None = None) -> Tensor:
    """Which elements ``module`` keeps of a mask of ``shape`` for its input ``x``, each dropped with probability ``p``; bool.

    Args:
        dim: where the samples are known to lie; None: as the module says.

    Raises:
        InputError: ``x`` does not have its samples where they are expected.
        RuntimeError: the module was never given a name.
    """
    if module.drawn_as is None:
        raise RuntimeError(f"a {type(module).__name__} has no name yet: call disttrain.nn.convert_dropout(model) first")
    assert NOW.words is not None
    known, words = module.samples_dim if dim is None else dim, NOW.words.to(x.device)
    blocks, dim = blocks_of(x, len(words), known, module.drawn_as[1]), known or 0
    if NOW.note is not None and blocks > 1:
        NOW.note(module.drawn_as[1], blocks, x.movedim(dim, 0))
    first, *rest = (shape[dim], *shape[:dim], *shape[dim + 1 :])
    inner = rest if blocks == 1 else [blocks, *rest]
    drawn = keep(words, layer_word(module.drawn_as[0]), (len(words), *inner), threshold(p))
    return drawn.reshape(first, *rest).movedim(0, dim)


def blocks_of(x: Tensor, samples: int, dim: int | None, name: str) -> int:
    """How many rows of ``x`` belong to each sample.

    Raises:
        InputError: the samples are not along that dimension, or may be along another one.
    """
    size = x.shape[dim or 0] if x.dim() > (dim or 0) else 0
    elsewhere = dim is None and size != samples and x.dim() > 2 and x.shape[1] == samples
    if size == 0 or size % samples or elsewhere:
        raise InputError(
            f"dropout {name or '(the model itself)'}: its input is of shape {tuple(x.shape)}, and the micro-batch has "
            f"{samples} samples; expected them along dimension {dim or 0}. Where they lie along another one, use "
            "disttrain.nn.Dropout(p, dim=...) in the model"
        )
    return size // samples


class Dropout(Drawn, nn.Dropout):
    """Dropout (Srivastava et al. 2014, JMLR 15) whose masks are a pure function of (seed, update, place of the sample in the
    global batch, layer, position within the sample).

    Inside :func:`dropout_masks`, once :func:`convert_dropout` has given the layer its name. Elsewhere (in a loop without it) it
    is torch's dropout from torch's generator, and in evaluation mode the identity. ``p`` is taken as the nearest multiple of
    1 / 65536, and what is kept is scaled by the probability that this really has.

    Args:
        p: probability that an element is dropped.
        dim: the dimension along which samples lie; its size is the number of samples, or a multiple with the rows of a sample
            next to each other. None: the first, and an input of which the second has that size instead is refused.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, dim: int | None = None) -> None:
        super().__init__(p, inplace)
        self.samples_dim = dim

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or NOW.words is None or input.numel() == 0:
            return super().forward(input)
        return scaled(input, kept(self, input, input.shape, self.p), self.p, self.inplace)


class ChannelDropout(Drawn, nn.modules.dropout._DropoutNd):
    """Mixed into ``nn.Dropout1d``, ``2d`` and ``3d``: whole channels, ``(n, c, ...)``."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or NOW.words is None or input.numel() == 0:
            plain: Tensor = super().forward(input)
            return plain
        drawn = kept(self, input, input.shape[:2], self.p)
        return scaled(input, drawn.reshape(*drawn.shape, *[1] * (input.dim() - 2)), self.p, self.inplace)


class AlphaDropout(Drawn, nn.AlphaDropout):
    """Mixed into ``nn.AlphaDropout`` (Klambauer et al. 2017, arXiv:1706.02515): keeps mean 0 and variance 1."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or NOW.words is None or input.numel() == 0:
            return super().forward(input)
        q, low = threshold(self.p) / LANES, -1.7580993408473766
        mask = kept(self, input, input.shape, self.p)
        scale = (q + low * low * q * (1.0 - q)) ** -0.5 if q else 0.0
        return torch.where(mask, input, low).mul(scale).add(-scale * low * (1.0 - q))


class StochasticDepth(Drawn, nn.Module):
    """Drops the whole input of a sample, such as a residual branch (Huang et al. 2016, arXiv:1603.09382), and scales what is
    kept. Outside of :func:`dropout_masks` it draws from torch's generator.

    Args:
        p: probability that a sample's is dropped.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p is {p}; it must lie between 0 and 1")
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        shape = (len(input), *[1] * (input.dim() - 1))
        if NOW.words is None:
            return input * nn.functional.dropout(input.new_ones(shape), self.p)
        return scaled(input, kept(self, input, shape, self.p), self.p)


class DropPath(Drawn):
    """Mixed into the stochastic depth of timm, torchvision and Hugging Face, whose probability is ``drop_prob`` or ``p``."""

    training: bool

    def forward(self, input: Tensor, *more: Any) -> Tensor:
        p = path_probability(self)
        if not self.training or p == 0.0 or NOW.words is None or input.numel() == 0:
            plain: Tensor = super().forward(input, *more)  # type: ignore[misc]
            return plain
        mask = kept(self, input, (len(input), *[1] * (input.dim() - 1)), p)
        return scaled(input, mask, p) if getattr(self, "scale_by_keep", True) else input * mask


def path_probability(module: object) -> float:
    """Of a module that is some library's stochastic depth."""
    return float(getattr(module, "drop_prob", None) or getattr(module, "p", None) or 0.0)


def scaled(x: Tensor, kept: Tensor, p: float, inplace: bool = False) -> Tensor:
    """``x`` where it is kept, over the probability of that (rounded as it was drawn), and 0 elsewhere."""
    scale = LANES / max(threshold(p), 1)
    mask = kept.to(x.dtype)
    if x.element_size() < 4:  # a 16-bit mask would round the scale, and with it the mean
        return x.mul_(mask).mul_(scale) if inplace else (x * mask) * scale
    return x.mul_(mask.mul_(scale)) if inplace else x * mask.mul_(scale)
