"""Mixup and cutmix: each training image is mixed with another one, and so is its loss.

Everything random about a sample, whether it is mixed, with which partner and in what proportion, is a pure function of (seed,
epoch, sample id). The partner is drawn from all samples that are trained on and read along, not taken from the batch: the
result does not depend on the batch, the ranks or the accumulation. That costs reading every sample twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.dataset import Dataset, InMemory, PerSample, dataset_fingerprint, plain
from disttrain.data.randomness import uniform
from disttrain.data.selection import Selection
from disttrain.errors import InputError

_Data = TypeVar("_Data", InMemory, PerSample)


@dataclass(frozen=True, slots=True)
class MixSettings:
    """How images are mixed.

    Attributes:
        mixup: alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412, eq. 1); 0: none.
        cutmix: alpha of cutmix's Beta(alpha, alpha) (Yun et al. 2019, arXiv:1905.04899, section 3.1); 0: none. With both, each
            sample is mixed by one of them, with equal probability.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0.0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 0")


class _Mixed(Generic[_Data]):
    """What both kinds of datasets share: the draws.

    Args:
        chosen: the samples that partners are drawn from; None: all of them.
    """

    def __init__(self, dataset: _Data, settings: MixSettings, seed: int, chosen: Selection | None = None) -> None:
        self.dataset: _Data = dataset
        self.settings, self.seed, self.chosen = settings, seed, chosen
        self.rowwise: bool = getattr(dataset, "rowwise", False)

    def __len__(self) -> int:
        return len(self.dataset)

    def plain(self) -> Dataset:
        """The samples, neither mixed nor augmented."""
        return plain(self.dataset)

    def fingerprint(self) -> str:
        """Of the data set within, and of the settings."""
        return f"{dataset_fingerprint(self.dataset)} {self.settings} {self.seed} {self.chosen}"

    def draws(self, ids: NDArray[np.int64], epoch: int) -> tuple[NDArray[np.int64], NDArray[np.float64], Tensor]:
        """Partner ids (n,), shares of the image itself (n,), and centres of boxes (n, 2) in [0, 1), NaN for mixup."""
        u = uniform(self.seed, epoch, ids, stream="mix", draws=4)
        partners = np.floor(u[:, 0] * len(self if self.chosen is None else self.chosen)).astype(np.int64)
        if self.chosen is not None:
            partners = self.chosen.ids(partners)
        alphas = (self.settings.cutmix, self.settings.mixup)
        cut = u[:, 1] < 0.5 if all(alphas) else np.full(len(ids), bool(self.settings.cutmix))
        share = np.where(cut, *(symmetric_beta(alpha, self.seed, epoch, ids) if alpha else 1.0 for alpha in alphas))
        centres = torch.from_numpy(np.where(cut[:, None], u[:, 2:], np.nan))
        return partners, share, centres


class MixedInMemory(_Mixed[InMemory]):
    """A data set in memory, mixed: ``(image, label)`` becomes ``(image, label, partner, its label, share, centre)``. The
    mixing itself is done by :func:`mix`, on the device, after the images were made numbers.

    A partner is augmented as itself in this epoch.
    """

    def gather(self, ids: NDArray[np.int64], epoch: int) -> tuple[Tensor, ...]:
        """The samples ``ids`` (n,), as above, each (n, ...)."""
        partners, share, centres = self.draws(ids, epoch)
        images, labels = self.dataset.gather(ids, epoch)
        others, other_labels = self.dataset.gather(partners, epoch)
        return images, labels, others, other_labels, torch.from_numpy(share), centres


class MixedPerSample(_Mixed[PerSample]):
    """:class:`MixedInMemory` for data sets that make one sample at a time."""

    def sample(self, id: int, epoch: int) -> Sequence[Any]:
        """One sample, as above."""
        partners, share, centres = self.draws(np.array([id]), epoch)
        image, label = self.dataset.sample(id, epoch)
        other, other_label = self.dataset.sample(int(partners[0]), epoch)
        return image, label, other, other_label, float(share[0]), centres[0]


def mix(images: Tensor, others: Tensor, share: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Mixed images and the shares (n,) of the image itself in each, on any device.

    Mixup: ``share * image + (1 - share) * other``. Cutmix: a box of sides ``sqrt(1 - share)`` of the image's, around
    a point drawn evenly and clipped at the border, comes from ``other``, and the share is corrected to what
    the box really covers.

    Args:
        images, others: (n, channels, height, width), floating point.
        share: (n,).
        centres: (n, 2), the box's centre, in shares of height and width; NaN: mixup.
    """
    share, centres = share.to(images), centres.to(images)
    height, width = images.shape[-2:]
    cut = ~centres[:, 0].isnan()
    inside = torch.ones((len(images), 1, height, width), dtype=torch.bool, device=images.device)
    for axis, side in ((2, height), (3, width)):
        centre = (centres.nan_to_num()[:, axis - 2] * side).floor()
        half = (side * (1.0 - share).clamp(min=0.0).sqrt()).floor() / 2
        low, high = (centre - half).floor().clamp(0, side), (centre + half).floor().clamp(0, side)
        shape = [-1, 1, 1, 1]
        positions = torch.arange(side, device=images.device).view([-1 if i == axis else 1 for i in range(4)])
        inside &= (positions >= low.view(shape)) & (positions < high.view(shape))
    covered = inside.flatten(1).to(images.dtype).mean(1)
    share = torch.where(cut, 1.0 - covered, share)
    weight = torch.where(cut.view(-1, 1, 1, 1), (~inside).to(images.dtype), share.view(-1, 1, 1, 1))
    return torch.lerp(others, images, weight.expand_as(images)), share


def symmetric_beta(alpha: float, seed: int, epoch: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) draws from Beta(alpha, alpha), each a function of (seed, epoch, id).

    By the quantile function, found by bisection of the regularised incomplete beta function, itself by its continued fraction
    (Numerical Recipes, section 6.4, in Lentz's form): exact to about 1e-12, with one uniform number for each sample.
    """
    u = uniform(seed, epoch, ids, stream=f"beta {alpha}")[:, 0]
    # The density is symmetric: the lower half is enough, and there the fraction converges.
    lower = np.minimum(u, 1.0 - u)
    # In the logarithm, because for a small alpha most draws are tiny.
    low, high = np.full(len(u), -700.0), np.full(len(u), np.log(0.5))
    for _ in range(60):
        middle = (low + high) / 2
        below = _incomplete_beta(np.exp(middle), alpha) < lower
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    x = np.exp((low + high) / 2)
    return np.asarray(np.where(u < 0.5, x, 1.0 - x))


def _incomplete_beta(x: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """``I_x(alpha, alpha)`` for x up to one half."""
    front: NDArray[np.float64] = (
        np.exp(alpha * (np.log(x) + np.log1p(-x)) + lgamma(2 * alpha) - 2 * lgamma(alpha)) / alpha
    )
    c, d = np.ones_like(x), 1.0 / (1.0 - 2 * alpha * x / (alpha + 1))
    result, going = d.copy(), np.ones(x.shape, dtype=bool)
    for m in range(1, 200):
        even = m * (alpha - m) * x / ((alpha + 2 * m - 1) * (alpha + 2 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        result *= np.where(going, d * c, 1.0)
        odd = -(alpha + m) * (2 * alpha + m) * x / ((alpha + 2 * m) * (alpha + 2 * m + 1))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        # A draw that has converged stays as it is, however long the others that are made with it take.
        step = np.where(going, d * c, 1.0)
        result *= step
        going &= np.abs(step - 1.0) >= 1e-15
        if not going.any():
            break
    value: NDArray[np.float64] = front * result
    return value
