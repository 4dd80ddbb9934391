"""Random changes of images in memory, vectorised over the batch.

The draws of a sample are a pure function of (seed, epoch, sample id), so an image is changed in the same way
whichever rank reads it, in whatever batch. Datasets that read sample by sample do the same in their
``sample(id, epoch)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from disttrain.data.dataset import Dataset, InMemory, dataset_fingerprint, plain
from disttrain.data.randomness import uniform
from disttrain.errors import InputError


class Transform(Protocol):
    """A random change of a batch of images."""

    @property
    def draws(self) -> int:
        """Random numbers it needs for each sample."""
        ...

    def __call__(self, images: Tensor, u: NDArray[np.float64]) -> Tensor:
        """Change ``images`` (n, channels, height, width) by the uniform numbers ``u`` (n, draws) in [0,
        1)."""
        ...


class RandomShift:
    """Move the image by up to ``pixels`` up or down and left or right; what comes in is zero.

    The same as a random crop of the image padded by ``pixels``.
    """

    draws = 2

    def __init__(self, pixels: int) -> None:
        if pixels < 0:
            raise InputError(f"pixels is {pixels}; it must be at least 0")
        self.pixels = pixels

    def __call__(self, images: Tensor, u: NDArray[np.float64]) -> Tensor:
        n, channels, height, width = images.shape
        offsets = torch.from_numpy(np.floor(u * (2 * self.pixels + 1)).astype(np.int64))
        rows = (offsets[:, :1] + torch.arange(height))[:, None, :, None]
        columns = (offsets[:, 1:] + torch.arange(width))[:, None, None, :]
        sample = torch.arange(n)[:, None, None, None]
        channel = torch.arange(channels)[None, :, None, None]
        return pad(images, (self.pixels,) * 4)[sample, channel, rows, columns]


class RandomFlip:
    """Mirror the image left to right with probability one half."""

    draws = 1

    def __call__(self, images: Tensor, u: NDArray[np.float64]) -> Tensor:
        mirrored = torch.from_numpy(u[:, 0] < 0.5)[:, None, None, None]
        return torch.where(mirrored, images.flip(-1), images)


class Augmented:
    """A dataset in memory whose first field, images (n, channels, height, width), goes through ``transforms``
    in turn."""

    def __init__(self, dataset: InMemory, transforms: Sequence[Transform], seed: int) -> None:
        self.dataset = dataset
        self.transforms = tuple(transforms)
        self.seed = seed
        self.rowwise: bool = getattr(dataset, "rowwise", False)

    def __len__(self) -> int:
        return len(self.dataset)

    def gather(self, ids: NDArray[np.int64], epoch: int) -> tuple[Tensor, ...]:
        """The samples ``ids`` (n,) as they look in ``epoch``."""
        images, *others = self.dataset.gather(ids, epoch)
        for index, transform in enumerate(self.transforms):
            # The place in the list is part of the stream: two shifts in a row must not be the same shift.
            stream = f"augment {index}"
            images = transform(images, uniform(self.seed, epoch, ids, stream=stream, draws=transform.draws))
        return images, *others

    def plain(self) -> Dataset:
        """The images as they are."""
        return plain(self.dataset)

    def fingerprint(self) -> str:
        """Of the dataset within, the transforms with their settings, and the seed."""
        transforms = [(type(transform).__name__, sorted(vars(transform).items())) for transform in self.transforms]
        return f"{dataset_fingerprint(self.dataset)} {transforms} {self.seed}"
