"""Handwritten digits that come with scikit-learn: the default task."""

from __future__ import annotations

import numpy as np
import torch

from disttrain.data.arrays import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.data.randomness import keys
from disttrain.errors import InputError
from disttrain.tasks.base import Sizes
from disttrain.tasks.classification import Classification

TEST_SAMPLES = 360
SAMPLES = 1797


class Digits(Classification):
    """1,797 images of 8x8 with 17 grey levels (Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits").

    The split into 1,437 for training and 360 for testing is a fixed shuffle of our own, so that it is the same with every
    version of scikit-learn.
    """

    in_shape = (1, 8, 8)
    num_classes = 10

    def sizes(self) -> Sizes:
        return Sizes(SAMPLES - TEST_SAMPLES, TEST_SAMPLES)

    def load(self) -> tuple[Dataset, Dataset]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise InputError(
                f"task digits needs scikit-learn, which holds its data, and it cannot be imported ({error}): "
                "pip install 'disttrain[quickstart]'"
            ) from None
        pixels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels / 16.0).float().view(-1, *self.in_shape)
        targets = torch.from_numpy(labels.astype(np.int64))
        order = torch.from_numpy(np.argsort(keys(0, 0, len(images), stream="digits split"), kind="stable"))
        test, train = order[:TEST_SAMPLES], order[TEST_SAMPLES:]
        return ArrayDataset(images[train], targets[train]), ArrayDataset(images[test], targets[test])
