"""MNIST and Fashion-MNIST, from IDX files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disttrain.data.augment import Augmented, RandomFlip, RandomShift, Transform
from disttrain.data.dataset import Dataset
from disttrain.data.mnist import load_mnist_like, sizes
from disttrain.tasks.base import Sizes
from disttrain.tasks.classification import Classification


class Mnist(Classification):
    """Handwritten digits, 60,000 + 10,000 images of 28x28 (LeCun et al. 1998).

    Args:
        root: directory of the four IDX files, gz or not; None: ``folder`` below ``DISTTRAIN_DATA``, or below ``data``.
        augment: ``shift`` by up to so many pixels, and ``flip``, of training images.
        seed: of the augmentation.

    Raises:
        DataError: when the data is read: a file is missing or damaged.
    """

    in_shape = (1, 28, 28)
    num_classes = 10
    default_model = ("convnet", {})
    folder = "mnist"
    # Of all pixels of the 60,000 training images, as published with many an MNIST example.
    mean = (0.1307,)
    std = (0.3081,)

    def __init__(
        self,
        root: str | None = None,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.root = Path(root) if root is not None else Path(os.environ.get("DISTTRAIN_DATA") or "data") / self.folder
        self.transforms = _transforms(**(augment or {}))
        self.seed = seed

    def sizes(self) -> Sizes:
        return Sizes(*sizes(self.root))

    def load(self) -> tuple[Dataset, Dataset]:
        train, test = load_mnist_like(self.root, self.num_classes)
        return (Augmented(train, self.transforms, self.seed) if self.transforms else train), test


class FashionMnist(Mnist):
    """Articles of clothing, 60,000 + 10,000 images of 28x28 (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

    folder = "fashion-mnist"
    # Of all pixels of the 60,000 training images; a test computes them anew.
    mean = (0.2860,)
    std = (0.3530,)


def _transforms(shift: int = 0, flip: bool = False) -> list[Transform]:
    return [*([RandomShift(shift)] if shift else []), *([RandomFlip()] if flip else [])]
